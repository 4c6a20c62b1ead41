"""The 18 findings: planned as often as they should be, drawn where and as large as planned."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from simcrop_core.geometry import Grid
from simcrop_core.phantoms.anatomy import Anatomy
from simcrop_core.phantoms.anatomy_build import build_anatomy
from simcrop_core.phantoms.anatomy_labels import LABELS, LOBES
from simcrop_core.phantoms.findings import draw_finding, plan_findings
from simcrop_core.phantoms.findings_choice import LUNG_LOBES
from simcrop_core.phantoms.findings_shapes import (
    LATTICE,
    lobule_walls,
    make_lump,
    smooth_line,
    thin_sheet_share,
)
from simcrop_core.phantoms.plan import (
    FindingPlan,
    PhantomPlan,
    plan_patient,
    plan_phantom,
    plan_scanner,
)
from simcrop_core.statements import FINDINGS

SPACING = (3.0, 3.0, 4.0)
# Findings whose masks show the organ or the spread of a pattern, not every voxel they change.
SPREAD = {"Cardiomegaly"}


@cache
def plans() -> list[tuple[FindingPlan, ...]]:
    made = []
    for seed in range(500):
        patient = plan_patient(np.random.default_rng([seed, 1]))
        made.append(plan_findings(np.random.default_rng([seed, 3]), patient))
    return made


def grid_round(patient_offset: tuple[float, ...], spacing: tuple[float, ...] = SPACING) -> Grid:
    """A grid in LPS order that holds the whole chest."""
    extent = np.array([345.0, 260.0, 350.0])
    shape = tuple(int(n) for n in np.ceil(extent / spacing))
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    middle = np.array(patient_offset) + np.array([0, -6, -62])
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def plan_of(seed: int, *findings: FindingPlan) -> PhantomPlan:
    """A patient of middle size who is wholly in the scanner's field."""
    patient = plan_patient(np.random.default_rng([seed, 1]))
    patient = replace(patient, scale=(1.0, 1.0, 1.0), roll_deg=0.0, lean_deg=0.0)
    scanner = plan_scanner(np.random.default_rng([seed, 2]), patient)
    grid = grid_round(patient.offset_mm)
    scanner = replace(
        scanner,
        contrast="none",
        shape=(180, 180, 130),
        spacing_mm=(3.0, 3.0, 4.0),
        center_mm=tuple(float(c) for c in grid.center_mm),
    )
    return PhantomPlan(seed, patient, scanner, findings)


@cache
def healthy(seed: int, spacing: tuple[float, ...] = SPACING) -> Anatomy:
    plan = plan_of(seed)
    return build_anatomy(plan, grid_round(plan.patient.offset_mm, spacing))


def fresh(seed: int = 4, spacing: tuple[float, ...] = SPACING) -> Anatomy:
    """A chest to draw into, the same each time."""
    chest = healthy(seed, spacing)
    return replace(
        chest,
        hu_XYZ=chest.hu_XYZ.copy("K"),
        labels_XYZ=chest.labels_XYZ.copy("K"),
        lobes_XYZ=chest.lobes_XYZ.copy("K"),
    )


def examples(name: str, number: int) -> list[FindingPlan]:
    """Plans of a finding that differ in kind, from the phantoms of many seeds."""
    found: dict[str, FindingPlan] = {}
    for findings in plans():
        for finding in findings:
            kind = ",".join(finding.attributes.values())
            key = f"{kind} {finding.side == 'both'}"
            passive = finding.attributes.get("type") == "passive"
            if finding.name == name and not passive and key not in found:
                found[key] = finding
    return list(found.values())[:number]


def drawn(finding: FindingPlan, seed: int = 4) -> tuple[Anatomy, Anatomy, np.ndarray]:
    chest = fresh(seed)
    return healthy(seed), chest, draw_finding(chest, finding)


def right_of_midline(chest: Anatomy) -> np.ndarray:
    return chest.right_of_midline_XYZ


# Plans


def test_each_finding_is_common_enough_to_learn_and_rare_enough_to_miss() -> None:
    count = Counter(name for p in plans() for name in {f.name for f in p})
    assert set(count) == set(FINDINGS)
    share = {name: count[name] / len(plans()) for name in FINDINGS}
    assert all(0.09 <= s <= 0.4 for s in share.values()), share
    healthy_share = np.mean([not p for p in plans()])
    assert 0.05 < healthy_share < 0.15


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Pleural effusion", "Atelectasis"),
        ("Arterial wall calcification", "Coronary artery wall calcification"),
        ("Emphysema", "Peribronchial thickening"),
        ("Cardiomegaly", "Interlobular septal thickening"),
        ("Consolidation", "Lung opacity"),
    ],
)
def test_findings_of_one_cause_come_together(one: str, other: str) -> None:
    names = [{f.name for f in p} for p in plans()]
    with_it = np.mean([other in n for n in names if one in n])
    without = np.mean([other in n for n in names if one not in n])
    assert with_it > 1.3 * without


def test_old_arteries_are_calcified_more_often() -> None:
    patients = [plan_patient(np.random.default_rng([seed, 1])) for seed in range(500)]
    calcified = [any(f.name == "Arterial wall calcification" for f in p) for p in plans()]
    old = np.mean([c for c, p in zip(calcified, patients, strict=True) if p.age_years > 65])
    young = np.mean([c for c, p in zip(calcified, patients, strict=True) if p.age_years < 45])
    assert old > 2 * young


def test_side_and_level_follow_the_lobe() -> None:
    lobes = Counter()
    for finding in (f for p in plans() for f in p if f.lobe):
        assert finding.lobe in LUNG_LOBES
        assert finding.side == ("right" if finding.lobe.startswith("right") else "left")
        middle = finding.lobe in ("lingula", "right middle lobe")
        assert (finding.level == "middle") == middle
        lobes[finding.lobe] += 1
    assert set(lobes) == set(LUNG_LOBES)


def test_nothing_is_planned_in_a_lobe_without_air() -> None:
    checked = 0
    for findings in plans():
        gone: set[str] = set()
        for finding in findings:
            kind = finding.attributes.get("type")
            if finding.name in FINDINGS[7:] and kind != "passive" and finding.lobe:
                assert finding.lobe not in gone, finding
                checked += bool(gone)
            if "lobar" in (kind, finding.attributes.get("extent")):
                gone.add(finding.lobe)
                if finding.lobe == "left upper lobe":
                    gone.add("lingula")
            if gone and finding.side == "both" and finding.level in ("upper", "lower"):
                assert not {f"{side} {finding.level} lobe" for side in ("left", "right")} & gone
    assert checked > 10


def test_the_same_seed_gives_the_same_plan_and_other_seeds_others() -> None:
    patient = plan_patient(np.random.default_rng(3))
    first, again = (plan_findings(np.random.default_rng(8), patient) for _ in range(2))
    assert first == again
    assert len({f.seed for p in plans() for f in p}) > 0.99 * sum(map(len, plans()))


# Drawing

# Median of the mask's grey values, and the sign of the mean change.
LOOKS: dict[str, tuple[int, float, float]] = {
    "Arterial wall calcification": (1, 130, 1400),
    "Pericardial effusion": (0, -120, 40),
    "Coronary artery wall calcification": (1, 100, 1300),
    "Hiatal hernia": (0, -960, 60),
    "Lymphadenopathy": (1, -60, 60),
    "Emphysema": (-1, -1010, -870),
    "Atelectasis": (1, -420, 80),
    "Lung nodule": (1, -700, 800),
    "Lung opacity": (1, -780, -250),
    "Pulmonary fibrotic sequela": (1, -820, 80),
    "Pleural effusion": (1, -30, 30),
    "Mosaic attenuation pattern": (0, -950, -650),
    "Peribronchial thickening": (1, -750, 60),
    "Consolidation": (1, -150, 80),
    "Bronchiectasis": (0, -950, -200),
    "Interlobular septal thickening": (1, -860, -250),
}


@pytest.mark.parametrize("name", [n for n in FINDINGS if n not in SPREAD])
def test_a_finding_is_drawn_as_it_looks_on_its_side_and_nowhere_else(name: str) -> None:
    for finding in examples(name, 11 if name == "Medical material" else 4):
        before, after, mask = drawn(finding)
        assert mask.shape == after.grid.shape
        assert mask.dtype == bool
        assert mask.any(), finding
        change = after.hu_XYZ - before.hu_XYZ
        if name == "Medical material":
            # The stripe or wire of every device is denser than any soft tissue.
            assert after.hu_XYZ[mask].max() > 250, finding
        else:
            sign, low, high = LOOKS[name]
            assert low <= np.median(after.hu_XYZ[mask]) <= high, finding
            assert not sign or np.sign(change[mask].mean()) == sign, finding
        assert np.abs(change[mask]).mean() > 10
        if finding.attributes.get("type") != "lobar":  # its neighbour fills the room it leaves
            touched = np.abs(change) > 1
            far = touched & ~_near(mask, after.grid, 17.0)
            assert far.sum() <= 0.02 * touched.sum(), finding
        _check_side(finding, after, mask)


def _near(mask: np.ndarray, grid: Grid, reach_mm: float) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask, sampling=grid.spacing_mm) <= reach_mm)


def _check_side(finding: FindingPlan, chest: Anatomy, mask: np.ndarray) -> None:
    right = right_of_midline(chest)[mask].mean()
    devices = finding.name == "Medical material"  # a lead crosses the midline to the heart
    least = 0.3 if devices else 0.93
    if finding.side == "right":
        assert right > least, finding
    elif finding.side == "left":
        assert right < 1 - least, finding
    elif finding.side == "both":
        assert 0.02 < right < 0.98, finding


@pytest.mark.parametrize(
    ("device", "x_sign"), [("pacemaker", -1), ("port catheter", 1), ("pacemaker", 1)]
)
def test_the_box_of_a_device_lies_in_front_of_its_own_side(device: str, x_sign: int) -> None:
    side = "right" if x_sign > 0 else "left"
    finding = FindingPlan(
        "Medical material", side=side, attributes={"device": device, "leads": "2"}, seed=5
    )
    _, chest, mask = drawn(finding)
    metal = mask & (chest.hu_XYZ > 2000)
    x, y, _ = np.moveaxis(chest.grid.to_world(np.argwhere(metal)), -1, 0)
    carina = chest.landmarks["carina"]
    assert x_sign * (np.median(x) - carina[0]) > 40
    assert np.median(y) > carina[1] + 25


@pytest.mark.parametrize("lobe", LUNG_LOBES)
def test_a_nodule_lies_in_its_lobe(lobe: str) -> None:
    finding = FindingPlan(
        "Lung nodule",
        side="right" if lobe.startswith("right") else "left",
        lobe=lobe,
        size_mm=12.0,
        attributes={"texture": "solid", "margin": "smooth", "location": "parenchymal"},
        seed=7,
    )
    before, _, mask = drawn(finding)
    here = "left upper lobe" if lobe == "lingula" else lobe
    lobes = before.lobes_XYZ[mask]
    assert (lobes == LOBES.index(here) + 1).mean() > 0.8
    assert (lobes > 0).all()
    height = (
        np.median(before.grid.to_world(np.argwhere(mask))[:, 2]) - before.landmarks["carina"][2]
    )
    if lobe == "lingula":
        assert height < -25
    if lobe == "left upper lobe":
        assert height > -40


@pytest.mark.parametrize("level", ["upper", "middle", "lower"])
@pytest.mark.parametrize("name", ["Emphysema", "Mosaic attenuation pattern", "Bronchiectasis"])
def test_a_spread_finding_keeps_to_its_level(name: str, level: str) -> None:
    finding = FindingPlan(
        name,
        side="both",
        level=level,
        severity="moderate",
        attributes={
            "type": {"Emphysema": "centrilobular", "Bronchiectasis": "cylindrical"}.get(name, "")
        },
        seed=3,
    )
    before, _, mask = drawn(finding)
    lobes = np.array(["", *LOBES])[before.lobes_XYZ[mask]]
    allowed = {
        "upper": ("right upper lobe", "left upper lobe"),
        "middle": ("right middle lobe", "left upper lobe"),
        "lower": ("right lower lobe", "left lower lobe"),
    }[level]
    assert np.isin(lobes, allowed).mean() > 0.99


# Sizes


def longest_diameter(mask: np.ndarray, grid: Grid) -> float:
    points = grid.to_world(np.argwhere(mask))
    hull = points[ConvexHull(points).vertices]
    return float(pdist(hull).max())


@pytest.mark.parametrize("margin", ["smooth", "lobulated", "spiculated"])
@pytest.mark.parametrize("size", [9.0, 17.0, 28.0, 45.0])
def test_a_nodule_is_as_large_as_planned(size: float, margin: str) -> None:
    spacing = (1.8, 1.8, 2.0)
    chest = fresh(4, spacing)
    finding = FindingPlan(
        "Lung nodule",
        side="right",
        lobe="right lower lobe" if size < 40 else "right upper lobe",
        size_mm=size,
        attributes={"texture": "solid", "margin": margin, "location": "parenchymal"},
        seed=int(size),
    )
    mask = draw_finding(chest, finding)
    # Centres of voxels: the body reaches half a voxel farther at either end.
    found = longest_diameter(mask, chest.grid) + float(np.mean(spacing))
    assert abs(found - size) <= max(float(max(spacing)), 0.1 * size)


def test_a_lump_has_the_longest_diameter_it_is_asked_for() -> None:
    lump = make_lump(np.random.default_rng(2), (0, 0, 0), 20.0, lobulation=0.4)
    rng = np.random.default_rng(3)
    rays = rng.standard_normal((3000, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    surface = rays * lump.radius(rays)[:, None]
    assert pdist(surface).max() == pytest.approx(20.0, rel=0.03)


@pytest.mark.parametrize("size", [15.0, 32.0, 55.0])
@pytest.mark.parametrize("side", ["left", "right"])
def test_free_fluid_is_as_thick_as_planned_and_lies_on_the_back(side: str, size: float) -> None:
    finding = FindingPlan(
        "Pleural effusion", side=side, size_mm=size, attributes={"type": "free"}, seed=1
    )
    before, after, mask = drawn(finding)
    lung = before.lung(side)
    y = np.broadcast_to(before.y, mask.shape)
    # From the back wall of the lung to the front of the fluid, along every line front to back.
    back = np.where(lung, y, np.inf).min(axis=1, keepdims=True)
    thickness = float((y - back)[mask].max()) + SPACING[1]
    assert thickness == pytest.approx(size, abs=2 * SPACING[1])
    assert y[mask].mean() < y[lung & ~mask].mean() - 15
    # Along each such line all fluid lies behind all air.
    front_of_fluid = np.where(mask, y, -np.inf).max(axis=1)
    back_of_air = np.where(lung & ~mask, y, np.inf).min(axis=1)
    wet = mask.any(axis=1)
    assert (front_of_fluid < back_of_air)[wet].mean() > 0.9
    assert (after.labels_XYZ[mask] == LABELS["pleural fluid"]).all()
    assert not after.lobes_XYZ[mask].any()


def test_passive_atelectasis_lies_on_the_fluid_and_needs_it() -> None:
    fluid = FindingPlan(
        "Pleural effusion", side="left", size_mm=30.0, attributes={"type": "free"}, seed=1
    )
    collapse = FindingPlan(
        "Atelectasis",
        side="left",
        lobe="left lower lobe",
        size_mm=12.0,
        attributes={"type": "passive"},
        seed=2,
    )
    chest = fresh()
    wet = draw_finding(chest, fluid)
    airless = draw_finding(chest, collapse)
    assert airless.any()
    assert not (wet & airless).any()
    assert _near(wet, chest.grid, 16.0)[airless].mean() > 0.9
    assert not draw_finding(fresh(), collapse).any()


@pytest.mark.parametrize("size", [8.0, 20.0])
def test_pericardial_fluid_is_as_thick_as_planned(size: float) -> None:
    finding = FindingPlan(
        "Pericardial effusion", size_mm=size, attributes={"extent": "circumferential"}, seed=1
    )
    before, after, mask = drawn(finding)
    from scipy.ndimage import distance_transform_edt

    away = distance_transform_edt(~before.structure("heart"), sampling=before.grid.spacing_mm)
    assert away[mask].max() == pytest.approx(size, abs=1.3 * SPACING[2])
    assert not (mask & before.structure("heart")).any()
    assert (after.labels_XYZ[mask] == LABELS["pericardial fluid"]).all()


def test_nodes_have_the_planned_short_axis() -> None:
    widths = []
    for station in ("right lower paratracheal", "subcarinal", "right axillary", "left hilar"):
        finding = FindingPlan(
            "Lymphadenopathy", size_mm=18.0, attributes={"station": station}, seed=4
        )
        _, chest, mask = drawn(finding)
        points = chest.grid.to_world(np.argwhere(mask))
        spread = np.linalg.eigvalsh(np.cov(points.T))
        widths.append(2 * np.sqrt(5 * spread[0]))  # of an even ellipsoid
    assert np.median(widths) == pytest.approx(18.0, rel=0.25)


def test_cardiomegaly_is_a_larger_heart() -> None:
    finding = FindingPlan("Cardiomegaly", severity="moderate", seed=1)
    plan = plan_of(4, finding)
    chest = build_anatomy(plan, grid_round(plan.patient.offset_mm))
    mask = draw_finding(chest, finding)
    assert np.array_equal(mask, chest.structure("heart"))
    assert mask.sum() > 1.2 * healthy(4).structure("heart").sum()


# Together


def test_drawing_is_deterministic() -> None:
    findings = next(p for p in plans() if len({f.name for f in p}) >= 6)
    first, second = fresh(), fresh()
    for finding in findings:
        assert np.array_equal(draw_finding(first, finding), draw_finding(second, finding))
    assert np.array_equal(first.hu_XYZ, second.hu_XYZ)
    assert np.array_equal(first.labels_XYZ, second.labels_XYZ)


def test_later_findings_leave_the_dense_ones_as_they_are() -> None:
    solid = FindingPlan(
        "Consolidation",
        side="right",
        lobe="right lower lobe",
        size_mm=50.0,
        attributes={"extent": "segmental", "air bronchogram": "no"},
        seed=3,
    )
    later = [
        FindingPlan("Emphysema", side="both", severity="severe", attributes={"type": kind}, seed=4)
        for kind in ("centrilobular", "paraseptal", "panlobular")
    ]
    later.append(FindingPlan("Mosaic attenuation pattern", side="both", seed=6))
    chest = fresh()
    mask = draw_finding(chest, solid)
    hu = chest.hu_XYZ[mask].copy()
    for finding in later:
        assert not (draw_finding(chest, finding) & mask).any()
    assert np.array_equal(chest.hu_XYZ[mask], hu)


def test_a_finding_lies_in_the_same_place_on_another_grid() -> None:
    finding = FindingPlan(
        "Lung nodule",
        side="left",
        lobe="left lower lobe",
        size_mm=20.0,
        attributes={"texture": "solid", "margin": "smooth", "location": "parenchymal"},
        seed=11,
    )
    centers = []
    for spacing in (SPACING, (1.8, 1.8, 2.0)):
        chest = fresh(4, spacing)
        mask = draw_finding(chest, finding)
        centers.append(chest.grid.to_world(np.argwhere(mask)).mean(axis=0))
    assert np.linalg.norm(centers[0] - centers[1]) < 3.0


def test_what_the_scanner_does_not_see_is_not_in_the_mask() -> None:
    plan = plan_of(4)
    carina = plan.patient.offset_mm[2]
    upper = replace(
        plan.scanner,
        center_mm=(*plan.scanner.center_mm[:2], carina + 60.0),
        shape=(*plan.scanner.shape[:2], 30),
    )
    chest = replace(fresh(), plan=replace(plan, scanner=upper))
    bottom = carina + 60.0 - 4.0 * 15
    everywhere = FindingPlan("Mosaic attenuation pattern", side="both", seed=2)
    mask = draw_finding(chest, everywhere)
    assert mask.any()
    assert chest.grid.to_world(np.argwhere(mask))[:, 2].min() >= bottom
    out_of_it = FindingPlan(
        "Hiatal hernia", size_mm=30.0, attributes={"content": "stomach"}, seed=2
    )
    assert not draw_finding(chest, out_of_it).any()


def test_any_order_and_direction_of_axes_gives_the_same_finding() -> None:
    finding = next(iter(examples("Consolidation", 1)))
    plan = plan_of(4)
    grid = grid_round(plan.patient.offset_mm)
    turned = Grid(
        (grid.shape[2], grid.shape[0], grid.shape[1]),
        grid.affine[:, [2, 0, 1, 3]],
    )
    mask = draw_finding(build_anatomy(plan, turned), finding)
    straight = draw_finding(fresh(), finding)
    assert np.array_equal(mask.transpose(1, 2, 0), straight)


def test_whole_phantoms_are_drawn_with_nearly_every_finding_seen() -> None:
    seen = planned = 0
    for seed in (0, 3):
        plan = plan_phantom(seed)
        chest = build_anatomy(plan, grid_round(plan.patient.offset_mm, (4.5, 4.5, 7.0)))
        for finding in plan.findings:
            seen += draw_finding(chest, finding).any()
            planned += 1
        assert np.isfinite(chest.hu_XYZ).all()
        assert chest.hu_XYZ.max() <= 3071
    assert seen >= 0.8 * planned


# Shapes


def test_a_thin_sheet_fills_its_thickness_however_wide_the_voxel() -> None:
    from simcrop_core.phantoms.findings_shapes import Box

    line = np.arange(-20, 20, 2.0, dtype=np.float32) + 0.37
    box = Box(
        (slice(0, 1), slice(0, 1), slice(0, 20)),
        line[None, None, :],
        np.zeros((1, 1, 1), np.float32),
        np.zeros((1, 1, 1), np.float32),
        (2.0, 2.0, 2.0),
    )
    for half in (0.3, 0.8, 2.5):
        part, _ = thin_sheet_share(box.x, half, box)
        assert part.sum() * 2.0 == pytest.approx(2 * half, rel=1e-4)


def test_walls_of_lobules_lie_between_the_two_nearest_seeds() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(20, 120, (400, 3)).astype(np.float32)
    size, seed = 15.0, 9
    jitter = np.random.default_rng(seed).uniform(0.2, 0.8, (3, LATTICE**3))
    cells = np.stack(np.meshgrid(*[np.arange(LATTICE)] * 3, indexing="ij"), -1).reshape(-1, 3)
    seeds = (cells + jitter.T) * size
    away = np.sort(((points[:, None] - seeds) ** 2).sum(-1), axis=1)
    expected = (away[:, 1] - away[:, 0]) / (2 * size)
    # Seeds beyond the eight nearest cells may be nearer in a few corners.
    assert np.mean(np.isclose(lobule_walls(points, size, seed), expected, atol=1e-2)) > 0.9


def test_a_smooth_line_passes_through_its_points() -> None:
    knots = np.array([(0, 0, 0), (10, 5, 0), (20, 0, 8), (35, -4, 8)], float)
    line = smooth_line(knots, 0.2)
    gaps = np.linalg.norm(line[:, None] - knots, axis=2).min(axis=0)
    assert gaps.max() < 0.15
