"""A linear probe from its configuration to a result and a model folder.

Shapes in names: N scans; V views of a scan; D the width of a feature; K labels or classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from simcrop_core.datasets.dataset import ScanFile
from simcrop_core.device import Progress, resolve_precision, select_device, silent
from simcrop_core.errors import SimCroPError
from simcrop_core.evaluate.classification import ClassificationResult, accuracy, auc_by_label
from simcrop_core.finetune.config import ProbeConfig
from simcrop_core.finetune.features import FeatureMaker
from simcrop_core.finetune.head import FittedHead, Views, fit_head, logits_of, probabilities
from simcrop_core.finetune.lists import Scans, open_scans, radchestct_scans
from simcrop_core.finetune.transfer import LABELS, as_radchestct
from simcrop_core.model.checkpoint import load_model, save_model
from simcrop_core.model.classification import with_classification
from simcrop_core.model.config import ClassificationConfig
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.outputs import refuse_unwritable, whole_file
from simcrop_core.train.lock import LOCK_NAME, RunLock
from simcrop_core.volume import Note

RESULT, CONFIG, MODEL, FEATURES = "result.json", "config.json", "model", "features"
#: Scans whose features are kept in one file.
_PIECE = 256

_Make = Callable[[Sequence[ScanFile]], Iterator[NDArray[np.float32]]]


@dataclass(frozen=True, slots=True, eq=False)
class ProbeResult:
    """What a probe found.

    Attributes
    ----------
    config, model
        The configuration, and what the encoder's model says of itself.
    scans
        How many were trained on, validated on (0: none) and tested on.
    fitted
        The head, and how it came about.
    test, external
        On the test list; on RadChestCT's, where a head of CT-RATE was tried on it.
    notes
        What a reader of the figures must know.
    """

    config: ProbeConfig
    model: dict[str, Any]
    scans: dict[str, int]
    fitted: FittedHead
    test: ClassificationResult
    external: ClassificationResult | None
    notes: tuple[Note, ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "schema": 1,
            "task": self.config.task.name,
            "protocol": self.config.protocol,
            "fraction": self.config.data.fraction,
            "config": self.config.model_dump(mode="json"),
            "model": self.model,
            "scans": self.scans,
            "steps": len(self.fitted.losses),
            "kept_after_step": self.fitted.steps,
            "validations": [list(row) for row in self.fitted.validations],
            "last_loss": self.fitted.losses[-1],
            "test": self.test.to_dict(),
            "external": None if self.external is None else self.external.to_dict(),
            "paper_percent": self.config.share.paper,
            "notes": [note.to_dict() for note in self.notes],
        }

    def lines(self) -> list[str]:
        """The same for people."""
        config, count = self.config, self.scans
        lines = [
            f"{config.task.name}, {config.data.fraction:.0%} of its training scans "
            f"({count['training']}), protocol {config.protocol}; tested on {count['testing']}",
            "",
            *self.test.lines(),
        ]
        if self.external is not None:
            lines += ["", f"The same head on RadChestCT ({count['external']} scans)"]
            lines += ["", *self.external.lines()]
        lines += ["", f"The paper's SimCroP: {config.share.paper:.1f} %"]
        return lines + [f"  note: {note.text}" for note in self.notes]


def run_probe(
    out: str | Path,
    config: ProbeConfig,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> ProbeResult:
    """Fit and test a linear head, and write ``result.json``, ``config.json`` and ``model``.

    Features are kept in ``features``, a few hundred scans at a time: a probe that was stopped, and
    another head on the same features, find them again with ``resume``.

    Raises
    ------
    SimCroPError
        The model, a list or a scan is missing or damaged; the folder holds another probe.
    """
    out, say = Path(out), progress or silent
    _check_folder(out, resume)
    say("loading the model", 0, 1)
    model = load_model(_given(config.model, "model"))
    lists = _Lists.of(config)
    maker = FeatureMaker(
        model,
        seed=config.seed,
        drop_path=config.protocol == "released",
        encode_batch=config.encode_batch,
        workers=config.data.workers,
        device=select_device(config.accelerator),
        precision=config.precision,
    )
    with _locked(out):
        cache = _Cache(out / FEATURES, maker, say)
        result, head = _fitted(config, lists, maker, cache, say)
        say("writing", 0, 1)
        _write(out, result, with_classification(model, _head_config(config), head))
    return result


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """The folder, to this process alone."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        lock = RunLock(out / LOCK_NAME).take()
    except SimCroPError as e:
        if e.code == "run-locked":
            raise SimCroPError(
                e.problem, path=e.path, code=e.code, remedy="Wait for it, or choose another folder."
            ) from e
        raise
    try:
        yield
    finally:
        lock.release()


def _fitted(
    config: ProbeConfig, lists: _Lists, maker: FeatureMaker, cache: _Cache, say: Progress
) -> tuple[ProbeResult, nn.Linear]:
    task, share = config.task, config.share
    classes, truth = task.classes, lists.training.labels_NK
    views = _views(config, lists.training, maker, cache)
    judge = None
    if lists.validation is not None:
        judge = _judge(classes, lists.validation, cache.testing(lists.validation))
    fitted = fit_head(
        views,
        truth[:, 0] if classes else truth,
        maker.width,
        classes,
        share,
        weight_decay=config.head.weight_decay,
        clip_norm=config.head.clip_norm,
        seed=config.seed,
        judge=judge,
        start_validation=config.start_validation,
        later_wins=classes == 0,
        progress=lambda done, total: say("fitting the head", done, total),
    )
    tested = lists.testing
    scores_NK = logits_of(fitted.head, cache.testing(tested))
    if classes:
        figures = accuracy(
            scores_NK, tested.labels_NK[:, 0], task.labels, draws=config.draws, seed=config.seed
        )
    else:
        figures = auc_by_label(
            scores_NK, tested.labels_NK, task.labels, draws=config.draws, seed=config.seed
        )
    external, notes = None, list(lists.notes)
    if lists.external is not None:
        external = _transferred(config, fitted.head, lists.external, cache)
    if not maker.model.config.is_trained:
        text = "The encoder's weights are untrained: the figures say what chance features give"
        notes.append(Note("untrained", text))
    if fitted.validations == () and lists.validation is not None:
        text = "The run was too short to be validated: the head is that of the last step"
        notes.append(Note("not-validated", text))
    result = ProbeResult(
        config, maker.model.card(), lists.counts(), fitted, figures, external, tuple(notes)
    )
    return result, fitted.head


def _transferred(
    config: ProbeConfig, head: nn.Linear, scans: Scans, cache: _Cache
) -> ClassificationResult:
    found_NF = probabilities(head, cache.testing(scans), 0).astype(np.float64)
    truth = scans.labels_NK if config.protocol == "released" else None
    scores_NK = as_radchestct(found_NF, truth)
    return auc_by_label(scores_NK, scans.labels_NK, LABELS, draws=config.draws, seed=config.seed)


def _views(config: ProbeConfig, scans: Scans, maker: FeatureMaker, cache: _Cache) -> Views:
    """Where the head's features come from: computed once, or anew for every pass."""
    if config.views is not None:
        table_NVD = cache.training(scans, config.views)
        count = config.views
        return lambda rows, epoch: table_NVD[rows, epoch % count]
    return lambda rows, epoch: np.concatenate(
        list(maker.training([scans.sources[row] for row in rows], [epoch]))
    )


def _judge(
    classes: int, scans: Scans, features_ND: NDArray[np.float32]
) -> Callable[[nn.Linear], float]:
    names = scans.columns

    def judge(head: nn.Linear) -> float:
        scores_NK = logits_of(head, features_ND)
        if classes:
            return float((scores_NK.argmax(axis=1) == scans.labels_NK[:, 0]).mean())
        found = auc_by_label(scores_NK, scans.labels_NK, names, draws=0).overall
        return 0.0 if found is None else found.value

    return judge


@dataclass(frozen=True, slots=True, eq=False)
class _Lists:
    """The scans of a probe; ``validation`` is None where nothing is chosen by it."""

    training: Scans
    validation: Scans | None
    testing: Scans
    external: Scans | None
    notes: tuple[Note, ...]

    @classmethod
    def of(cls, config: ProbeConfig) -> _Lists:
        task = config.task
        root, lists = (
            Path(_given(getattr(config.data, n), f"data.{n}")) for n in ("root", "lists")
        )
        training, validation, testing = (
            open_scans(task, root, lists, name)
            for name in (config.share.training, task.validation, task.testing)
        )
        external = None
        if config.data.external is not None:
            external = radchestct_scans(Path(config.data.external), lists)
        notes = [*testing.notes, *(() if external is None else external.notes)]
        if both := set(training.ids) & set(testing.ids):
            text = f"{len(both)} scans are in the training list and in the test list"
            notes.append(Note("seen-scans", text))
        same = set(validation.ids) & set(testing.ids)
        if config.protocol == "released":
            if same:
                text = (
                    f"The head was chosen by {len(same)} of the scans that it is tested on, as "
                    "the authors' code does: the figures are too good"
                )
                notes.append(Note("chosen-on-test", text))
            if validation.ids == testing.ids:
                validation = testing
        chosen = validation if config.protocol == "released" or not same else None
        return cls(training, chosen, testing, external, tuple(notes))

    def counts(self) -> dict[str, int]:
        return {
            "training": len(self.training),
            "validation": 0 if self.validation is None else len(self.validation),
            "testing": len(self.testing),
            "external": 0 if self.external is None else len(self.external),
        }


class _Cache:
    """Features on disk, piece by piece, each kept under what it was made of.

    A probe that is stopped, or finds a scan that cannot be read, loses one piece at most.
    """

    def __init__(self, folder: Path, maker: FeatureMaker, say: Progress) -> None:
        self.folder, self.maker, self.say = folder, maker, say

    def training(self, scans: Scans, views: int) -> NDArray[np.float32]:
        """``(N, V, D)``: so many views of each scan."""
        how = f"{views} views, seed {self.maker.seed}, dropped {self.maker.drop_path}"
        numbers = range(views)
        return self._kept(
            scans, how, lambda some: self.maker.training(some, numbers), "encoding training views"
        )

    def testing(self, scans: Scans) -> NDArray[np.float32]:
        """``(N, D)``: the middle of each scan."""
        return self._kept(scans, "middle", self.maker.testing, "encoding scans")[:, 0]

    def _kept(self, scans: Scans, how: str, make: _Make, what: str) -> NDArray[np.float32]:
        pieces = []
        for start in range(0, len(scans), _PIECE):
            some = scans.sources[start : start + _PIECE]
            path = self.folder / f"{self._key(some, how)}.npy"
            piece = _read_piece(path, len(some))
            if piece is None:
                rows = []
                for row in make(some):
                    rows.append(row)
                    self.say(what, start + len(rows), len(scans))
                piece = np.stack(rows)
                self.folder.mkdir(parents=True, exist_ok=True)
                with whole_file(path) as hidden, hidden.open("wb") as file:
                    np.save(file, piece)
            pieces.append(piece)
        return np.concatenate(pieces)

    def _key(self, sources: Sequence[ScanFile], how: str) -> str:
        maker = self.maker
        digest = hashlib.sha256()
        precision = resolve_precision(maker.device, maker.precision)
        for word in (maker.model.model_id, precision, how, *(s.stamp() for s in sources)):
            digest.update(f"{word}\n".encode())
        return digest.hexdigest()[:24]


def _read_piece(path: Path, count: int) -> NDArray[np.float32] | None:
    """A piece of features as it was kept; None of one that is absent or was cut short."""
    try:
        piece = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = piece.ndim == 3 and len(piece) == count and piece.dtype == np.float32
    return piece if whole else None


def _write(out: Path, result: ProbeResult, model: SimCroP) -> None:
    save_model(model, out / MODEL, overwrite=(out / MODEL).exists())
    for name, data in (
        (CONFIG, result.config.model_dump(mode="json")),
        (RESULT, result.to_dict()),  # last: where it is, all is there
    ):
        with whole_file(out / name) as hidden:
            text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
            hidden.write_text(f"{text}\n", encoding="utf-8")


def _head_config(config: ProbeConfig) -> ClassificationConfig:
    task, share = config.task, config.data.fraction
    trained = f"linear probe on {task.name}, {share:.0%} of its training scans, {config.protocol}"
    return ClassificationConfig(labels=task.labels, exclusive=task.classes > 0, trained=trained)


def _given(value: str | None, field: str) -> str:
    if value is None:
        raise SimCroPError(
            f"It is not said where the probe finds its {field}",
            code="option",
            remedy=f"Add --set {field}=FOLDER.",
        )
    return value


def _check_folder(out: Path, resume: bool) -> None:
    refuse_unwritable(out)
    there = [n for n in (RESULT, CONFIG, FEATURES, MODEL, LOCK_NAME) if (out / n).exists()]
    others = out.is_dir() and any(p.name not in there for p in out.iterdir())
    if others or (there and not resume):
        raise SimCroPError(
            "There is something here already",
            path=out,
            code="exists",
            remedy="Choose another folder, or add --resume to go on with a probe in this one.",
        )
