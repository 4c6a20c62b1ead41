"""A linear probe from its configuration to a result and a model folder.

Shapes in names: N scans; V views of a scan; D the width of a feature; K labels or classes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from simcrop_core.device import Progress, select_device, silent
from simcrop_core.errors import SimCroPError
from simcrop_core.evaluate.classification import ClassificationResult, accuracy, auc_by_label
from simcrop_core.finetune.config import ProbeConfig
from simcrop_core.finetune.features import FeatureMaker
from simcrop_core.finetune.head import FittedHead, Views, fit_head, logits_of, probabilities
from simcrop_core.finetune.kept import KeptFeatures
from simcrop_core.finetune.lists import Scans, open_scans, radchestct_scans
from simcrop_core.finetune.told import ClassificationFit
from simcrop_core.finetune.transfer import LABELS, as_radchestct
from simcrop_core.model.checkpoint import load_model, save_model
from simcrop_core.model.classification import with_classification
from simcrop_core.model.config import ClassificationConfig
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.outputs import is_partial, refuse_unwritable, remove_partial, whole_file
from simcrop_core.train.events import LOG_NAME
from simcrop_core.train.lock import LOCK_NAME, RunLock
from simcrop_core.volume import Note

RESULT, CONFIG, MODEL, FEATURES = "result.json", "config.json", "model", "features"
_OURS = (RESULT, CONFIG, FEATURES, MODEL, LOCK_NAME)
#: What another head on the same features may change, and what only says how it is computed.
_MAY_CHANGE = ("head.", "data.workers.", "encode_batch.", "accelerator.")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ProbeResult(ClassificationFit):
    """What a probe found.

    Attributes
    ----------
    fitted
        The head, and how it came about.
    """

    config: ProbeConfig
    fitted: FittedHead

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return self.shared() | {
            "protocol": self.config.protocol,
            "steps": len(self.fitted.losses),
            "kept_after_step": self.fitted.steps,
            "validations": [list(row) for row in self.fitted.validations],
            "last_loss": self.fitted.losses[-1],
            "paper_percent": self.config.share.paper,
        }

    def lines(self) -> list[str]:
        """The same for people."""
        config, count = self.config, self.scans
        head = [
            f"{config.task.name}, {config.data.fraction:.0%} of its training scans "
            f"({count['training']}), protocol {config.protocol}; tested on {count['testing']}",
        ]
        paper = ["", f"The paper's SimCroP: {config.share.paper:.1f} %"]
        return head + self.told("The same head on RadChestCT") + paper + self.noted()


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
        The model, a list or a scan is missing or damaged; the folder holds something else, or
        a probe that differs in more than its head.
    """
    out, say = Path(out), progress or silent
    _check_folder(out, config, resume)
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
        cache = KeptFeatures(out / FEATURES, maker, say)
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
        remove_partial(out, _OURS)
        remove_partial(out / FEATURES, None)
        yield
    finally:
        lock.release()


def _fitted(
    config: ProbeConfig, lists: _Lists, maker: FeatureMaker, cache: KeptFeatures, say: Progress
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
    notes += cache.notes
    result = ProbeResult(
        config=config,
        model=maker.model.card(),
        scans=lists.counts(),
        fitted=fitted,
        test=figures,
        external=external,
        notes=tuple(notes),
    )
    return result, fitted.head


def _transferred(
    config: ProbeConfig, head: nn.Linear, scans: Scans, cache: KeptFeatures
) -> ClassificationResult:
    found_NF = probabilities(head, cache.testing(scans), 0).astype(np.float64)
    truth = scans.labels_NK if config.protocol == "released" else None
    scores_NK = as_radchestct(found_NF, truth)
    return auc_by_label(scores_NK, scans.labels_NK, LABELS, draws=config.draws, seed=config.seed)


def _views(config: ProbeConfig, scans: Scans, maker: FeatureMaker, cache: KeptFeatures) -> Views:
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
            _folder(_given(getattr(config.data, n), f"data.{n}")) for n in ("root", "lists")
        )
        training, validation, testing = (
            open_scans(task, root, lists, name)
            for name in (config.share.training, task.validation, task.testing)
        )
        external = None
        if config.data.external is not None:
            external = radchestct_scans(_folder(config.data.external), lists)
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


def _folder(name: str) -> Path:
    return Path(os.path.expanduser(name))  # Path's own fails for unknown people


def _check_folder(out: Path, config: ProbeConfig, resume: bool) -> None:
    refuse_unwritable(out)
    there = [p.name for p in out.iterdir() if p.name != LOG_NAME] if out.is_dir() else []
    others = any(n not in _OURS and not is_partial(n, _OURS) for n in there)
    if others or (there and not resume):
        raise SimCroPError(
            "There is something here already",
            path=out,
            code="exists",
            remedy="Choose another folder, or add --resume to go on with a probe in this one.",
        )
    if (out / CONFIG).exists():
        _check_same(out / CONFIG, config)


def _check_same(path: Path, config: ProbeConfig) -> None:
    """Refuse to put a probe in the place of one that is more than another head of it."""
    try:
        earlier = ProbeConfig.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as e:
        raise SimCroPError(
            "What probe is in this folder cannot be told: its configuration is damaged",
            path=path,
            code="bad-config",
            remedy="Choose another folder.",
        ) from e
    before, now = (dict(_leaves(c.model_dump(mode="json"))) for c in (earlier, config))
    changed = [
        f"{name} was {before[name]}, not {now[name]}"
        for name in now
        if before[name] != now[name] and not f"{name}.".startswith(_MAY_CHANGE)
    ]
    if changed:
        raise SimCroPError(
            f"There is another probe here: {'; '.join(changed)}",
            path=path.parent,
            code="other-probe",
            remedy="Choose another folder; here only the head may be another (--set head.*).",
        )


def _leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
