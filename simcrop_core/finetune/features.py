"""Frozen features of views of scans.

Shapes in names: V views of a scan; N scans; D the width of a feature; B views encoded at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simcrop_core.datasets.dataset import ScanFile
from simcrop_core.device import Precision, autocast, evaluating
from simcrop_core.errors import SimCroPError
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.model.vision import VisionEncoder
from simcrop_core.views import center_view, draw_view, take_view, whole_scan

#: Of the last block; the first has none (timm's, with which the authors build their encoder).
DROP_PATH = 0.1
#: To be counted up with every change of the views or features of the same scan, here or in
#: :mod:`simcrop_core.views`: kept ones are then computed anew.
FEATURES_VERSION = 1

Array = NDArray[np.float32]
Item = TypeVar("Item")
Made = TypeVar("Made")


class FeatureMaker:
    """Features of scans by one model.

    Parameters
    ----------
    model
        Its encoder is used as it is.
    seed
        Of the views and of dropped branches.
    drop_path
        Whether residual branches are dropped in training views.
    encode_batch
        Views encoded at once.
    workers
        Threads that read scans ahead.
    """

    def __init__(
        self,
        model: SimCroP,
        *,
        seed: int = 0,
        drop_path: bool = False,
        encode_batch: int = 8,
        workers: int = 0,
        device: torch.device | None = None,
        precision: Precision = "auto",
    ) -> None:
        self.model, self.seed, self.drop_path = model, seed, drop_path
        self.encode_batch, self.workers, self.precision = encode_batch, workers, precision
        self.device = device or torch.device("cpu")
        self.model.to(self.device)

    @property
    def width(self) -> int:
        return self.model.config.vision.width

    def training(
        self, sources: Sequence[ScanFile], numbers: Sequence[int]
    ) -> Iterator[NDArray[np.float32]]:
        """The views with these numbers of each scan, ``(V, D)``; scans in order.

        Raises
        ------
        SimCroPError
            A scan cannot be read.
        """
        wanted = self.model.input_spec.shape

        def views(source: ScanFile) -> list[Array]:
            scan = self._scan(source)
            size = (scan.shape[0], scan.shape[1], scan.shape[2])
            drawn = [draw_view(self.seed, source.id, n, size, wanted) for n in numbers]
            return [take_view(scan, view, wanted) for view in drawn]

        def seeds(source: ScanFile) -> list[tuple[str, int]]:
            return [(source.id, number) for number in numbers]

        yield from self._encoded(sources, views, seeds if self.drop_path else None)

    def testing(self, sources: Sequence[ScanFile]) -> Iterator[NDArray[np.float32]]:
        """The middle of each scan, ``(1, D)``; scans in order. Errors as :meth:`training`."""
        wanted = self.model.input_spec.shape
        yield from self._encoded(
            sources, lambda source: [center_view(self._scan(source), wanted)], None
        )

    def _scan(self, source: ScanFile) -> Array:
        try:
            return whole_scan(source.read(), self.model.input_spec)
        except SimCroPError as e:
            raise SimCroPError(
                f"Scan {source.id}: {e.problem}", code=e.code, remedy=e.remedy, path=e.path
            ) from e

    def _encoded(
        self,
        sources: Sequence[ScanFile],
        views: Callable[[ScanFile], list[Array]],
        seeds: Callable[[ScanFile], list[tuple[str, int]]] | None,
    ) -> Iterator[NDArray[np.float32]]:
        """Views are encoded together across scans, and given back scan by scan."""
        counts: deque[int] = deque()
        inputs: list[Array] = []
        whose: list[tuple[str, int]] = []
        ready: list[NDArray[np.float32]] = []

        def full() -> Iterator[NDArray[np.float32]]:
            while counts and len(ready) >= counts[0]:
                count = counts.popleft()
                yield np.stack(ready[:count])
                del ready[:count]

        for source, made in ahead(sources, views, self.workers):
            counts.append(len(made))
            inputs += made
            whose += [] if seeds is None else seeds(source)
            while len(inputs) >= self.encode_batch:
                ready += list(self.encode(inputs[: self.encode_batch], whose[: self.encode_batch]))
                del inputs[: self.encode_batch], whose[: self.encode_batch]
            yield from full()
        if inputs:
            ready += list(self.encode(inputs, whose))
        yield from full()

    def encode(
        self, inputs: Sequence[Array], whose: Sequence[tuple[str, int]] = ()
    ) -> NDArray[np.float32]:
        """Features ``(B, D)``: the mean of the patch tokens through ``fc_norm``.

        ``whose`` are scan and view of each input: branches are dropped by them.
        """
        x_B1HWD = torch.from_numpy(np.stack(inputs))[:, None].to(self.device)
        vision = self.model.vision
        with (
            evaluating(self.model),
            torch.inference_mode(),
            autocast(self.device, self.precision),
            dropped_branches(vision, [stream(self.seed, *w) for w in whose]),
        ):
            features = vision(x_B1HWD).pooled_BD.float().cpu().numpy()
        if not np.isfinite(features).all():
            raise SimCroPError(
                "The encoder gives features that are not numbers",
                code="non-finite",
                remedy="Choose another model; with --set precision=fp32 more large values fit.",
            )
        return np.asarray(features, np.float32)


def stream(seed: int, scan: str, number: int) -> np.random.Generator:
    """The random numbers by which branches are dropped for a view of a scan."""
    return np.random.default_rng([seed, *scan.encode(), 1 << 31, number])


@contextmanager
def dropped_branches(
    vision: VisionEncoder, streams: Sequence[np.random.Generator], rate: float = DROP_PATH
) -> Iterator[None]:
    """Stochastic depth in an encoder, a stream for each sample of the batch; none: as it is.

    Block by block the rate grows from 0 to ``rate``; a branch (attention or MLP) of a sample is
    left out, or else divided by the chance that it was kept.
    """
    if not streams:
        yield
        return
    rates = np.linspace(0, rate, len(vision.blocks))
    handles = []

    def hook(kept: float) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def apply(module: nn.Module, given: object, out_BTD: Tensor) -> Tensor:
            factors = [float(rng.random() < kept) / kept for rng in streams]
            return out_BTD * torch.tensor(factors, dtype=out_BTD.dtype).to(out_BTD)[:, None, None]

        return apply

    try:
        for number, block in enumerate(vision.blocks):
            for branch in (block.attn, block.mlp):
                assert isinstance(branch, nn.Module)
                handles.append(branch.register_forward_hook(hook(1 - float(rates[number]))))
        yield
    finally:
        for handle in handles:
            handle.remove()


def ahead(
    items: Iterable[Item], make: Callable[[Item], Made], workers: int
) -> Iterator[tuple[Item, Made]]:
    """What is made of each item, in order, while the next are made in threads."""
    if workers < 1:
        for item in items:
            yield item, make(item)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Item, Future[Made]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(make, item)))
                if len(waiting) > workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
