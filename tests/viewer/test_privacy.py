"""What a DICOM header says of a person is nowhere in the window nor in what it writes."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_builder import CANARY, plant, write_series
from qtpy.QtCore import QAbstractListModel, Qt

from simcrop_core.encoded_cache import EncodedCache
from simcrop_viewer.model.recent import RecentStudies

pytestmark = pytest.mark.usefixtures("display")
_SHOWN, _TOLD = int(Qt.ItemDataRole.DisplayRole), int(Qt.ItemDataRole.ToolTipRole)
UID = "1.2.3.4567891234"


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from simcrop_core.input_spec import InputSpec
    from simcrop_core.model import VisionConfig, create_model, save_model

    model = create_model(
        "starter",
        segmentation_labels=("left lung", "right lung"),
        input_spec=InputSpec(shape=(32, 32, 16), spacing_mm=(7, 7, 14), patch_shape=(4, 4, 2)),
        vision=VisionConfig(depth=4, width=24, heads=2),
    )
    return save_model(model, tmp_path_factory.mktemp("models") / "segmenter")


def words_of(widget: Any) -> Iterator[str]:
    """All that a widget says."""
    for name in ("windowTitle", "text", "toolTip", "statusTip", "placeholderText", "title"):
        said = getattr(widget, name, None)
        if callable(said):
            yield str(said())
    if hasattr(widget, "toPlainText"):
        yield widget.toPlainText()
    model = getattr(widget, "model", None)
    table = model() if callable(model) else None
    if table is not None:
        for row in range(table.rowCount()):
            for column in range(
                1 if isinstance(table, QAbstractListModel) else table.columnCount()
            ):
                index = table.index(row, column)
                for role in range(16):  # what is shown, told when pointed at, and so on
                    yield str(table.data(index, role))


def unpacked(data: bytes) -> Iterator[bytes]:
    """A file, and what is compressed in it."""
    yield data
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    for packed in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL):
        try:
            yield zlib.decompress(packed)
        except zlib.error:
            yield packed


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_header_full_of_names_leaves_no_trace(
    qtbot: Any, segmenter: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    from napari._qt.qt_event_loop import get_qapp

    from simcrop_viewer.view.window import MainWindow

    write_series(
        tmp_path / "scan",
        np.random.default_rng(0).integers(-1000, 400, (16, 24, 24)).astype(np.int16),
        spacing=(9.0, 9.0, 14.0),
        transfer_syntax="implicit",
        edit=lambda k, ds: (plant(ds), setattr(ds, "StudyInstanceUID", UID)),
    )
    one = next((tmp_path / "scan").iterdir()).read_bytes()
    assert one.count(CANARY.encode()) > 1000
    (tmp_path / "said.txt").write_text("Findings: The heart is enlarged.")
    out = tmp_path / "out"
    out.mkdir()
    window = MainWindow(RecentStudies(out / "recent.json"), EncodedCache(out / "encoded"))
    try:
        window.show()
        window.qt.resize(window.qt.minimumSizeHint())

        def done() -> None:
            qtbot.waitUntil(lambda: not window.jobs.running, timeout=90_000)

        window.use_model(segmenter)
        done()
        window.open(tmp_path / "scan", tmp_path / "said.txt")
        done()
        qtbot.waitUntil(lambda: window.evidence.is_encoded, timeout=90_000)
        window.evidence.ask("There is a nodule.")
        done()
        window.structures.segment()
        done()
        window.structures.export(out / "labels.nii.gz")
        window.sessions.save(out / "s.simcrop")
        for kind in ("pdf", "svg"):
            window.figures.save(out / f"figure.{kind}")
            done()
        window.viewer.screenshot(str(out / "screen.png"), canvas_only=False)
        window.open(tmp_path / "scan" / "absent.dcm")  # a refusal
        done()
        said = [window.qt.windowTitle(), get_qapp().clipboard().text()]
        for scene in window.scenes.scenes:
            for layer in scene.viewer.layers:
                said += [layer.name, repr(layer.metadata), repr(layer.source), repr(layer)]
        for widget in get_qapp().allWidgets():
            said += words_of(widget)
    finally:
        window.close()
    printed = capfd.readouterr()
    said += [printed.out, printed.err, caplog.text]
    assert any("The heart is enlarged" in word for word in said)  # it is looked at what is shown
    files = [path for path in out.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"labels.nii.gz", "s.simcrop", "figure.pdf", "screen.png", "recent.json"} <= names
    assert any("encoded" in path.parts for path in files)
    written = [data for path in files for data in unpacked(path.read_bytes())]
    secrets = (CANARY, UID)
    for secret in secrets:
        assert not [word for word in said if secret.casefold() in word.casefold()]
        assert not [data for data in written if secret.encode() in data]
        assert not [path for path in files if secret in str(path)]
