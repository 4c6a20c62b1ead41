"""The healthy chest of a phantom: sides, sizes, tissues, trees, scanner; the same on every grid."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from scipy import ndimage

from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.phantoms.anatomy import Anatomy
from simcrop_core.phantoms.anatomy_build import build_anatomy
from simcrop_core.phantoms.anatomy_frame import Frame
from simcrop_core.phantoms.anatomy_labels import LABELS, LOBES, STRUCTURES
from simcrop_core.phantoms.plan import (
    PatientPlan,
    PhantomPlan,
    ScannerPlan,
    plan_patient,
    plan_phantom,
    plan_scanner,
)
from simcrop_core.phantoms.render import render
from simcrop_core.phantoms.scanner import field_of_view, scan

SEED = 4


def healthy(seed: int, **patient: object) -> PhantomPlan:
    """A plan without findings, and without the chance that a scan is cut."""
    person = replace(plan_patient(np.random.default_rng([seed, 1])), **patient)  # type: ignore[arg-type]
    scanner = plan_scanner(np.random.default_rng([seed, 2]), person)
    return PhantomPlan(seed, person, scanner)


def around(plan: PhantomPlan, mm: tuple[float, float, float], axcodes: str = "LPS") -> Grid:
    """A grid of these voxels that holds the chest from neck to kidneys."""
    extent = np.array((400.0, 320.0, 384.0)) * plan.patient.scale
    shape = tuple(int(n) for n in np.ceil(extent / mm))
    center = np.array(plan.patient.offset_mm) + np.array((0, -22, -62))
    world = [("RL", "AP", "SI")[w] for w in range(3)]
    order = [next(w for w in range(3) if letter in world[w]) for letter in axcodes]
    sizes, spacing = [shape[w] for w in order], [mm[w] for w in order]
    return Grid(tuple(sizes), axis_aligned_affine(axcodes, spacing, center, sizes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def standard() -> PhantomPlan:
    """A person of standard size who breathes in, without contrast agent."""
    plan = healthy(
        SEED, scale=(1.0, 1.0, 1.0), inspiration=1.0, roll_deg=6.0, lean_deg=2.0, age_years=45
    )
    plain = replace(
        plan.scanner, contrast="none", blood_hu=41.0, couch_kind="flat", couch_gap_mm=3.0
    )
    return replace(plan, scanner=plain)


@pytest.fixture(scope="module")
def chest(standard: PhantomPlan) -> Anatomy:
    return build_anatomy(standard, around(standard, (2.0, 2.0, 3.0)))


def center_mm(anatomy: Anatomy, name: str) -> np.ndarray:
    """Middle of a structure in patient coordinates (origin at the carina, +x right)."""
    where = np.argwhere(anatomy.structure(name))
    assert len(where), name
    world = anatomy.grid.to_world(where)
    return np.stack(anatomy.frame.patient(*world.T), axis=-1).mean(axis=0)


def volume_ml(anatomy: Anatomy, name: str) -> float:
    return float(anatomy.structure(name).sum() * anatomy.grid.voxel_volume_mm3 / 1000)


def test_every_structure_is_drawn(chest: Anatomy) -> None:
    present = {STRUCTURES[n - 1] for n in np.unique(chest.labels_XYZ) if n}
    drawn_with_findings = {name for name in STRUCTURES if name.endswith("fluid")}
    expected = set(STRUCTURES) - drawn_with_findings - {"breasts"}
    assert expected <= present, expected - present
    assert LABELS["skin"] == 1
    assert len(set(STRUCTURES)) == len(STRUCTURES) < 256


@pytest.mark.parametrize(
    ("right", "left"),
    [
        ("liver", "spleen"),
        ("liver", "stomach"),
        ("right atrium", "left ventricle"),
        ("superior vena cava", "aorta"),
        ("inferior vena cava", "aorta"),
        ("right lung", "left lung"),
        ("gallbladder", "stomach"),
        ("azygos vein", "aorta"),
    ],
)
def test_right_is_to_the_right(chest: Anatomy, right: str, left: str) -> None:
    assert center_mm(chest, right)[0] > center_mm(chest, left)[0] + 8


def test_right_is_plus_x_of_the_world(chest: Anatomy) -> None:
    """RAS+: the liver's mean x is larger than the spleen's, as on the real scans."""
    mean = {
        name: chest.grid.to_world(np.argwhere(chest.structure(name))).mean(axis=0)
        for name in ("liver", "spleen", "sternum", "vertebrae", "thyroid", "kidneys")
    }
    assert mean["liver"][0] > mean["spleen"][0] + 80
    assert mean["sternum"][1] > mean["vertebrae"][1] + 80
    assert mean["thyroid"][2] > mean["kidneys"][2] + 200
    heart = chest.heart
    assert heart.apex_mm[0] < heart.base_mm[0] - 50, "the apex points to the left"
    assert heart.apex_mm[2] < heart.base_mm[2] - 30, "and down"
    assert heart.apex_mm[1] > heart.base_mm[1], "and to the front"
    aorta = chest.centrelines["aorta"]
    middle = chest.landmarks["carina"]
    start, bend, end = aorta.at((0.0, 0.28, 0.6))[0]
    assert start[0] > end[0]
    assert start[1] > end[1]
    assert bend[2] > max(start[2], end[2])
    assert end[0] < middle[0], "the descending aorta runs on the left"
    assert chest.landmarks["right dome"][2] > chest.landmarks["left dome"][2] - 25


def test_levels_from_head_to_foot(chest: Anatomy) -> None:
    order = ("thyroid", "aortic branches", "pulmonary artery", "left ventricle", "liver", "kidneys")
    heights = [center_mm(chest, name)[2] for name in order]
    assert heights == sorted(heights, reverse=True)
    lobes = {name: center_mm(chest, name) for name in LOBES}
    assert lobes["right upper lobe"][2] > lobes["right middle lobe"][2]
    assert lobes["right middle lobe"][1] > lobes["right lower lobe"][1] + 30
    assert lobes["left upper lobe"][2] > lobes["left lower lobe"][2] + 20


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("subcutaneous fat", -125, -80),
        ("muscle", 35, 65),
        ("ribs", 150, 700),
        ("vertebrae", 90, 600),
        ("intervertebral discs", 60, 170),
        ("spinal canal", 5, 45),
        ("trachea", -1000, -900),
        ("right upper lobe", -930, -780),
        ("left lower lobe", -930, -740),
        ("left ventricle", 35, 50),
        ("aorta", 35, 50),
        ("liver", 50, 70),
        ("spleen", 40, 55),
        ("kidneys", -10, 40),
        ("thyroid", 80, 120),
        ("mediastinal fat", -110, -60),
        ("abdominal fat", -110, -90),
        ("humeri", 20, 1300),
    ],
)
def test_tissue_values(chest: Anatomy, name: str, low: float, high: float) -> None:
    """Medians of Hounsfield units (Prokop and Galanski, Spiral and Multislice CT, 2003)."""
    values = chest.hu_XYZ[chest.labels_XYZ == LABELS[name]]
    assert low <= np.median(values) <= high


def test_contrast_phases(standard: PhantomPlan) -> None:
    grid = around(standard, (7.0, 7.0, 8.0))
    seen = {}
    for phase in ("none", "venous", "arterial", "pulmonary"):
        plan = replace(standard, scanner=replace(standard.scanner, contrast=phase, contrast_hu=1.0))
        anatomy = build_anatomy(plan, grid)
        seen[phase] = {
            name: float(np.median(anatomy.hu_XYZ[anatomy.structure(name)]))
            for name in ("aorta", "pulmonary artery", "liver", "right ventricle")
        }
    assert seen["none"]["aorta"] < 60
    assert seen["arterial"]["aorta"] > seen["venous"]["aorta"] + 80
    assert seen["venous"]["liver"] > seen["arterial"]["liver"] + 20
    assert seen["pulmonary"]["pulmonary artery"] > seen["pulmonary"]["aorta"] + 80
    assert seen["pulmonary"]["right ventricle"] > 200


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        # Lungs in full breath 4 to 7 l (total lung capacity, Stocks and Quanjer, Eur Respir J
        # 1995); lower lobes the largest, the middle lobe a tenth.
        ("lungs", 3500, 7200),
        ("right middle lobe", 200, 900),
        # Heart with its blood 500 to 900 ml; liver 1.0 to 2.2 l (Kratzer et al., J Ultrasound Med
        # 2003); spleen 80 to 350 ml (Prassopoulos et al., Eur Radiol 1997).
        ("heart", 400, 1100),
        ("left ventricle", 60, 200),
        ("liver", 1000, 2200),
        ("spleen", 80, 350),
        ("trachea", 20, 60),
        ("thyroid", 6, 30),
        ("spine", 250, 800),
    ],
)
def test_volumes_of_adults(chest: Anatomy, name: str, low: float, high: float) -> None:
    assert low <= volume_ml(chest, name) <= high


def test_shares_of_the_lungs(chest: Anatomy) -> None:
    """The right lung is the larger, 50 to 60 % of both."""
    right, both = volume_ml(chest, "right lung"), volume_ml(chest, "lungs")
    assert 0.49 < right / both < 0.62
    assert right + volume_ml(chest, "left lung") == pytest.approx(both)
    assert sum(volume_ml(chest, lobe) for lobe in LOBES) == pytest.approx(both)
    assert volume_ml(chest, "right middle lobe") < volume_ml(chest, "right upper lobe")


def test_width_of_the_heart(chest: Anatomy) -> None:
    """Heart to chest 0.36 to 0.5 (Danzer, Am J Med Sci 1919)."""
    heart = np.argwhere(chest.structure("heart"))
    lungs = np.argwhere(chest.structure("lungs"))
    ratio = np.ptp(heart[:, 0]) / np.ptp(lungs[:, 0])
    assert 0.36 < ratio < 0.5


def test_airways_are_one_connected_piece(chest: Anatomy) -> None:
    """From the trachea to the segments: voxels of air and wall hang together."""
    air = np.isin(chest.labels_XYZ, [LABELS[n] for n in ("trachea", "bronchi", "airway walls")])
    parts, _ = ndimage.label(air, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())[1:]
    assert sizes.max() > 0.97 * sizes.sum()
    largest = parts == 1 + int(sizes.argmax())
    for lobe in LOBES:
        assert (largest & chest.lobe(lobe)).sum() > 50, lobe


@pytest.mark.parametrize("tree", ["airways", "arteries", "veins"])
def test_trees_hang_together_and_taper(chest: Anatomy, tree: str) -> None:
    branches = getattr(chest, tree)
    for number, branch in enumerate(branches):
        assert branch.parent < number, "parents come first"
        if branch.parent < 0:
            continue
        parent = branches[branch.parent]
        gap = np.linalg.norm(parent.points_N3 - branch.points_N3[0], axis=1).min()
        assert gap < 14, (number, gap)
        assert branch.generation > parent.generation
        assert branch.radius_N[-1] <= parent.radius_N.max() + 0.01
        assert branch.lobe == parent.lobe or not parent.lobe
    assert {b.lobe for b in branches} == {"", *LOBES}
    assert len({b.generation for b in branches}) > 5
    ends = np.stack([b.points_N3[-1] for b in branches if b.lobe])
    voxel = np.rint(chest.grid.to_voxel(ends)).astype(int)
    inside = ((voxel >= 0) & (voxel < chest.grid.shape)).all(axis=1)
    in_lungs = (chest.lobes_XYZ[tuple(voxel[inside].T)] > 0).mean()
    assert in_lungs > 0.85
    if tree != "airways":
        depth = chest.pleural_depth_XYZ[tuple(voxel[inside].T)]
        assert np.quantile(depth[depth > 0], 0.25) < 14, "they reach the periphery"


def test_depth_under_the_pleura(chest: Anatomy) -> None:
    """Against an exact distance map on all voxels."""
    lungs = chest.structure("lungs")
    exact = ndimage.distance_transform_edt(np.pad(lungs, 1, mode="edge"), chest.grid.spacing_mm)
    exact = exact[1:-1, 1:-1, 1:-1]
    depth = chest.pleural_depth_XYZ
    assert (depth[~lungs] == 0).all()
    assert (depth[lungs] > 0).all()
    assert np.abs(depth - exact)[lungs].mean() < 1.6
    assert np.quantile(np.abs(depth - exact)[lungs], 0.99) < 4


def test_centrelines_lie_in_their_structures(chest: Anatomy) -> None:
    for line, structure in (
        ("trachea", "trachea"),
        ("aorta", "aorta"),
        ("oesophagus", "oesophagus"),
        ("pulmonary trunk", "pulmonary artery"),
        ("superior vena cava", "superior vena cava"),
        ("spine", "spine"),
    ):
        points, _ = chest.centrelines[line].at(np.linspace(0.08, 0.8, 30))
        points = points[chest.grid.contains(points)]
        voxel = np.rint(chest.grid.to_voxel(points)).astype(int)
        assert chest.structure(structure)[tuple(voxel.T)].mean() > 0.7, line
    for line in ("left anterior descending", "circumflex", "right coronary"):
        points, _ = chest.centrelines[line].at(np.linspace(0, 1, 20))
        voxel = np.rint(chest.grid.to_voxel(points)).astype(int)
        assert chest.structure("heart")[tuple(voxel.T)].mean() > 0.7, line


def test_same_chest_twice_and_on_any_orientation(standard: PhantomPlan) -> None:
    lps = build_anatomy(standard, around(standard, (6.0, 6.0, 8.0)))
    again = build_anatomy(standard, around(standard, (6.0, 6.0, 8.0)))
    np.testing.assert_array_equal(lps.hu_XYZ, again.hu_XYZ)
    ras = build_anatomy(standard, around(standard, (6.0, 6.0, 8.0), "RAS"))
    np.testing.assert_allclose(lps.hu_XYZ[::-1, ::-1], ras.hu_XYZ, atol=2)
    sar = build_anatomy(standard, around(standard, (6.0, 6.0, 8.0), "SAR"))
    np.testing.assert_allclose(ras.hu_XYZ, sar.hu_XYZ.transpose(2, 1, 0), atol=2)
    agree = (ras.labels_XYZ == sar.labels_XYZ.transpose(2, 1, 0)).mean()
    assert agree > 0.999


def test_coarse_agrees_with_fine(standard: PhantomPlan, chest: Anatomy) -> None:
    coarse = build_anatomy(standard, around(standard, (4.0, 4.0, 6.0)))
    for name in ("lungs", "liver", "heart", "aorta", "spleen", "spine", "right middle lobe"):
        assert volume_ml(coarse, name) == pytest.approx(volume_ml(chest, name), rel=0.1), name
        assert np.abs(center_mm(coarse, name) - center_mm(chest, name)).max() < 4, name
    x, y, z = coarse.grid.shape
    blocks = chest.hu_XYZ.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))
    assert np.corrcoef(blocks.ravel(), coarse.hu_XYZ.ravel())[0, 1] > 0.99
    assert np.abs(blocks - coarse.hu_XYZ).mean() < 20


def test_a_window_of_a_grid_is_the_window_of_its_chest(standard: PhantomPlan) -> None:
    """Nothing depends on how much of the patient the grid covers."""
    grid = around(standard, (5.0, 5.0, 7.0))
    start, shape = (14, 10, 12), (30, 28, 18)
    whole = build_anatomy(standard, grid)
    part = build_anatomy(standard, grid.window(start, shape))
    block = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    np.testing.assert_allclose(part.hu_XYZ, whole.hu_XYZ[block], atol=3)
    assert (part.labels_XYZ == whole.labels_XYZ[block]).mean() > 0.999


def test_oblique_grids_are_refused(standard: PhantomPlan) -> None:
    affine = np.eye(4)
    affine[:2, :2] = [[0.9, -0.3], [0.3, 0.9]]
    with pytest.raises(ValueError, match="axis-aligned"):
        build_anatomy(standard, Grid((20, 20, 20), affine))


@pytest.mark.parametrize("seed", range(6))
def test_frame_goes_there_and_back(seed: int) -> None:
    frame = Frame.of(plan_patient(np.random.default_rng([seed, 1])))
    points = np.random.default_rng(seed).uniform(-150, 150, (400, 3))
    world = frame.world(points)
    back = np.stack(frame.patient(*world.T), axis=-1)
    np.testing.assert_allclose(back, points, atol=0.01)


_CHANGES: dict[str, object] = {
    "sex": None,  # acts through the other fields, which are drawn after it
    "age_years": 80,
    "scale": (1.1, 0.9, 1.05),
    "fat_mm": 40.0,
    "muscle": 0.6,
    "visceral_fat": 2.0,
    "breast_mm": 45.0,
    "arms": "up",
    "inspiration": 0.2,
    "roll_deg": -12.0,
    "lean_deg": -5.0,
    "pitch_deg": 8.0,
    "scoliosis_mm": 20.0,
    "kyphosis_mm": 18.0,
    "offset_mm": (30.0, -20.0, 10.0),
    "heart_scale": 0.88,
    "heart_turn_deg": 18.0,
    "aorta_scale": 1.3,
    "dome_mm": (18.0, -14.0),
    "lung_hu": -780.0,
    "stomach_fill": 0.95,
    "stomach_gas": 0.95,
    "seed": 1,
}


@pytest.fixture(scope="module")
def small(standard: PhantomPlan) -> tuple[Grid, np.ndarray, PhantomPlan]:
    plan = replace(
        standard,
        patient=replace(standard.patient, arms="down", stomach_fill=0.3, stomach_gas=0.2),
    )
    grid = around(plan, (8.0, 8.0, 10.0))
    return grid, np.array(build_anatomy(plan, grid).hu_XYZ), plan


@pytest.mark.parametrize("name", [f.name for f in fields(PatientPlan)])
def test_every_trait_of_a_person_is_seen(
    small: tuple[Grid, np.ndarray, PhantomPlan], name: str
) -> None:
    grid, before, plan = small
    if name == "sex":
        women = [p for p in map(_person, range(60)) if p.sex == "female"]
        men = [p for p in map(_person, range(60)) if p.sex == "male"]
        assert min(p.breast_mm for p in women) > 0
        assert max(p.breast_mm for p in men) == 0
        assert np.mean([p.scale for p in women]) < np.mean([p.scale for p in men])
        return
    changed = replace(plan, patient=replace(plan.patient, **{name: _CHANGES[name]}))  # type: ignore[arg-type]
    after = build_anatomy(changed, grid).hu_XYZ
    assert (np.abs(after - before) > 5).mean() > 1e-4


def _person(seed: int) -> PatientPlan:
    return plan_patient(np.random.default_rng([seed, 1]))


def test_cardiomegaly_enlarges_the_heart(standard: PhantomPlan) -> None:
    from simcrop_core.phantoms.plan import FindingPlan

    grid = around(standard, (7.0, 7.0, 9.0))
    sizes = [volume_ml(build_anatomy(standard, grid), "heart")]
    for severity in ("mild", "severe"):
        found = FindingPlan("Cardiomegaly", severity=severity)  # type: ignore[arg-type]
        sizes.append(volume_ml(build_anatomy(replace(standard, findings=(found,)), grid), "heart"))
    assert sizes == sorted(sizes)
    assert sizes[-1] > 1.5 * sizes[0]


# -- plans ----------------------------------------------------------------------------------------


def test_plans_are_functions_of_their_seed() -> None:
    assert plan_phantom(11) == plan_phantom(11)
    assert plan_phantom(11).patient != plan_phantom(12).patient
    plan = plan_phantom(11)
    assert plan.patient == _person(11), "whatever the findings are"


def test_plans_vary_more_than_scans_do() -> None:
    plans = [healthy(seed) for seed in range(300)]
    scans = [p.scanner for p in plans]
    assert {s.contrast for s in scans} == {"none", "venous", "arterial", "pulmonary"}
    assert {s.kernel for s in scans} == {"soft", "standard", "sharp"}
    assert {s.couch_kind for s in scans} == {"none", "flat", "curved"}
    assert len({s.orientation for s in scans}) >= 5
    assert {p.patient.arms for p in plans} == {"up", "down"}
    width = np.array([s.shape[0] * s.spacing_mm[0] for s in scans])
    assert width.min() < 320
    assert width.max() > 500
    slices = np.array([s.spacing_mm[2] for s in scans])
    assert slices.min() <= 1
    assert slices.max() >= 4
    low = np.array(
        [s.grid.bounds_mm()[0] - p.patient.offset_mm for s, p in zip(scans, plans, strict=True)]
    )
    high = np.array(
        [s.grid.bounds_mm()[1] - p.patient.offset_mm for s, p in zip(scans, plans, strict=True)]
    )
    z_scale = np.array([p.patient.scale[2] for p in plans])
    cut = (low[:, 2] > -195 * z_scale) | (high[:, 2] < 95 * z_scale)
    assert 0.1 < cut.mean() < 0.5, "some scans leave out a part of the lungs"
    assert np.ptp([p.patient.roll_deg for p in plans]) > 20
    padded = np.mean([s.padding_hu is not None for s in scans])
    assert 0.3 < padded < 0.6
    for field in fields(ScannerPlan):
        assert len({getattr(s, field.name) for s in scans}) > 1, field.name


# -- scanner --------------------------------------------------------------------------------------


def _water(shape: tuple[int, int, int] = (128, 128, 12)) -> np.ndarray:
    """A cylinder of water in air, as scans see one."""
    x, y = np.meshgrid(*(np.arange(n) - n / 2 for n in shape[:2]), indexing="ij")
    disc = np.where(np.hypot(x, y) < 0.42 * shape[0], 0.0, -1000.0)
    return np.repeat(disc[..., None], shape[2], 2).astype(np.float32)


def _noise_of(standard: PhantomPlan, **scanner: object) -> np.ndarray:
    plan = replace(standard, scanner=replace(standard.scanner, hu_shift=0.0, **scanner))  # type: ignore[arg-type]
    grid = Grid(
        (128, 128, 12),
        axis_aligned_affine("LPS", (1, 1, 1), plan.scanner.center_mm, (128, 128, 12)),
    )
    return scan(_water(), plan, grid)[44:84, 44:84].astype(float)


def test_noise_has_the_planned_strength_and_kernel(standard: PhantomPlan) -> None:
    def neighbours(block: np.ndarray) -> float:
        return float(np.corrcoef(block[1:].ravel(), block[:-1].ravel())[0, 1])

    quiet = _noise_of(standard, noise_hu=8.0, kernel="soft", thickness_mm=1.0)
    loud = _noise_of(standard, noise_hu=24.0, kernel="soft", thickness_mm=1.0)
    assert loud.std() == pytest.approx(3 * quiet.std(), rel=0.1)
    assert abs(quiet.mean()) < 2
    sharp = _noise_of(standard, noise_hu=24.0, kernel="sharp", thickness_mm=1.0)
    assert neighbours(loud) > neighbours(sharp) + 0.1
    along = np.corrcoef(loud[..., 1:].ravel(), loud[..., :-1].ravel())[0, 1]
    assert abs(along) < 0.2, "slices have noise of their own"


def test_kernel_and_thickness_blur_edges(standard: PhantomPlan) -> None:
    edge = np.zeros((40, 40, 20), np.float32)
    edge[20:] = 1000
    edge[:, :, 10:] -= 500
    grid = Grid(
        edge.shape,
        axis_aligned_affine("RAS", (0.6, 0.6, 1.0), standard.scanner.center_mm, edge.shape),
    )

    def scanned(**scanner: object) -> np.ndarray:
        plan = replace(
            standard, scanner=replace(standard.scanner, hu_shift=0, noise_hu=0, **scanner)
        )  # type: ignore[arg-type]
        return scan(edge, plan, grid).astype(float)

    soft, sharp = (
        scanned(kernel="soft", thickness_mm=1.0),
        scanned(kernel="sharp", thickness_mm=1.0),
    )
    assert soft[20, 20, 3] < sharp[20, 20, 3] < 1000
    thick = scanned(kernel="sharp", thickness_mm=5.0)
    np.testing.assert_allclose(thick[30, 20, 7:13], [1000, 900, 800, 700, 600, 500], atol=2)
    shifted = replace(standard.scanner, hu_shift=5.0, noise_hu=0.0, thickness_mm=1.0)
    water = scan(
        np.zeros((9, 9, 9), np.float32),
        replace(standard, scanner=shifted),
        grid.window((4, 4, 4), (9, 9, 9)),
    )
    assert (water == 5).all()


def test_field_of_view_and_padding(standard: PhantomPlan) -> None:
    scanner = replace(
        standard.scanner,
        shape=(70, 70, 20),
        spacing_mm=(5.0, 5.0, 7.0),
        orientation="LPS",
        center_mm=tuple(np.array(standard.patient.offset_mm) + np.array((0, 0, -70))),
        padding_hu=-2000,
    )
    plan = replace(standard, scanner=scanner)
    own = render(plan)
    hu = np.asarray(own.volume.hu_XYZ)
    assert own.volume.grid.matches(scanner.grid)
    assert hu.dtype == np.int16
    assert (hu[0, 0] == -2000).all()
    assert hu[35, 35].min() > -1025
    assert (own.structures_XYZ[0, 0] == 0).all()
    seen = field_of_view(plan, scanner.grid)
    assert seen.mean() == pytest.approx(np.pi / 4, abs=0.02)
    grid = Grid(
        (60, 60, 40), axis_aligned_affine("LPS", (7, 7, 7), scanner.center_mm, (60, 60, 40))
    )
    other = render(plan, grid)
    outside = ~field_of_view(plan, grid)
    assert outside.any()
    assert (np.asarray(other.volume.hu_XYZ)[outside] == -1000).all(), "air, as prepare pads"
    assert (other.structures_XYZ[outside] == 0).all()
    assert other.structures_XYZ.any()
    assert any(note.code == "artificial" for note in other.volume.notes)


def test_table_lies_under_the_back(chest: Anatomy) -> None:
    couch, body = chest.structure("couch"), chest.structure("body")
    y = np.broadcast_to(chest.y, chest.grid.shape)
    central = np.broadcast_to(np.abs(chest.x - chest.frame.offset_mm[0]) < 60, chest.grid.shape)
    assert y[couch & central].max() < y[body & central].min() + 3
    assert not (couch & body).any()


def test_render_is_the_same_twice() -> None:
    plan = plan_phantom(3)
    grid = around(plan, (8.0, 8.0, 12.0))
    first, second = render(plan, grid), render(plan, grid)
    np.testing.assert_array_equal(first.volume.hu_XYZ, second.volume.hu_XYZ)
    np.testing.assert_array_equal(first.structures_XYZ, second.structures_XYZ)
    assert len(first.finding_masks) == len(plan.findings)


@pytest.mark.parametrize("seed", [4, 6, 8, 13])  # among them the widest of the healthy hearts
def test_an_enlarged_heart_is_wider_than_half_the_chest_and_a_normal_one_is_not(seed: int) -> None:
    from simcrop_core.phantoms.plan import FindingPlan

    plan = replace(plan_phantom(seed), findings=())
    grid = around(plan, (2.5, 5.0, 5.0))

    def ratio(severity: str | None) -> float:
        found = (FindingPlan("Cardiomegaly", severity=severity),) if severity else ()  # type: ignore[arg-type]
        chest = build_anatomy(replace(plan, findings=found), grid)
        heart, lungs = (
            np.ptp(np.flatnonzero(chest.structure(name).any(axis=(1, 2)))) + 1
            for name in ("heart", "lungs")
        )
        return float(heart / lungs)

    normal, mild, severe = ratio(None), ratio("mild"), ratio("severe")
    assert normal < 0.5 < mild < severe
    assert mild > normal + 0.03
