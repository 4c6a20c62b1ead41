"""The best and the worst sentences: how they are ranked, and where things lie in the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from simcrop_core.cli import main
from simcrop_core.evaluate.cases import Said, case_of
from simcrop_core.evaluate.grounding_result import GroundingResult, Pointed
from simcrop_core.evaluate.picture import PATCH, REGION, draw_extremes, ranked
from simcrop_core.evaluate.pointing import Pointing, point, point_at_random
from simcrop_core.figure import save_figure
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import VisionConfig, create_model, save_model
from simcrop_core.statements import Meaning
from simcrop_core.study import SentenceFacts, Study
from simcrop_core.volume import CTVolume

SPEC = InputSpec(shape=(32, 32, 16), spacing_mm=(4, 4, 8), patch_shape=(8, 8, 4))
#: Axes to the right, the back and downwards; 2 x 4 x 4 mm.
GRID = Grid((64, 32, 32), axis_aligned_affine("RPI", (2, 4, 4), (10, -20, 30), (64, 32, 32)))
NODULE = Meaning.of("Lung nodule", "left")


def study(name: str) -> Study:
    """A bright block on the left, behind and above the middle."""
    hu = np.full(GRID.shape, -800, np.int16)
    block = np.zeros(GRID.shape, bool)
    block[8:16, 20:24, 7:10] = True
    hu[block] = 300
    return Study(
        name,
        CTVolume(hu, GRID),
        sentences=(SentenceFacts("A nodule on the left.", "finding", NODULE, "block"),),
        regions={"block": block},
    )


def result_of(best_patches: list[int]) -> GroundingResult:
    """A sentence for each patch that is said to be the most similar."""
    result = GroundingResult({"name": "made", "trained": "by hand"})
    for number, best in enumerate(best_patches):
        case = case_of(study(f"s{number}"), SPEC)
        said = case.said[0]
        assert said.coverage_N is not None
        similarity = np.zeros(64)
        similarity[best] = 1
        by = {
            "model": point(similarity, said.coverage_N, case.inside_N),
            "chance": point_at_random(said.coverage_N, case.inside_N),
        }
        centers = case.patches.centers()
        away = np.linalg.norm(centers[said.coverage_N > 0] - centers[best], axis=1).min()
        result.studies.append(case.id)
        result.pointed.append(Pointed(number, said, by, {}, best, float(away)))
    return result


def test_the_best_hit_and_the_worst_lie_furthest_away() -> None:
    case = case_of(study("s"), SPEC)
    cover = case.said[0].coverage_N
    assert cover is not None
    hits = np.flatnonzero(cover > 0)
    most = int(cover.argmax())
    far = int(np.linalg.norm(case.patches.centers() - case.patches.center(most), axis=1).argmax())
    near = [int(n) for n in np.flatnonzero(cover == 0) if n != far][:2]
    result = result_of([far, near[0], most, near[1]])
    best, worst = ranked(result, count=1)
    assert [p.best for p in best] == [most]
    assert [p.best for p in worst] == [far]
    assert most in hits
    best, worst = ranked(result)
    assert len(best) == len(worst) == 2
    assert not {id(p) for p in best} & {id(p) for p in worst}
    assert worst[0].away_mm >= worst[1].away_mm >= best[1].away_mm


def test_one_sentence_a_region_and_findings_first() -> None:
    def pointed(number: int, kind: str, region: str) -> Pointed:
        said = Said("text", kind, NODULE, region, None, np.ones(2, np.float32), None)  # type: ignore[arg-type]
        by = {s: Pointing(1, 1, 0.1 * number, 1) for s in ("model", "chance")}
        return Pointed(0, said, by, {}, number)

    result = GroundingResult({}, ["s"])
    result.pointed = [pointed(0, "finding", "a"), pointed(1, "finding", "a")]
    result.pointed += [pointed(2, "organ", "b")]
    best, worst = ranked(result)
    assert [p.said.region for p in (*best, *worst)] in (["a", "b"], ["b", "a"])
    result.pointed += [pointed(3, "finding", "c")]
    best, worst = ranked(result, count=1)  # two findings are enough for two panels
    assert {p.said.kind for p in (*best, *worst)} == {"finding"}


def test_region_and_patch_lie_in_the_picture_where_they_lie_in_the_patient(tmp_path: Path) -> None:
    made = study("s0")
    case = case_of(made, SPEC)
    cover = case.said[0].coverage_N
    assert cover is not None
    hit = int(cover.argmax())
    miss = case.patches.patch_at((40, 20, 0))  # to the right, in front, below
    assert miss is not None
    figure = draw_extremes(result_of([hit, miss]), study, SPEC)
    axes = {a.get_label(): a for a in figure.axes}
    assert set(axes) == {
        "best 1 first", "best 1 second", "worst 1 first", "worst 1 second",
    }  # fmt: skip
    world = GRID.to_world(np.argwhere(made.regions["block"]))
    half = np.array([1.0, 2.0, 2.0])
    low, high = world.min(axis=0) - half, world.max(axis=0) + half
    colors = {"region": REGION[1][0], "patch": PATCH[1][0]}

    def drawn(label: str, what: str) -> np.ndarray:
        from matplotlib.colors import to_hex

        for lines in axes[label].collections:
            assert isinstance(lines, LineCollection)
            if to_hex(lines.get_colors()[0]) == colors[what]:
                return np.array(lines.get_segments()).reshape(-1, 2)
        raise AssertionError(what)

    # Axial: u runs to the patient's left, v to the front.
    for label in ("best 1 first", "worst 1 first"):
        got = drawn(label, "region")
        np.testing.assert_allclose(got.min(axis=0), (-high[0], low[1]), atol=2.0)
        np.testing.assert_allclose(got.max(axis=0), (-low[0], high[1]), atol=2.0)
    box = case.patches.box(hit)
    got = drawn("best 1 first", "patch")
    np.testing.assert_allclose(got.min(axis=0), (-box.high_mm[0], box.low_mm[1]), atol=1e-6)
    # The second picture of a hit is coronal through the region: v runs upwards.
    got = drawn("best 1 second", "region")
    np.testing.assert_allclose(got.min(axis=0), (-high[0], low[2]), atol=2.0)
    # That of a miss is axial through the patch, which the first does not show.
    assert len(drawn("worst 1 first", "patch")) == 0
    box = case.patches.box(miss)
    got = drawn("worst 1 second", "patch")
    np.testing.assert_allclose(got.max(axis=0), (-box.low_mm[0], box.high_mm[1]), atol=1e-6)
    assert len(drawn("worst 1 second", "region")) == 0
    words = [t.get_text() for a in axes.values() for t in a.texts]
    assert words.count("R") == words.count("L") == 4
    assert any(w.startswith("coronal, ") for w in words)
    texts = [t.get_text() for t in figure.texts]
    assert "A nodule on the left." in texts
    assert any("lung window 1500/" in t for t in texts)
    for suffix in ("png", "pdf"):
        save_figure(figure, tmp_path / f"p.{suffix}")
        assert (tmp_path / f"p.{suffix}").stat().st_size > 10_000


def test_no_words_are_cut_or_overlap() -> None:
    """Captions of any length stand apart, within the page."""
    result = result_of([0, 5, 10, 15, 20, 25, 30])
    long = "Nodule " * 60
    for p in result.pointed[::2]:
        object.__setattr__(p.said, "text", long)
    figure = draw_extremes(result, study, SPEC)
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in figure.texts]
    width, height = figure.canvas.get_width_height()
    for n, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height
        for other in boxes[:n]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            along = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across <= 1 or along <= 2  # pixels: descenders reach into the leading
    for axes in figure.axes:
        frame = axes.get_window_extent()
        assert not any(frame.x0 < (b.x0 + b.x1) / 2 < frame.x1 and b.y1 > frame.y0 + 1 and b.y0 < frame.y1 - 1 for b in boxes)  # fmt: skip  # noqa: E501


def test_the_command_draws_and_refuses_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = InputSpec(shape=(48, 48, 24), spacing_mm=(8, 8, 16), patch_shape=(8, 8, 4))
    vision = VisionConfig(depth=1, width=24, heads=2)
    model = create_model("grounded", input_spec=spec, vision=vision, projection_width=16)
    save_model(model, tmp_path / "model")
    common = ["evaluate", "grounding", "--model", str(tmp_path / "model"), "--device", "cpu"]
    common += ["--phantoms", "1", "--prior-phantoms", "0"]
    picture = tmp_path / "p.png"
    assert main([*common, "--picture", str(picture)]) == 0
    assert picture.stat().st_size > 10_000
    capsys.readouterr()
    for wrong, says in (
        (["--picture", str(tmp_path / "p.jpg")], ".png, .pdf or .svg"),
        (["--picture", str(tmp_path / "no" / "p.png")], "folder of the --picture file"),
        (["--json", str(tmp_path)], "This is a folder"),
        (["--device", "cuda:99"], "cuda:99"),
    ):
        assert main([*common, "--model", str(tmp_path / "absent"), *wrong]) == 2
        assert says in capsys.readouterr().err
