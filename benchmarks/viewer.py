"""How long the window takes: to start, to show, to switch sentences, to answer; and its memory.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/viewer.py [--json PATH]

Each part runs in a process of its own, on a scan of 512 x 512 x 600 with 100 sentences. Switching
is told twice: the Python of it (processor time of the window's thread until its code returns), and
the whole, with drawing, which without a graphics card is done by the processor. Starting is told
beside napari's own window, in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SENTENCES = 100
SWITCHES = 40
CYCLES = 50
SHAPE = (512, 512, 600)
SMALL = (256, 256, 120)


def write_scan(path: Path, shape: tuple[int, int, int]) -> None:
    """A noisy block with a rim of air; not packed, so that the window is measured, not zlib."""
    import nibabel as nib
    import numpy as np

    rng = np.random.default_rng(0)
    hu = np.full(shape, -1000, np.int16)
    x, y = (n // 8 for n in shape[:2])
    for z in range(shape[2]):
        hu[x:-x, y:-y, z] = rng.normal(-300, 300, (shape[0] - 2 * x, shape[1] - 2 * y)).clip(-1024)
    nib.save(nib.Nifti1Image(hu, np.diag([-0.7, -0.7, 0.6 * 600 / shape[2], 1.0])), path)


def write_report(path: Path) -> None:
    places = ("right upper lobe", "left lower lobe", "liver", "heart", "aorta")
    told = (f"There is a nodule of {n + 3} mm in the {places[n % 5]}." for n in range(SENTENCES))
    path.write_text("Findings:\n" + " ".join(told) + "\n")


# -- parts, each in a process of its own ---------------------------------------------------------


def start_napari() -> dict[str, float]:
    """napari alone, from the start of the process to its window."""
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(show=True)
    QApplication.processEvents()
    seconds = since_start()
    viewer.close()
    return {"seconds": seconds}


def start_window(ct: Path) -> dict[str, float]:
    """Ours, to its window and to the first picture of a scan."""
    window = opened_window()
    shown = since_start()
    window.open(ct)
    until(lambda: window.session.study is not None)
    pictured = since_start()
    window.close()
    return {"window_seconds": shown, "picture_seconds": pictured}


def use(ct: Path, report: Path, model: Path) -> dict[str, Any]:
    """Encode, switch sentences in four views and in one, ask."""
    import numpy as np
    from qtpy.QtWidgets import QApplication

    window = opened_window()
    window.open(ct, report)
    until(lambda: window.session.study is not None)
    window.use_model(model)
    until(lambda: window.evidence.model is not None)
    if window.evidence.is_encoded:
        raise RuntimeError("The scan was encoded before it was asked for.")
    start = time.perf_counter()
    until(lambda: window.evidence.is_encoded, 600)
    window.session.select(0)
    QApplication.processEvents()
    figures: dict[str, Any] = {"encode_to_overlay_seconds": time.perf_counter() - start}

    def switches() -> dict[str, float]:
        python, whole = [], []
        for number in range(SWITCHES):
            cpu, clock = time.thread_time(), time.perf_counter()
            window.session.select((7 * number + 1) % SENTENCES)
            python.append(1000 * (time.thread_time() - cpu))
            QApplication.processEvents()
            whole.append(1000 * (time.perf_counter() - clock))
        return {
            f"{name}_p{q}_ms": float(np.percentile(values, q))
            for name, values in (("python", python), ("whole", whole))
            for q in (50, 95)
        }

    figures["switch_4_views"] = switches()
    axial = window.panes["axial"]
    axial.maximised.emit(axial)
    QApplication.processEvents()
    figures["switch_1_view"] = switches()
    answered: list[float] = []
    drawn = []
    window.session.statements_changed.connect(lambda: answered.append(time.perf_counter()))
    asked = []
    for number in range(8):
        start = time.perf_counter()
        window.evidence.ask(f"A mass of {number} cm in the left lung")
        until(lambda number=number: len(answered) == number + 1)  # type: ignore[misc]
        asked.append(1000 * (answered[-1] - start))
        drawn.append(1000 * (time.perf_counter() - start))
    figures["query_ms"] = {
        "answer_p50": float(np.percentile(asked, 50)),
        "drawn_p50": float(np.percentile(drawn, 50)),
    }
    figures["peak_mib"] = resident_mib("VmHWM")
    window.close()
    return figures


def cycles(ct: Path) -> dict[str, Any]:
    """Resident memory after opening and closing a study again and again."""
    window = opened_window()
    sizes = []
    for _ in range(CYCLES):
        window.open(ct)
        until(lambda: window.session.study is not None)
        window.studies.close()
        until(lambda: window.session.study is None)
        sizes.append(resident_mib("VmRSS"))
    window.close()
    return {
        "cycles": CYCLES,
        "after_5_mib": sizes[4],
        "after_last_mib": sizes[-1],
        "most_mib": max(sizes[5:]),
        "scan_mib": SMALL[0] * SMALL[1] * SMALL[2] * 2 / 2**20,
    }


# -- helpers ------------------------------------------------------------------------------------


def opened_window() -> Any:
    from qtpy.QtWidgets import QApplication

    from simcrop_viewer.view.window import MainWindow

    window = MainWindow()
    window.show()
    QApplication.processEvents()
    return window


def until(there: Callable[[], bool], seconds: float = 120) -> None:
    """Let the window work until something is there."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            raise TimeoutError("The window did not come to it in time.")
        QApplication.processEvents()
        time.sleep(0.001)
    QApplication.processEvents()


def since_start() -> float:
    """Seconds since this process was asked for."""
    return time.time() - float(os.environ["SIMCROP_BENCHMARK_START"])


def resident_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def in_its_own_process(part: str, *paths: Path) -> dict[str, Any]:
    environment = {**os.environ, "SIMCROP_BENCHMARK_START": repr(time.time())}
    command = [sys.executable, __file__, "--part", part, *map(str, paths)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{part} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def make_model(folder: Path) -> None:
    from simcrop_core.model import create_model, save_model

    save_model(create_model("starter"), folder)


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "napari": start_napari,
    "start": start_window,
    "use": use,
    "cycles": cycles,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        name, *paths = arguments.part
        print(json.dumps(PARTS[name](*map(Path, paths))))
        return 0
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        large, small, report, model = (
            folder / name for name in ("large.nii", "small.nii", "report.txt", "model")
        )
        write_scan(large, SHAPE)
        write_scan(small, SMALL)
        write_report(report)
        make_model(model)
        in_its_own_process("napari")  # so that files are read from memory, for both alike
        figures = {
            "napari": in_its_own_process("napari"),
            "start": in_its_own_process("start", large),
            "use": in_its_own_process("use", large, report, model),
            "cycles": in_its_own_process("cycles", small),
        }
    print(json.dumps(figures, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
