"""Figures of the open study: seen beforehand, saved, and asked for on the command line."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from psygnal import Signal

from simcrop_core.alignment_result import AlignmentResult
from simcrop_core.errors import SimCroPError
from simcrop_core.figure_spec import FigureSpec
from simcrop_core.volume import CTVolume
from simcrop_viewer.controller.evidence import EvidenceController
from simcrop_viewer.model.figure import FigureSettings, spec_of, spec_words
from simcrop_viewer.model.jobs import Job, Jobs
from simcrop_viewer.model.session import Session

SUFFIXES = (".png", ".pdf", ".svg")
_LANE = "figure"
#: A preview has about this many dots across, whatever the figure's width on paper.
_PREVIEW_DOTS = 900
Tell = Callable[[str, int, int], None]


class FigureController:
    """Composes what the library draws; the window goes on meanwhile.

    Attributes
    ----------
    settings
        How figures look.
    """

    previewed = Signal(bytes)  # a PNG
    not_previewed = Signal(SimCroPError)
    saved = Signal(str)
    refused = Signal(SimCroPError)

    def __init__(self, session: Session, jobs: Jobs, evidence: EvidenceController) -> None:
        self.settings = FigureSettings()
        self._session = session
        self._jobs = jobs
        self._evidence = evidence
        self._preview: Job | None = None
        self._out = ""

    def spec(self) -> FigureSpec:
        """What is drawn of the study as it is selected and looked at now.

        Raises
        ------
        SimCroPError
            The scan is not encoded, or the library does not draw this.
        """
        return spec_of(self.settings, self._session, self._evidence.top_k)

    def preview(self) -> Job | None:
        """Draw a small picture of the figure; an earlier one that is not done is given up."""
        if self._preview is not None:
            self._preview.cancel()
        try:
            spec = self.spec()
            dpi = min(300, max(50, round(_PREVIEW_DOTS * 25.4 / spec.width_mm)))
            work = self._drawing(FigureSpec(**{**spec.model_dump(), "dpi": dpi}))
        except SimCroPError as e:
            self.not_previewed.emit(e)
            return None

        def draw(tell: Tell) -> bytes:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder) / "preview.png"
                work(tell, place)
                return place.read_bytes()

        self._preview = self._jobs.start(
            "Draw a preview",
            draw,
            self.previewed.emit,
            lane=_LANE,
            failed=self.not_previewed.emit,
            quiet=True,
        )
        return self._preview

    def save(self, path: str | Path) -> Job | None:
        """Write the figure as PNG, PDF or SVG, by the name's ending; PNG where it has none."""
        path = Path(path)
        if not path.suffix:
            path = path.with_suffix(SUFFIXES[0])
        try:
            if path.suffix.lower() not in SUFFIXES:
                raise SimCroPError(
                    f"A figure cannot be written as {path.suffix}",
                    code="figure-suffix",
                    remedy="End its name in .png, .pdf or .svg.",
                )
            work = self._drawing(self.spec())
        except SimCroPError as e:
            self.refused.emit(e)
            return None

        def done(out: Path) -> None:
            self._out = str(out)
            self.saved.emit(str(out))

        def draw(tell: Tell) -> Path:
            work(tell, path)
            return path

        return self._jobs.start("Save the figure", draw, done, lane=_LANE, failed=self.refused.emit)

    def command(self) -> str:
        """The commands that make the same figure from the same files: one finds the evidence,
        the other draws it.

        Raises
        ------
        SimCroPError
            The scan is not encoded, or scan, report or model did not come from a file.
        """
        spec = self.spec()
        study, model = self._session.study, self._evidence.model_folder
        assert study is not None
        report = None if study.report is None else study.report.source
        scan = study.volume.source
        if scan is None or not model or (study.report is not None and report is None):
            what = "scan" if scan is None else "report" if model else "model"
            raise SimCroPError(
                f"No command can name the {what}: it did not come from a file",
                code="no-file",
                remedy="Save it as a file, and open that.",
            )
        out = self._out or "figure.png"
        folder = str(Path(out).with_suffix("")) + "-alignment"
        series = ["--series", study.series] if study.series else []
        align = ["simcrop", "align", _full(scan), *series, "--model", _full(model)]
        align += [] if report is None else ["--report", _full(report)]
        align += ["--volume-name", study.volume_name] if study.volume_name else []
        align += [f"--query={s.text}" for s in self._session.statements if s.is_query]
        align += ["--top-k", str(self._evidence.top_k), "--out", folder]
        if self._evidence.placed not in (None, "center"):
            align += ["--placement", str(self._evidence.placed)]
        if self._evidence.device != "auto":
            align += ["--device", self._evidence.device]
        figure = ["simcrop", "figure", _full(scan), *series, "--alignment", folder, "--out", out]
        return f"{_line(align)}\n{_line(figure + spec_words(spec))}\n"

    def _drawing(self, spec: FigureSpec) -> Callable[[Tell, Path], None]:
        """How the figure is drawn into a file, for a thread; all that it needs is held."""
        study = self._session.study
        find = self._evidence.alignment()
        assert study is not None

        def work(tell: Tell, path: Path) -> None:
            tell("comparing", 0, 3)
            result = find(tell)
            _draw(study.volume, result, spec, path, tell)

        return work


def _draw(
    volume: CTVolume, result: AlignmentResult, spec: FigureSpec, path: Path, tell: Tell
) -> None:
    from simcrop_core.figure import draw_figure, save_figure

    tell("drawing", 1, 3)
    figure = draw_figure(volume, result, spec)
    tell("writing", 2, 3)
    save_figure(figure, path)
    tell("writing", 3, 3)


def _full(path: str | Path) -> str:
    return str(Path(path).absolute())


def _line(words: list[str]) -> str:
    """Words as the system's own shell takes them."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
