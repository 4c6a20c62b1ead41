"""A study, a small model and its answers; windows only where there is a display."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from made_ct import AFFINE, chest, save_nifti
from made_view import Desk, Mailbox, best_patch

from simcrop_core.alignment_result import AlignedSentence, AlignmentResult
from simcrop_core.encoded import VolumeCard
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.patches import PatchGrid
from simcrop_core.report import Report, report_from_parts
from simcrop_core.report_files import Part, Parts
from simcrop_core.volume import CTVolume
from simcrop_viewer.model.display import display_of
from simcrop_viewer.model.jobs import Jobs
from simcrop_viewer.model.session import OpenStudy, Session

REPORT = (
    "Findings:\nThere is a nodule in the right upper lobe. No pleural effusion on the left. "
    "Heart size is normal.\n\nImpression:\nNodule in the right lung."
)


@pytest.fixture
def display() -> None:
    """Skips where no window can be shown."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        pytest.skip("there is no display: run under xvfb-run, as `make test` does")


@pytest.fixture(scope="session")
def volume() -> CTVolume:
    return CTVolume(chest(), Grid(chest().shape, AFFINE))


@pytest.fixture(scope="session")
def report() -> Report:
    return report_from_parts(Parts([Part(None, REPORT)]))


@pytest.fixture(scope="session")
def study(volume: CTVolume, report: Report) -> OpenStudy:
    return OpenStudy(volume, display_of(volume), report)


@pytest.fixture
def session(study: OpenStudy) -> Session:
    made = Session()
    made.show(study)
    return made


@pytest.fixture
def result(study: OpenStudy, report: Report) -> AlignmentResult:
    """Similarities by hand: sentence ``s`` looks most like patch ``100 s + 7``, less so around."""
    affine = axis_aligned_affine("LPS", (24, 24, 24), study.volume.grid.center_mm, (10, 9, 8))
    patches = PatchGrid(Grid((10, 9, 8), affine), (4, 4, 4))
    rng = np.random.default_rng(3)
    similarity = rng.uniform(0, 0.5, (len(report.sentences), len(patches))).astype(np.float32)
    for row in range(len(similarity)):
        similarity[row, best_patch(row)] = 0.9
    inside = np.ones(len(patches), bool)
    inside[:5] = False
    similarity[:, :5] = 2.0  # padding, which must never be shown
    order = np.argsort(-np.where(inside, similarity, -9), axis=1)[:, :200]
    return AlignmentResult(
        sentences=tuple(
            AlignedSentence(s.text, s.section, s.span, 3.0 - row, 99.0 - 30 * row)
            for row, s in enumerate(report.sentences)
        ),
        similarity_SN=similarity,
        top_SK=order.astype(np.int64),
        inside_N=inside,
        patches=patches,
        model={"id": "made", "name": "made"},
        volume=VolumeCard.of(study.volume),
    )


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def jobs(mailbox: Mailbox):
    made = Jobs(mailbox.append)
    yield made
    made.close()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model so small that it looks at a scan in a moment."""
    return _small_model(tmp_path_factory.mktemp("models") / "small", (32, 32, 16), (7, 7, 14))


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, that sees less of a scan, in larger patches."""
    return _small_model(tmp_path_factory.mktemp("models") / "other", (20, 20, 10), (10, 10, 20))


def _small_model(folder: Path, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Path:
    from simcrop_core.input_spec import InputSpec
    from simcrop_core.model import VisionConfig, create_model, save_model

    model = create_model(
        "starter",
        input_spec=InputSpec(shape=shape, spacing_mm=spacing_mm, patch_shape=(4, 4, 2)),
        vision=VisionConfig(depth=2, width=48, heads=4),
    )
    save_model(model, folder)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    scan = save_nifti(tmp_path / "JOHN_DOE_1950.nii.gz")
    said = tmp_path / "JOHN_DOE.txt"
    said.write_text("Findings: Heart size is normal. There is a nodule on the right.")
    return scan, said


@pytest.fixture
def desk(jobs: Jobs, mailbox: Mailbox) -> Desk:
    return Desk(jobs, mailbox)


@pytest.fixture
def ready(desk: Desk, files: tuple[Path, Path], model_folder: Path) -> Desk:
    desk.studies.open(*files)
    desk.evidence.load(model_folder)
    desk.wait()
    desk.evidence.encode()
    desk.wait()
    assert desk.refused == []
    return desk
