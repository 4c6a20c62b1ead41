"""The loader: batches of stored studies in an order that depends on seed and epoch alone.

Shapes in names: B studies of this process; S sentences; C counterfactuals; L tokens; D width of a
text vector; R regions of all the batch's studies; X, Y, Z voxels with margin (cells for regions).

Threads, not processes, unpack the volumes: Blosc2 does so without Python's lock, and a thread
writes straight into the batch (``docs/data.md`` has the measurement).
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simcrop_core.counter_random import seed_of
from simcrop_core.errors import SimCroPError
from simcrop_core.store.collate import Lengths, RawBatch, allocate, fill
from simcrop_core.store.store import RawSample, Store

_MISSING = frozenset({"missing-record", "damaged-record"})


@dataclass(frozen=True, slots=True)
class _Step:
    """A batch of one process: epoch, step in the epoch, and which studies."""

    epoch: int
    step: int
    indices: tuple[int, ...]


class Loader:
    """Endless or counted epochs over a store, resumable at any batch.

    One epoch is a permutation of the studies, a function of (seed, epoch). It is cut into global
    batches of ``batch_size * world_size`` studies, and each process takes its own stretch of
    every global batch: the processes together, in the order of their ranks, see what one process
    with the larger batch would see. A study's seed is ``seed_of(seed, epoch, index)``, whoever
    loads it.

    A study whose files are damaged or missing is put on the quarantine list and replaced by
    another one, chosen by (seed, epoch, index) alone. More than one in a thousand (but at least
    one) stop the run.

    Parameters
    ----------
    store
        The store.
    batch_size
        Studies a process.
    seed
        Of order, replacement, and the studies' own seeds.
    epochs
        Epochs until the loader ends; None never.
    indices
        Studies of the store to use; None all.
    shuffle
        False: in the order given, for evaluation.
    drop_last
        True: studies left over at the end of an epoch (other ones each epoch) are left out, so
        that all batches are alike. False: the last batch is smaller, and processes for which
        nothing is left give no batch.
    rank, world_size
        This process among all.
    workers
        Threads that read and unpack; 0: none, batches are made when they are asked for.
    prefetch
        Batches that are made ahead.
    pin_memory
        Page-locked memory, from which a GPU copies in the background.
    max_sentences, max_counterfactuals, max_tokens
        Longer ones lose some: sentences and counterfactuals at random by the study's seed,
        tokens from the end. Shorter ones are padded: every batch has the same shape.
    structures
        Whether label maps are read.
    quarantine
        File that lists damaged studies, shared by the processes of a run; kept over a resume.
        None: the list is kept in memory.

    Raises
    ------
    SimCroPError
        ``too-few-studies``: an epoch would have no batch. While iterating: ``too-many-damaged``.
    """

    def __init__(
        self,
        store: Store,
        *,
        batch_size: int,
        seed: int,
        epochs: int | None = None,
        indices: Sequence[int] | None = None,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 4,
        prefetch: int = 2,
        pin_memory: bool = False,
        max_sentences: int = 64,
        max_counterfactuals: int = 64,
        max_tokens: int = 512,
        structures: bool = False,
        quarantine: Path | None = None,
    ) -> None:
        if batch_size < 1 or workers < 0 or prefetch < 1 or not 0 <= rank < world_size:
            raise ValueError("batch_size and prefetch are positive, and rank < world_size.")
        self.store, self.batch_size, self.seed, self.epochs = store, batch_size, seed, epochs
        self.indices = tuple(range(len(store)) if indices is None else map(int, indices))
        self.shuffle, self.drop_last = shuffle, drop_last
        self.rank, self.world_size = rank, world_size
        self.workers, self.prefetch, self.pin_memory = workers, prefetch, pin_memory
        sentences, counterfactuals, tokens = store.longest
        self.lengths = Lengths(
            max(1, min(max_sentences, sentences)),
            max(1, min(max_counterfactuals, counterfactuals)),
            max(2, min(max_tokens, tokens)),
        )
        self.structures = structures
        self.quarantine = Quarantine(store, quarantine)
        self.epoch = self.step = 0
        if len(self) < 1:
            raise SimCroPError(
                f"The store has {len(self.indices)} studies for a global batch of "
                f"{self.global_batch}",
                path=store.folder,
                code="too-few-studies",
                remedy="Make the batch smaller, or prepare more studies.",
            )

    @property
    def global_batch(self) -> int:
        """Studies of a batch over all processes."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Batches an epoch."""
        whole, rest = divmod(len(self.indices), self.global_batch)
        return whole + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> tuple[int, ...]:
        """The studies of an epoch in order, over all processes."""
        if not self.shuffle:
            return self.indices
        random = np.random.Generator(np.random.Philox(seed_of(self.seed, "order", epoch)))
        return tuple(self.indices[i] for i in random.permutation(len(self.indices)))

    def set_aside(self, index: int, error: SimCroPError) -> None:
        """Put a study whose files are damaged or missing on the quarantine list.

        Raises
        ------
        SimCroPError
            The error itself where it is another one; ``too-many-damaged``.
        """
        if error.code not in _MISSING:
            raise error
        self.quarantine.add(index, self.epoch, self.rank, error)

    # -- state ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch stands; what was made ahead is not counted."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seed": self.seed,
            "global_batch": self.global_batch,
            "studies": len(self.indices),
            "store": self.store.fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, also with other numbers of processes and threads.

        Raises
        ------
        SimCroPError
            ``other-data``: the batches would not be those of the run that is resumed.
        """
        own = self.state_dict()
        words = {
            "seed": "the seed",
            "global_batch": "the global batch",
            "studies": "the number of studies",
            "store": "the store",
        }
        other = [word for name, word in words.items() if state.get(name) != own[name]]
        if other:
            raise SimCroPError(
                f"The run cannot go on with these data: {' and '.join(other)} changed",
                path=self.store.folder,
                code="other-data",
                remedy="Resume with the same data and batch, or start a new run.",
            )
        self.epoch, self.step = int(state["epoch"]), int(state["step"])

    # -- iterating ------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[RawBatch]:
        """Batches from where the loader stands to its end."""
        if self.workers == 0:
            for step in self._steps():
                yield from self._handed_out(step, self._batch(step, None))
            return
        steps = self._steps()
        waiting: deque[tuple[_Step, Future[RawBatch]]] = deque()
        # Batches are put together by threads of their own, which wait for those that unpack.
        with (
            ThreadPoolExecutor(self.workers, "unpack") as unpackers,
            ThreadPoolExecutor(self.prefetch, "batch") as makers,
        ):
            try:
                while True:
                    for ahead in islice(steps, self.prefetch - len(waiting)):
                        waiting.append((ahead, makers.submit(self._batch, ahead, unpackers)))
                    if not waiting:
                        return
                    step, future = waiting.popleft()
                    yield from self._handed_out(step, future.result())
            finally:
                for _, future in waiting:
                    future.cancel()

    def _handed_out(self, step: _Step, batch: RawBatch) -> Iterator[RawBatch]:
        """The batch, unless nothing was left for this process; the state is after it."""
        last = step.step + 1 == len(self)
        self.epoch, self.step = (step.epoch + 1, 0) if last else (step.epoch, step.step + 1)
        if len(batch):
            yield batch

    def _steps(self) -> Iterator[_Step]:
        epoch, step = self.epoch, self.step
        while self.epochs is None or epoch < self.epochs:
            order = self.order(epoch)
            for number in range(step, len(self)):
                start = number * self.global_batch + self.rank * self.batch_size
                stop = min(start + self.batch_size, (number + 1) * self.global_batch)
                yield _Step(epoch, number, order[start:stop])
            epoch, step = epoch + 1, 0

    def _batch(self, step: _Step, unpackers: ThreadPoolExecutor | None) -> RawBatch:
        seeds = [seed_of(self.seed, step.epoch, index) for index in step.indices]
        volumes = torch.empty(
            (len(step.indices), *self.store.settings.shape),
            dtype=torch.int16,
            pin_memory=self.pin_memory,
        )
        maps = None
        if self.structures:
            maps = torch.zeros(volumes.shape, dtype=torch.uint8, pin_memory=self.pin_memory)

        def sample(row: int) -> RawSample:
            return self._sample(step.indices[row], step.epoch, volumes, maps, row)

        rows = range(len(step.indices))
        samples = list(map(sample, rows) if unpackers is None else unpackers.map(sample, rows))
        batch = allocate(self.store, volumes, maps, samples, self.lengths, self.pin_memory)
        batch.epoch, batch.step = step.epoch, step.step
        batch.seeds_B.copy_(torch.tensor(seeds, dtype=torch.int64))
        fill(batch, samples, seeds)
        return batch

    def _sample(
        self, wanted: int, epoch: int, volumes: Tensor, maps: Tensor | None, row: int
    ) -> RawSample:
        """The study ``wanted``, or the one that stands in for it."""
        volume_out = volumes[row].numpy()
        structures_out = None if maps is None else maps[row].numpy()
        index, attempt = wanted, 0
        while True:
            if index not in self.quarantine:
                try:
                    return self.store.sample(
                        index,
                        structures=self.structures,
                        volume_out=volume_out,
                        structures_out=structures_out,
                    )
                except SimCroPError as e:
                    if e.code not in _MISSING:
                        raise
                    self.quarantine.add(index, epoch, self.rank, e)
            if all(i in self.quarantine for i in self.indices):
                raise self.quarantine.refusal("none is left to take their place")
            attempt += 1
            draw = seed_of(self.seed, epoch, wanted, "replacement", attempt)
            index = self.indices[draw % len(self.indices)]


class Quarantine:
    """Studies that turned out damaged or missing while training.

    Parameters
    ----------
    store
        Where they are; one in a thousand of its studies may be replaced, but at least one.
    path
        JSON lines, one a study, appended to by all processes; None keeps the list in memory.
    """

    def __init__(self, store: Store, path: Path | None) -> None:
        self.store, self.path = store, path
        self.allowed = max(1, len(store) // 1000)
        self._indices: set[int] = set()
        self._lock = threading.Lock()
        self._read()

    def __len__(self) -> int:
        return len(self._indices)

    def __contains__(self, index: int) -> bool:
        return index in self._indices

    def add(self, index: int, epoch: int, rank: int, error: SimCroPError) -> None:
        """List a study.

        Raises
        ------
        SimCroPError
            ``too-many-damaged``: more than one study in a thousand, and more than one.
        """
        with self._lock:
            self._read()  # what the other processes found
            if index not in self._indices:
                self._indices.add(index)
                self._append(index, epoch, rank, error)
            count = len(self._indices)
        if count > self.allowed:
            raise self.refusal(f"at most {self.allowed} may be replaced", error)

    def refusal(self, why: str, last: SimCroPError | None = None) -> SimCroPError:
        """That the run cannot go on with what is left."""
        known = "" if last is None else f"; the last one: {last.problem}"
        return SimCroPError(
            f"{len(self)} of the store's studies are damaged or missing, and {why}{known}",
            path=self.store.folder if last is None else last.path,
            code="too-many-damaged",
            remedy="Run simcrop-train prepare with --verify on the store, and check the disk.",
        )

    def _append(self, index: int, epoch: int, rank: int, error: SimCroPError) -> None:
        if self.path is None:
            return
        line = {
            "study": self.store.rows[index].id,
            "index": index,
            "code": error.code,
            "problem": error.problem,
            "epoch": epoch,
            "rank": rank,
        }
        data = (json.dumps(line) + "\n").encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # One write in append mode: lines of several processes do not mix.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _read(self) -> None:
        if self.path is None or not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                if self.store.rows[entry["index"]].id == entry["study"]:
                    self._indices.add(int(entry["index"]))
            except (ValueError, KeyError, IndexError, TypeError):
                continue  # a line cut short by a crash
