"""Structures of the open scan: found by the model, shown, jumped to, written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from simcrop_core.errors import SimCroPError
from simcrop_core.io.labels import labels_on
from simcrop_viewer.controller.evidence import EvidenceController
from simcrop_viewer.model.jobs import Job, Jobs
from simcrop_viewer.model.session import OpenStudy, Session
from simcrop_viewer.model.structures import Structures, StructuresState, measured
from simcrop_viewer.scene import Scene
from simcrop_viewer.scene_structures import show_structures

if TYPE_CHECKING:
    from simcrop_core.segment import Segmentation

Tell = Callable[[str, int, int], None]


class StructuresController:
    """Segments the open scan, and draws what was found in all panes.

    Attributes
    ----------
    state
        What was found, and what of it is shown.
    """

    segmenting = Signal(Job)  # has been started
    exported = Signal(str)
    refused = Signal(SimCroPError)

    def __init__(
        self,
        session: Session,
        jobs: Jobs,
        evidence: EvidenceController,
        scenes: Sequence[Scene] = (),
    ) -> None:
        self.state = StructuresState()
        self._session = session
        self._jobs = jobs
        self._evidence = evidence
        self._scenes = tuple(scenes)
        self._job: Job | None = None
        self._found: Segmentation | None = None
        self._signals = (
            (session.study_changed, self._study_changed),
            (self.state.changed, self._draw),
            (self.state.shown_changed, self._draw),
            (self.state.settings.events, self._draw),
        )
        for signal, answer in self._signals:
            signal.connect(answer)

    def close(self) -> None:
        """Let go of session and panes."""
        for signal, answer in self._signals:
            signal.disconnect(answer)

    @property
    def job(self) -> Job | None:
        """The run that is under way, if any."""
        return self._job if self._job is not None and not self._job.is_over else None

    def segment(self) -> Job | None:
        """Label every voxel of the open scan by the model; None, and a refusal, without them.

        Structures that are there stay until the new ones have come.
        """
        study, model, device = self._session.study, self._evidence.model, self._evidence.device
        if self.job is not None:
            self.job.cancel()
        if study is None or model is None:
            self.refused.emit(
                SimCroPError(
                    "There is no model to segment with" if study else "No scan is open",
                    code="no-model" if study else "no-scan",
                    remedy="Choose one in the Encode tab." if study else "Open one first.",
                )
            )
            return None

        def work(tell: Tell) -> tuple[Segmentation, Structures]:
            from simcrop_core.segment import segment

            found = segment(model, study.volume, device=device, progress=tell)
            return found, _laid_out(found, study, tell)

        def take(result: tuple[Segmentation, Structures]) -> None:
            now = self._session.study
            if now is not None and now.number == study.number:
                self._found = result[0]
                self.state.put(result[1])

        self._job = self._jobs.start(
            "Segment the scan", work, take, lane="model", failed=self.refused.emit
        )
        self.segmenting.emit(self._job)
        return self._job

    def jump(self, label: int) -> None:
        """Put the crosshair into the middle of a structure; nowhere if it has no voxel."""
        for row in self.state.rows:
            if row.label == label and row.center_mm is not None:
                self._session.move_to(row.center_mm)

    def export(self, path: str | Path) -> Job | None:
        """Write all labels as NIfTI or DICOM SEG (``.dcm``), and their names and volumes as JSON
        beside it, as ``simcrop segment`` does."""
        path, found, study = Path(path), self._found, self._session.study
        if found is None or study is None:
            self.refused.emit(
                SimCroPError(
                    "There are no labels yet", code="no-labels", remedy="Segment the scan first."
                )
            )
            return None
        source = study.volume.source
        if source is not None and path.exists() and source.exists() and path.samefile(source):
            self.refused.emit(
                SimCroPError(
                    "The labels would take the place of the scan",
                    code="same-file",
                    remedy="Choose another name.",
                )
            )
            return None

        if (foreign := _foreign_card(path)) is not None:
            self.refused.emit(foreign)
            return None

        def write(tell: Tell) -> str:
            from simcrop_core.segment import write_segmentation

            tell("writing", 0, 1)
            write_segmentation(path, found, source, study.series or None)
            return str(path)

        return self._jobs.start(
            "Save the labels", write, self.exported.emit, lane="read", failed=self.refused.emit
        )

    def _study_changed(self) -> None:
        if self.job is not None:
            self.job.cancel()
        self._found = None
        self.state.put(None)

    def _draw(self, *_: object) -> None:
        for scene in self._scenes:
            show_structures(scene, self.state.now, self.state.settings)


def _foreign_card(labels: Path) -> SimCroPError | None:
    """Why the file that would be written beside the labels must not be: it is something else."""
    from simcrop_core.segment import card_path

    try:
        card = card_path(labels)
        if not card.exists():
            return None
        data = json.loads(card.read_text(encoding="utf-8"))
        if isinstance(data, dict) and {"labels", "volume_ml"} <= set(data):
            return None  # of earlier labels, which the person agreed to replace
    except SimCroPError as e:
        return e
    except (OSError, ValueError, RecursionError):
        pass
    return SimCroPError(
        "The names of the labels would take the place of another file",
        path=card,
        code="exists",
        remedy="Choose another name, or move that file away.",
    )


def _laid_out(found: Segmentation, study: OpenStudy, tell: Tell) -> Structures:
    """Labels as they are measured (on the scan's voxels) and shown (on the display's)."""
    rows = measured(found.labels_XYZ, found.grid, found.names, tell)
    shown = labels_on(study.display.grid, found.labels_XYZ, found.grid, resample=True)
    return Structures(
        rows,
        shown,
        study.display.grid,
        str(found.model.get("name") or "without a name"),
        found.model.get("segmentation_trained") != "untrained",
    )
