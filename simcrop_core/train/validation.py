"""How a model stands on held-out studies: its loss, where it points, and pictures of a few."""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from simcrop_core.device import autocast
from simcrop_core.errors import SimCroPError
from simcrop_core.evaluate.pointing import point, point_at_random
from simcrop_core.model.simcrop import SimCroP, without_weights
from simcrop_core.study import KINDS, Kind
from simcrop_core.train.checkpoint import checkpoint_name, whole_state
from simcrop_core.train.events import validation_event
from simcrop_core.train.module import TrainingModule, fields_of_batch
from simcrop_core.train.previews import draw_preview, save_preview
from simcrop_core.train.stopping import StopAskedError

if TYPE_CHECKING:
    from simcrop_core.study_batch import StudyBatch
    from simcrop_core.train.data import TrainingData
    from simcrop_core.train.loop import Training

PREVIEWS_NAME = "previews"
_MANY: dict[Kind, str] = {
    "organ": "organs",
    "finding": "findings",
    "negative": "negatives",
    "unknown": "others",
}


@dataclass(frozen=True, slots=True)
class Validated:
    """What a validation gave."""

    loss: float
    terms: dict[str, float]
    metrics: dict[str, float]


class Validation:
    """Validates every so many steps and at the end, if there are held-out studies.

    Masks and crops are the same each time, so that one figure can be compared with the next.
    """

    def __init__(self, every: int, previews: int) -> None:
        self.every = every
        self.previews = previews

    def due(self, step: int, last: bool) -> bool:
        """Whether it is time after this step."""
        return last or step % self.every == 0

    def enough(self) -> bool:
        """Whether more steps are not worth while; of pre-training it is never known."""
        return False

    def __call__(self, training: Training) -> Validated | None:
        """Validate, tell of it and draw; None where nothing is held out. All processes take
        part.

        Raises
        ------
        StopAskedError
            On all of them, within a batch of somebody's wish; nothing was told of.
        """
        data = _data(training)
        if data.held_out is None:
            return None
        data.held_out.load_state_dict({**data.held_out.state_dict(), "epoch": 0, "step": 0})
        sums: dict[str, float] = defaultdict(float)
        count = 0
        training.wrapped.eval()
        try:
            for raw in data.held_out:
                batch = data.held_out_batch(raw, training.fabric.device)
                with torch.no_grad():
                    total, terms = training.wrapped(fields_of_batch(batch))
                names = ["loss", *terms]
                wants = total.new_tensor(float(training.wants_to_stop()))
                figures = torch.stack([total, *terms.values(), wants]).float()
                *means, wanted = training.ranks_mean(figures).tolist()
                if wanted:
                    raise StopAskedError
                for name, value in zip(names, means, strict=True):
                    sums[name] += value
                count += 1
            metrics = self._look(training)
        finally:
            training.wrapped.train()
        found = {name: value / count for name, value in sums.items()}
        loss = found.pop("loss")
        if training.run is not None:
            event = validation_event(training.step, loss, found, metrics)
            training.run.log.write(event)
            if training.curves is not None:
                training.curves.validation(training.step, {"loss": loss, **found, **metrics})
        return Validated(loss, found, metrics)

    def _look(self, training: Training) -> dict[str, float]:
        """Pointing on all held-out studies, and pictures of the first few; by the first process."""
        model = whole_model(training)
        if not joins_text(training.module):
            return {}
        figures: dict[str, float] | None = {}
        if training.run is not None and model is not None:
            figures = self._point(training, model)
        if training.somebody(figures is None):
            raise StopAskedError
        return figures or {}

    def _point(self, training: Training, model: SimCroP) -> dict[str, float] | None:
        """Figures of pointing; None where somebody asked to stop on the way."""
        pointing = PointingTally()
        folder = training.folder / PREVIEWS_NAME / checkpoint_name(training.step)
        for number, raw in enumerate(_data(training).one_by_one()):
            if training.wants_to_stop():
                return None
            batch = _data(training).held_out_batch(raw, training.fabric.device)
            similarity_SN = _similarity(model, batch, training)
            pointing.add(similarity_SN, batch)
            if number < self.previews:
                texts = _data(training).texts(int(batch.index_B[0]))
                picture = draw_preview(batch, similarity_SN, texts, model.input_spec)
                try:
                    save_preview(picture, folder / f"{raw.ids[0]}.png")
                except SimCroPError as e:  # a full disk is told of when a checkpoint is due
                    print(e, file=sys.stderr)
                if training.curves is not None:
                    training.curves.picture(training.step, f"preview/{raw.ids[0]}", picture)
        return pointing.figures()


def _data(training: Training) -> TrainingData:
    return cast("TrainingData", training.data)


class PointingTally:
    """Share of sentences whose most similar patch overlaps their region, by kind of sentence, and
    what a patch at random would reach. Patches beyond the scan are pointed at like any other, so
    the figures are a little lower than those of ``simcrop evaluate``."""

    def __init__(self) -> None:
        self._hits: dict[str, list[float]] = defaultdict(list)

    def add(self, similarity_SN: Tensor, batch: StudyBatch) -> None:
        """Count one study."""
        inside_N = np.ones(similarity_SN.shape[1], bool)
        for row in range(len(similarity_SN)):
            if not bool(batch.region_mask_BS[0, row]):
                continue
            kind = _MANY[KINDS[int(batch.kind_BS[0, row])]]
            coverage_N = batch.region_BSN[0, row].cpu().numpy()
            hit = point(similarity_SN[row].float().numpy(), coverage_N, inside_N).hit
            self._hits[f"pointing_{kind}"].append(hit)
            self._hits[f"chance_{kind}"].append(point_at_random(coverage_N, inside_N).hit)

    def figures(self) -> dict[str, float]:
        """``pointing_findings``, ``chance_findings`` and so on."""
        return {name: sum(hits) / len(hits) for name, hits in sorted(self._hits.items())}


@torch.no_grad()
def _similarity(model: SimCroP, batch: StudyBatch, training: Training) -> Tensor:
    """Similarity of every sentence with every patch of a study, nothing masked, ``(S, N)``."""
    with autocast(training.fabric.device, training.config.run.precision):
        features = model.vision(batch.volume_B1HWD)
    sentences_SD = batch.sentences_BSD[0][batch.sentence_mask_BS[0]]
    return model.similarity(features.evidence_BNE[0], sentences_SD).cpu()


def joins_text(module: TrainingModule) -> bool:
    """Whether the objective trains the space in which sentences and patches meet; where it does
    not, pointing would be a matter of chance."""
    return getattr(module.objective, "trains", lambda name: True)("vision_projection.weight")


def whole_model(training: Training) -> SimCroP | None:
    """The model itself or, where the processes share it out, a copy for the first of them."""
    model = training.module.model
    if not training.sharded:
        return model.eval()
    state = whole_state(model, keep=training.run is not None)
    if training.run is None:
        return None
    whole = without_weights(model.config, text_location=model.text_location)
    whole.load_state_dict(state, strict=True, assign=True)
    return whole.to(training.fabric.device).eval()
