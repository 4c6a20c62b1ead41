"""The list of studies and the question above the panels, as a person uses them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dicom_builder import phantom, write_series
from made_ct import AFFINE, chest, save_nifti
from test_window import drop, press, settled

from simcrop_core.encoded_cache import EncodedCache

pytestmark = pytest.mark.usefixtures("display")
TEXTS = {
    "case_1": "Findings: Heart size is normal.",
    "DOE_JOHN": "Findings: A nodule on the right.",
    "case_3": "Findings: Pleural effusion.",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("studies")
    for number, (name, text) in enumerate(TEXTS.items()):
        save_nifti(made / f"{name}.nii.gz", np.roll(chest(), number, axis=0), AFFINE)
        (made / f"{name}.txt").write_text(text)
    whole = (made / "case_1.nii.gz").read_bytes()
    (made / "case_2.nii.gz").write_bytes(whole[: len(whole) // 2])
    return made


@pytest.fixture(scope="module")
def window(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[object]:
    """One window, with the list and a cache."""
    app = request.getfixturevalue("qapp")
    from simcrop_viewer.view.window import MainWindow

    made = MainWindow(cache=EncodedCache(tmp_path_factory.mktemp("cache") / "encoded"))
    made.show()
    made.qt.resize(made.qt.minimumSizeHint())
    made.open_list(folder)
    wait(app, lambda: not made.jobs.running)
    yield made
    made.close()


@pytest.fixture
def panel(window, qtbot):
    """The panel, nothing being open or searched for."""
    window.studies.close()
    window.studies_list.list.go(None)
    yield window.studies_panel
    window.studies_panel.find.clear()
    window.messages.hide()
    settled(qtbot, lambda: not window.jobs.running)


def wait(app, condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        app.processEvents()
        time.sleep(0.01)


def cells(panel) -> list[list[str]]:
    model = panel.model
    return [
        [str(model.data(model.index(row, column)) or "") for column in range(model.columnCount())]
        for row in range(model.rowCount())
    ]


def test_the_list_reads_like_a_work_list(window, panel) -> None:
    assert window.docks["studies"].isVisible()
    rows = cells(panel)
    assert [row[:4] for row in rows] == [
        ["1", "case_1", "yes", ""], ["2", "case_2", "none", ""], ["3", "case_3", "yes", ""],
        ["4", "study 4", "yes", ""],
    ]  # fmt: skip
    assert [bool(row[4]) for row in rows] == [False, True, False, False]
    assert not any("DOE" in cell for row in rows for cell in row)
    assert panel.state.text() == "4 studies."


def test_searching_shows_where_the_word_stands(panel) -> None:
    panel.find.setText("nodule")
    assert [row[1] for row in cells(panel)] == ["study 4"]
    assert "A nodule on the right." in cells(panel)[0][4]
    assert panel.state.text() == "1 of 4 studies."
    panel.find.setText("nothing of the kind")
    assert cells(panel) == []
    assert not panel.next.isEnabled()


def test_keys_go_from_study_to_study_and_the_row_is_marked(window, panel, qtbot) -> None:
    press(qtbot, window, "PgDown")
    settled(qtbot, lambda: window.studies_list.list.open == 0)
    assert [s.text for s in window.session.statements] == ["Heart size is normal."]
    assert panel.table.currentIndex().row() == 0
    press(qtbot, window, "PgDown")  # one that cannot be opened
    settled(qtbot, lambda: window.messages.isVisible())
    assert window.studies_list.list.open == 0
    press(qtbot, window, "PgDown")
    settled(qtbot, lambda: window.studies_list.list.open == 2)
    assert panel.table.currentIndex().row() == 2
    assert panel.model.data(panel.model.index(2, 1), 6).bold()  # the role of fonts
    assert not window.messages.isVisible()
    panel.find.setText("heart")
    press(qtbot, window, "PgUp")
    settled(qtbot, lambda: window.studies_list.list.open == 0)


def test_enter_and_a_double_click_open_a_study(window, panel, qtbot) -> None:
    from qtpy.QtCore import Qt

    def middle(row: int):
        return panel.table.visualRect(panel.model.index(row, 1)).center()

    panel.find.setText("case")  # few rows, all in sight
    panel.table.selectRow(2)
    qtbot.keyClick(panel.table, Qt.Key.Key_Return)
    settled(qtbot, lambda: window.studies_list.list.open == 2)
    panel.table.scrollToTop()
    qtbot.mouseClick(panel.table.viewport(), Qt.MouseButton.LeftButton, pos=middle(0))
    qtbot.mouseDClick(panel.table.viewport(), Qt.MouseButton.LeftButton, pos=middle(0))
    settled(qtbot, lambda: window.studies_list.list.open == 0)


def test_all_are_encoded_and_opening_one_does_not_wait(
    window, panel, qtbot, model_folder: Path
) -> None:
    assert not panel.encode.isEnabled()
    assert "no model" in panel.encode.toolTip()
    window.use_model(model_folder)
    settled(qtbot, lambda: window.evidence.model is not None and not window.jobs.running)
    panel.encode.click()
    assert panel.encode.text() == "Cancel encoding"
    settled(qtbot, lambda: not window.jobs.running)
    assert [row[3] for row in cells(panel)] == ["yes", "failed", "yes", "yes"]
    assert panel.state.text().startswith("4 studies, 3 encoded.")
    assert "1 could not be" in panel.state.text()
    panel.next.click()
    settled(qtbot, lambda: window.evidence.is_encoded)
    assert window.evidence.was_kept
    window.evidence.set_model(None)
    assert [row[3] for row in cells(panel)] == [""] * 4


def test_a_csv_of_studies_that_is_dropped_is_a_list(window, panel, qtbot, tmp_path: Path) -> None:
    scan = save_nifti(tmp_path / "a.nii.gz")
    before = window.studies_list.list.rows
    path = tmp_path / "list.csv"
    path.write_text(f"study,volume\ncase_77,{scan.name}\n")
    drop(window.qt, path)
    settled(qtbot, lambda: window.studies_list.list.rows is not before)
    settled(qtbot, lambda: not window.jobs.running)
    assert [row[1] for row in cells(panel)] == ["case_77"]
    panel.hide_all.click()
    assert not window.docks["studies"].isVisible()
    assert cells(panel) == []


def test_a_folder_of_several_scans_is_listed(window, panel, qtbot, folder: Path) -> None:
    window.open(folder)
    settled(qtbot, lambda: len(window.studies_list.list) == 4)
    assert window.docks["studies"].isVisible()
    assert not window.messages.isVisible()
    assert window.session.study is None


@pytest.fixture
def series(tmp_path: Path) -> Path:
    write_series(tmp_path, phantom((9, 16, 16), seed=1), prefix="a", tags={"SeriesNumber": 2})
    write_series(tmp_path, phantom((5, 16, 16), seed=2), prefix="b", tags={"SeriesNumber": 4})
    return tmp_path


def test_a_series_is_chosen_above_the_panels(window, panel, qtbot, series: Path) -> None:
    from qtpy.QtCore import Qt

    bar = window.choice
    window.open(series)
    settled(qtbot, bar.isVisible)
    assert bar.words.text() == "The folder holds 2 CT series. Which one shall be opened?"
    assert bar.table.currentIndex().row() == 0
    assert not bar.find.isVisible()
    bar.leave.click()
    assert not bar.isVisible()
    assert window.session.study is None
    window.open(series)
    settled(qtbot, bar.isVisible)
    qtbot.keyClick(bar.table, Qt.Key.Key_Down)
    qtbot.keyClick(bar.table, Qt.Key.Key_Return)
    settled(qtbot, lambda: window.session.study is not None)
    assert window.session.study.volume.shape[2] == 5
    assert not bar.isVisible()


def test_a_row_of_many_is_found_by_its_words(window, panel, qtbot, tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    lines = [f"case_{n},Report number {n} of a nodule.\n" for n in range(2000)]
    path.write_text(f"VolumeName,Findings_EN\n{''.join(lines)}")
    bar = window.choice
    window.open(save_nifti(tmp_path / "x.nii.gz"), path)
    settled(qtbot, bar.isVisible)
    bar.find.setText("number 1234 ")
    assert bar.table.model().rowCount() == 1
    qtbot.keyClick(bar.find, "\r")
    settled(qtbot, lambda: window.session.study is not None)
    assert window.session.statements[0].text == "Report number 1234 of a nodule."


def test_closing_while_studies_are_listed_and_encoded_leaves_no_thread_behind(
    qtbot, folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    from simcrop_viewer.view.window import MainWindow

    before = set(threading.enumerate())
    window = MainWindow(cache=EncodedCache(tmp_path / "encoded"))
    window.show()
    window.use_model(model_folder)
    window.open_list(folder)
    settled(qtbot, lambda: window.evidence.model is not None and not window.jobs.running)
    window.studies_panel.press()
    window.open_list(folder)
    assert len(window.jobs.running) > 1
    window.close()

    def left() -> list[str]:
        new = set(threading.enumerate()) - before
        return [thread.name for thread in new if thread.name.startswith("simcrop-")]

    settled(qtbot, lambda: not left())


def test_the_line_says_what_could_not_be_searched(window, panel) -> None:
    studies = window.studies_list.list
    studies.left_out = "Folders more than 8 deep were not searched."
    panel.tell()
    said = panel.state.text()
    studies.left_out = ""
    panel.tell()
    assert ". Folders more than 8 deep were not searched." in said
    assert "Folders" not in panel.state.text()
