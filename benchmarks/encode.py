"""How fast the vision encoder is on this CPU, against the floor its matrix products set.

    python benchmarks/encode.py [--json PATH] [--threads N] [--presets starter paper released]

For every preset: seconds for one scan (best of several), floating-point operations counted by
torch, the rate at which this machine multiplies matrices of just the encoder's shapes (measured
in turn with the encoder, in the same run), and from both the floor: the time the encoder's
products alone would take if all ran at the best rate seen. Each preset runs in a process of its
own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRESETS = ("starter", "paper", "released")
SQUARE = 2048


def best_seconds(run: Callable[[], object], repeats: int) -> float:
    """The shortest of several runs: other work on the machine only ever lengthens one."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(preset: str, precision: str, threads: int, repeats: int) -> dict[str, Any]:
    """Figures of one preset in one precision, on the CPU."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    from simcrop_core.input_spec import InputSpec
    from simcrop_core.model import PRESETS as CONFIGURED
    from simcrop_core.model import VisionEncoder

    torch.set_num_threads(threads)
    spec, config = InputSpec(), CONFIGURED[preset]["vision"]
    torch.manual_seed(0)
    encoder = VisionEncoder(config, spec.grid_shape, spec.patch_shape)
    encoder.initialise()
    encoder.eval()
    volume = torch.rand(1, 1, *spec.shape) * 2 - 1
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    tokens, width = spec.patches + 1, config.width
    head = width // config.heads

    def encode() -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return encoder(volume)

    shapes = {
        "square": (SQUARE, SQUARE, SQUARE),
        "qkv": (tokens, width, 3 * width),
        "proj": (tokens, width, width),
        "fc1": (tokens, width, config.hidden_width),
        "fc2": (tokens, config.hidden_width, width),
        "scores": (tokens, head, tokens),
        "mix": (tokens, tokens, head),
    }
    operands = {
        name: (torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype))
        for name, (m, k, n) in shapes.items()
    }

    def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    with torch.inference_mode():
        # torch counts the products of linear layers, but not those of its attention for CPUs.
        attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        counter = FlopCounterMode(display=False, custom_mapping={attention: attention_flops})
        with counter:
            encode()
        memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        best = float("inf")
        rates = dict.fromkeys(shapes, 0.0)
        for _ in range(repeats):  # in turn, so that both meet the same weather
            best = min(best, best_seconds(encode, 1))
            for name, (m, k, n) in shapes.items():
                a, b = operands[name]
                seconds = best_seconds(lambda a=a, b=b: a @ b, 3)
                rates[name] = max(rates[name], 2 * m * k * n / seconds)
    flops = counter.get_total_flops()
    top = max(rates.values())
    return {
        "preset": preset,
        "precision": precision,
        "seconds": best,
        "gflop": flops / 1e9,
        "matmul_gflops": {name: rate / 1e9 for name, rate in rates.items()},
        "floor_seconds": flops / top,
        "ratio": best / (flops / top),
        "peak_rss_mib": memory_mib,
    }


def machine(threads: int) -> dict[str, Any]:
    """What ran it, in so far as it bears on the figures."""
    import torch

    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "cpu": model,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS)
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=("fp32",))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)  # one preset, for a child
    arguments = parser.parse_args()
    if arguments.only:
        figures = measure(*arguments.only, arguments.threads, arguments.repeats)
        print(json.dumps(figures))
        return 0
    facts = machine(arguments.threads)
    print(f"{facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}")
    print("preset    prec  seconds    GFLOP  GFLOP/s (square, best)   floor s  ratio  peak MiB")
    rows = []
    for preset in arguments.presets:
        for precision in arguments.precisions:
            command = [sys.executable, __file__, "--only", preset, precision]
            command += ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            rows.append(row)
            rates = row["matmul_gflops"]
            print(
                f"{preset:9s} {precision:5s} {row['seconds']:7.2f} {row['gflop']:8.0f}"
                f"  {rates['square']:8.0f}, {max(rates.values()):6.0f}        "
                f"{row['floor_seconds']:7.2f} {row['ratio']:6.2f} {row['peak_rss_mib']:9.0f}"
            )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": facts, "rows": rows}, indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
