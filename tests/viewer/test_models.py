"""What the application knows: display, windows, overlay, outlines, session. No window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_ct import chest, oblique_affine
from made_view import best_patch

from simcrop_core.alignment_result import AlignmentResult
from simcrop_core.geometry import Grid
from simcrop_core.report import Report
from simcrop_core.volume import CTVolume
from simcrop_viewer.model.display import display_of, hu_at, place_in_words
from simcrop_viewer.model.outlines import plane_outlines, solid_outlines
from simcrop_viewer.model.overlay import OverlaySettings, chosen_mask, heat, scale_of
from simcrop_viewer.model.session import OpenStudy, Session, statements_of
from simcrop_viewer.model.windows import PRESETS, Window, window_for

# -- display --------------------------------------------------------------------------------------


def test_an_upright_scan_is_shown_as_it_is(volume: CTVolume) -> None:
    shown = display_of(volume)
    assert shown.hu_XYZ is volume.hu_XYZ
    assert shown.grid is volume.grid


def test_an_oblique_scan_is_shown_where_it_lies() -> None:
    oblique = CTVolume(chest(), Grid(chest().shape, oblique_affine(12)))
    shown = display_of(oblique)
    assert shown.grid.is_axis_aligned
    rng = np.random.default_rng(0)
    voxels = rng.integers(4, np.array(oblique.shape) - 4, (200, 3))
    truth = oblique.hu_XYZ[tuple(voxels.T)]
    there = np.round(shown.grid.to_voxel(oblique.grid.to_world(voxels))).astype(int)
    found = shown.hu_XYZ[tuple(there.T)]
    assert np.median(np.abs(found - truth)) < 40  # noise and interpolation, not another place
    low, high = oblique.grid.bounds_mm()
    assert shown.grid.contains(np.stack([low + 0.1, high - 0.1])).all()


def test_hounsfield_units_are_those_of_the_scans_own_voxel(volume: CTVolume) -> None:
    world = volume.grid.to_world([3, 17, 40]) + 0.4 * np.array([1, -1, 1])
    assert hu_at(volume, world) == volume.hu_XYZ[3, 17, 40]
    low, high = volume.grid.bounds_mm()
    assert hu_at(volume, low - 0.1) is None
    assert hu_at(volume, high + 0.1) is None
    assert hu_at(volume, [np.nan, 0, 0]) is None


def test_places_are_read_with_the_bodys_letters() -> None:
    assert place_in_words([31.04, -12.5, -7]) == "R 31.0  P 12.5  I 7.0 mm"
    assert place_in_words([-0.04, 0, 5]) == "R 0.0  A 0.0  S 5.0 mm"


# -- windows --------------------------------------------------------------------------------------


def test_the_usual_windows() -> None:
    assert PRESETS["lung"] == (1500, -600)
    assert PRESETS["mediastinum"].limits == (-125, 225)
    assert Window.from_limits(-1350, 150) == PRESETS["lung"]


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("There is a 5 mm nodule in the right lung.", "lung"),
        ("The calibration of the heart is natural.", "mediastinum"),
        ("Pulmonary artery diameter is increased.", "mediastinum"),
        ("In the upper abdominal sections, the liver is normal.", "soft"),
        ("No lytic-destructive lesion was detected in bone structures.", "bone"),
        ("Pleural effusion was not detected.", "mediastinum"),
        ("Trachea and both main bronchi are open.", "lung"),
        ("Thank you.", None),
        ("", None),
    ],
)
def test_a_sentence_is_looked_at_in_its_subjects_window(sentence: str, name: str | None) -> None:
    assert window_for(sentence) == name


# -- overlay --------------------------------------------------------------------------------------


def test_heat_is_clear_below_the_threshold_and_beyond_the_scan(result: AlignmentResult) -> None:
    scale = scale_of(result, 0)
    inside = result.similarity_SN[0][result.inside_N]
    assert scale == (inside.min(), inside.max())  # the padding's 2.0 is not on the scale
    drawn = heat(result, 0, scale, 0.5).ravel()
    share = (result.similarity_SN[0] - scale[0]) / (scale[1] - scale[0])
    np.testing.assert_array_equal(drawn > 0, (share >= 0.5) & result.inside_N)
    assert drawn.argmax() == best_patch(0)
    assert drawn.max() == pytest.approx(1)
    above = drawn[drawn > 0]
    assert above.min() >= 0.02
    order = np.argsort(drawn[drawn > 0])
    np.testing.assert_array_equal(order, np.argsort(share[drawn > 0]))


def test_the_chosen_patches_are_the_top_k(result: AlignmentResult) -> None:
    mask = chosen_mask(result, 2, 9)
    assert mask.shape == result.patches.shape
    assert set(np.flatnonzero(mask)) == set(result.top_SK[2, :9])
    short = replace(result, top_SK=result.top_SK[:, :4])
    assert set(np.flatnonzero(chosen_mask(short, 2, 9))) == set(result.top_SK[2, :9])


def test_a_constant_map_is_shown_without_fuss(result: AlignmentResult) -> None:
    flat = replace(result, similarity_SN=np.full_like(result.similarity_SN, 0.25))
    assert np.isfinite(heat(flat, 0, scale_of(flat, 0), 0.5)).all()


def test_settings_of_the_overlay_keep_their_limits_and_tell_of_changes() -> None:
    overlay, told = OverlaySettings(), []
    overlay.events.connect(lambda info: told.append(info.signal.name))
    overlay.top_k = 10
    overlay.top_k = 10
    assert told == ["top_k"]
    with pytest.raises(ValueError, match="less than or equal"):
        overlay.threshold = 1.5
    with pytest.raises(ValueError, match="'sentence' or 'shared'"):
        overlay.normalise = "other"  # type: ignore[assignment]


# -- outlines -------------------------------------------------------------------------------------


MASKS = arrays(bool, (4, 3, 5), elements=st.booleans())


@settings(max_examples=60, deadline=None)
@given(MASKS, st.integers(0, 2))
def test_plane_outlines_are_the_sides_between_chosen_and_other_cells(
    mask: np.ndarray, normal: int
) -> None:
    wanted = set()
    padded = np.pad(mask, 1)
    for cell in np.argwhere(mask):
        for axis in set(range(3)) - {normal}:
            for side in (-1, 1):
                step = np.eye(3, dtype=int)[axis] * side
                if not padded[tuple(cell + 1 + step)]:
                    wanted.add((tuple(cell), axis, side))
    lines = plane_outlines(mask, normal)
    found = set()
    for start, direction in lines:
        middle = start + direction / 2
        along = int(np.flatnonzero(direction)[0])
        across = 3 - normal - along
        for side in (-1, 1):
            cell = middle - side * 0.5 * np.eye(3)[across]
            index = tuple(np.round(cell).astype(int))
            beyond = not all(0 <= i < n for i, n in zip(index, mask.shape, strict=True))
            if not beyond and mask[index] and (index, across, side) in wanted:
                found.add((index, across, side))
    assert len(lines) == len(wanted)
    assert found == wanted


@settings(max_examples=60, deadline=None)
@given(MASKS)
def test_solid_outlines_meet_at_corners(mask: np.ndarray) -> None:
    lines = solid_outlines(mask)
    if not mask.any():
        assert len(lines) == 0
        return
    ends = np.concatenate([lines[:, 0], lines.sum(axis=1)])
    _, count = np.unique(np.round(2 * ends).astype(int), axis=0, return_counts=True)
    assert count.min() >= 2  # no line ends in the open


def test_boxes_of_one_and_of_two_cells() -> None:
    mask = np.zeros((3, 3, 4), bool)
    mask[1, 1, 1] = True
    assert len(solid_outlines(mask)) == 12
    assert len(plane_outlines(mask, 0)) == 4
    mask[1, 1, 2] = True
    assert len(solid_outlines(mask)) == 16  # four edges are two cells long, none lies between
    assert len(plane_outlines(mask, 0)) == 6


# -- session --------------------------------------------------------------------------------------


def told(session: Session) -> list[str]:
    said: list[str] = []
    for name in ("study", "report", "statements", "selection", "position", "window"):
        signal = getattr(session, f"{name}_changed")
        signal.connect(lambda name=name: said.append(name))
    return said


def test_opening_shows_the_reports_sentences_and_the_middle_of_the_scan(
    session: Session, study: OpenStudy, report: Report
) -> None:
    assert [s.text for s in session.statements] == [s.statement for s in report.sentences]
    assert [s.section for s in session.statements] == ["findings"] * 3 + ["impression"]
    np.testing.assert_allclose(session.position_mm, study.volume.grid.center_mm)
    assert all(s.score is None and s.is_supported is None for s in session.statements)


def test_stepping_stays_within_the_list_and_passes_over_what_is_not_shown(
    session: Session,
) -> None:
    every = range(4)
    for wanted in (0, 1, 2, 3, 3):
        session.step(True, every)
        assert session.selection == (wanted,)
    session.step(False, [0, 3])
    assert session.selection == (0,)
    session.select()
    session.step(False, every)
    assert session.selection == (3,)
    session.step(True, [])
    assert session.selection == (3,)


def test_a_change_is_told_once_and_no_change_not_at_all(session: Session) -> None:
    said = told(session)
    session.select(1, 1, 99)
    session.select(1)
    assert said == ["selection"]
    session.set_window(session.window)
    session.move_to(session.position_mm)
    assert said == ["selection"]
    session.set_window(Window(0, 40))
    assert session.window == (1, 40)
    assert said[1:] == ["window"]


def test_the_crosshair_stays_within_the_scan(session: Session, study: OpenStudy) -> None:
    session.move_to([1e6, -1e6, study.volume.grid.center_mm[2]])
    assert study.display.grid.contains(session.position_mm)


def test_support_is_told_by_the_null(
    session: Session, report: Report, result: AlignmentResult
) -> None:
    session.set_statements(statements_of(report, result))
    assert [s.is_supported for s in session.statements] == [True, False, False, False]
    assert session.statements[1].score == 2.0


def test_another_report_keeps_the_scan_where_it_is_looked_at(
    session: Session, study: OpenStudy, report: Report
) -> None:
    session.move_to(study.volume.grid.center_mm + 10)
    place = session.position_mm
    said = told(session)
    session.set_report(report)
    assert said == ["report", "statements", "selection"]
    assert session.study is not None
    assert session.study.number == study.number
    assert session.position_mm is place


def test_what_is_open_has_no_name_of_file_or_patient(study: OpenStudy) -> None:
    assert study.name == study.volume.pseudonym
    assert study.name.startswith("ct-")
