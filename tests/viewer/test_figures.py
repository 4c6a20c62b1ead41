"""Figures from the window: what is asked for, the same bytes as the command's, and refusals."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from made_view import Desk
from pydantic import ValidationError

from simcrop_core.cli import main
from simcrop_core.errors import SimCroPError
from simcrop_core.figure_spec import FigureSpec
from simcrop_viewer.controller.figures import FigureController
from simcrop_viewer.model.figure import FigureSettings, spec_of, spec_words
from simcrop_viewer.model.session import Session
from simcrop_viewer.model.windows import Window


@pytest.fixture
def figures(ready: Desk) -> FigureController:
    made = FigureController(ready.session, ready.jobs, ready.evidence)
    made.refused.connect(ready.refused.append)
    return made


# -- what is asked for ----------------------------------------------------------------------------


def test_unchanged_settings_are_the_librarys_own(session: Session) -> None:
    assert spec_of(FigureSettings(), session, 64) == FigureSpec()


def test_every_setting_is_in_what_is_asked_for(session: Session) -> None:
    """Each reaches the library, and none of the library's is out of reach."""
    wanted = {
        "planes": ("sagittal",), "positions": "crosshair", "crop": "scan", "window": "bone",
        "heat": False, "outlines": False, "opacity": 0.3, "colormap": "viridis",
        "normalisation": "shared", "interpolation": "smooth", "width_mm": 80.0, "dpi": 150,
        "font_size_pt": 9.0, "color_bar": False, "scale_bar": False, "letters": False,
        "captions": False,
    }  # fmt: skip
    assert set(wanted) == set(FigureSettings.model_fields)
    reached = set()
    for name, value in wanted.items():
        settings = FigureSettings()
        setattr(settings, name, value)
        spec = spec_of(settings, session, 64).model_dump()
        [changed] = [
            field for field, now in spec.items() if now != FigureSpec().model_dump()[field]
        ]
        assert changed == ("position_mm" if name == "positions" else name)
        reached.add(changed)
    session.select(2, 0)
    session.overlay.top_k = 5
    spec = spec_of(FigureSettings(), session, 64)
    assert (spec.sentences, spec.top_k) == ((2, 0), 5)
    assert reached | {"sentences", "top_k"} == set(FigureSpec.model_fields)


def test_the_window_and_the_place_are_those_of_the_views(session: Session) -> None:
    settings = FigureSettings(window="shown", positions="crosshair")
    session.set_window(Window(900, -123))
    session.move_to([1.23456, -7.5, -650])
    spec = spec_of(settings, session, 64)
    assert spec.window == (900, -123)
    assert spec.position_mm == (1.235, -7.5, -650.0)


def test_limits_are_the_librarys() -> None:
    for wrong in ({"dpi": 10}, {"font_size_pt": 90}, {"opacity": 0}, {"shape": 1}):
        with pytest.raises(ValidationError):
            FigureSettings(**wrong)


# -- drawing --------------------------------------------------------------------------------------


def test_the_figure_is_the_commands_to_the_byte(
    ready: Desk, figures: FigureController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two lines that are copied, run on the same files, with a question of one's own."""
    ready.evidence.placement = "lungs"
    ready.evidence.encode()
    ready.wait()
    ready.evidence.ask("-- mass in the 'left' lung")
    ready.wait()
    ready.session.select(2, 0)
    ready.session.move_to(ready.session.position_mm + np.array([-20, 10, 5]))
    settings = figures.settings
    settings.planes, settings.positions, settings.window = ("axial",), "crosshair", "shown"
    settings.dpi, settings.captions, settings.colormap = 60, True, "viridis"
    saved: list[str] = []
    figures.saved.connect(saved.append)
    out = tmp_path / "own figure.png"
    figures.save(out)
    ready.wait()
    assert (ready.refused, saved) == ([], [str(out)])
    mine = out.read_bytes()
    out.unlink()
    monkeypatch.chdir(tmp_path)
    lines = figures.command().splitlines()
    assert [line.split()[1] for line in lines] == ["align", "figure"]
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0
    assert out.read_bytes() == mine


def test_without_questions_the_reports_own_alignment_is_drawn(
    ready: Desk, figures: FigureController, tmp_path: Path
) -> None:
    figures.settings.width_mm, figures.settings.dpi = 60, 60
    for suffix, start in ((".pdf", b"%PDF"), (".svg", b"<?xml"), ("", b"\x89PNG")):
        figures.save(tmp_path / f"figure{suffix}")
        ready.wait()
        assert (tmp_path / f"figure{suffix or '.png'}").read_bytes().startswith(start)
    text = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert "Heart size is normal" in re.sub(r"<[^>]+>", "", text)
    assert "JOHN" not in text


def test_a_preview_is_a_small_picture_and_leaves_no_row_among_the_jobs(
    ready: Desk, figures: FigureController
) -> None:
    told: list[object] = []
    ready.jobs.added.connect(told.append)
    ready.jobs.over.connect(told.append)
    seen: list[bytes] = []
    figures.previewed.connect(seen.append)
    first = figures.preview()
    figures.preview()
    ready.wait()
    assert first.state == "cancelled"  # type: ignore[union-attr]
    [png] = seen
    width = int.from_bytes(png[16:20], "big")
    assert 800 <= width <= 1000
    assert told == []


# -- refusals -------------------------------------------------------------------------------------


def test_there_is_nothing_to_draw_before_the_scan_is_encoded(
    desk: Desk, files: tuple[Path, Path]
) -> None:
    figures = FigureController(desk.session, desk.jobs, desk.evidence)
    figures.refused.connect(desk.refused.append)
    said: list[SimCroPError] = []
    figures.not_previewed.connect(said.append)
    desk.studies.open(*files)
    desk.wait()
    assert figures.save("figure.png") is None
    assert figures.preview() is None
    with pytest.raises(SimCroPError) as error:
        figures.command()
    assert [e.code for e in (*desk.refused, *said, error.value)] == ["not-encoded"] * 3


def test_what_cannot_be_drawn_or_written_is_said_and_nothing_is_written(
    ready: Desk, figures: FigureController, tmp_path: Path
) -> None:
    figures.save(tmp_path / "figure.bmp")
    figures.settings.colormap = "no such colours"
    figures.save(tmp_path / "figure.png")
    ready.wait()
    figures.settings.colormap = "viridis"
    (tmp_path / "file").write_text("")
    figures.save(tmp_path / "file" / "figure.png")
    ready.wait()
    assert [e.code for e in ready.refused] == ["figure-suffix", "no-such-colormap", "cannot-write"]
    assert not list(tmp_path.glob("figure*"))


def test_no_command_names_a_report_that_was_pasted(ready: Desk, figures: FigureController) -> None:
    ready.studies.paste_report("Findings: Emphysema.")
    ready.wait()
    with pytest.raises(SimCroPError, match="did not come from a file"):
        figures.command()


def test_words_of_the_command_come_back_as_the_same_figure() -> None:
    from simcrop_core.cli.figures import figure_spec
    from simcrop_core.cli.parser import make_parser

    spec = FigureSpec(
        sentences=(3, 1), planes=("coronal", "axial"), position_mm=(-1.5, 0.001, -700.0), top_k=7,
        window=(1200.5, -30.0), letters=False, colormap="magma", dpi=77, font_size_pt=8.5,
    )  # fmt: skip
    words = ["figure", "a.nii", "--alignment", "b", "--out", "c.png", *spec_words(spec)]
    assert figure_spec(make_parser().parse_args(words)) == spec
