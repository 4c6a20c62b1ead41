"""What is drawn at random for a phantom, decided before a voxel is computed.

Each part draws from a stream of its own, so that changing one (another finding, another scanner)
leaves the others as they were. Axes and signs are the project's: RAS+ millimetres, so +x is the
patient's right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.statements import Level, Side

#: Numbers of the streams: ``np.random.default_rng([seed, STREAM_...])``.
STREAM_PATIENT, STREAM_SCANNER, STREAM_FINDINGS, STREAM_ANATOMY, STREAM_NOISE = range(1, 6)

Sex = Literal["female", "male"]
Arms = Literal["up", "down"]
Kernel = Literal["soft", "standard", "sharp"]
Contrast = Literal["none", "venous", "arterial", "pulmonary"]


@dataclass(frozen=True, slots=True)
class PatientPlan:
    """A person, and how they lie on the couch.

    Attributes
    ----------
    sex, age_years
        Age sets bone density, the aorta's width and its winding.
    scale
        Size against the standard adult chest along right-left, front-back and head-foot.
    fat_mm
        Thickness of the subcutaneous fat at the side of the chest.
    muscle
        Bulk of the muscles against the standard.
    visceral_fat
        Fat of mediastinum and abdomen against the standard.
    breast_mm
        How far a breast rises above the chest wall; 0 in men.
    arms
        Beside the head or beside the body.
    inspiration
        1 full breath, 0 resting end of expiration: height of the diaphragm, density of the lungs.
    roll_deg, lean_deg, pitch_deg
        Turn about the long axis; lean to the side; lie with the head higher.
    scoliosis_mm, kyphosis_mm
        Sideways and forward bow of the spine beyond the standard.
    offset_mm
        RAS millimetres of the carina.
    heart_scale, heart_turn_deg
        Size of the heart against the standard; how far it hangs upright (+) or lies across (-).
    aorta_scale
        Width of the aorta against the standard.
    dome_mm
        Height of the right and of the left dome of the diaphragm beyond the standard.
    lung_hu
        Density of the lungs at mid height.
    stomach_fill
        0 empty and flat, 1 full.
    stomach_gas
        Share of the stomach that is gas.
    seed
        Of all small variations: warps, trees, textures.
    """

    sex: Sex
    age_years: int
    scale: tuple[float, float, float]
    fat_mm: float
    muscle: float
    visceral_fat: float
    breast_mm: float
    arms: Arms
    inspiration: float
    roll_deg: float
    lean_deg: float
    pitch_deg: float
    scoliosis_mm: float
    kyphosis_mm: float
    offset_mm: tuple[float, float, float]
    heart_scale: float
    heart_turn_deg: float
    aorta_scale: float
    dome_mm: tuple[float, float]
    lung_hu: float
    stomach_fill: float
    stomach_gas: float
    seed: int


@dataclass(frozen=True, slots=True)
class ScannerPlan:
    """A scanner, its table, and the reconstruction.

    Attributes
    ----------
    shape, spacing_mm, orientation, center_mm
        The scan's own grid; see :attr:`grid`.
    thickness_mm
        Slice thickness: how far a slice blurs along the body.
    padding_hu
        Value outside the circle of reconstruction, or None where the image is square.
    couch_gap_mm, couch_kind
        Table: gap between back and table top; ``"none"``, ``"flat"`` or ``"curved"``.
    kernel, noise_hu
        Reconstruction kernel; standard deviation of the noise in the middle of the body.
    contrast
        Phase of the contrast agent.
    contrast_hu
        How strongly it was given, against the standard.
    blood_hu
        Blood without contrast.
    hu_shift
        Error of the scanner's calibration on water.
    seed
        Of the noise.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    center_mm: tuple[float, float, float]
    thickness_mm: float
    padding_hu: int | None
    couch_gap_mm: float
    couch_kind: Literal["none", "flat", "curved"]
    kernel: Kernel
    noise_hu: float
    contrast: Contrast
    contrast_hu: float
    blood_hu: float
    hu_shift: float
    seed: int

    @property
    def grid(self) -> Grid:
        """The scan's own grid."""
        affine = axis_aligned_affine(self.orientation, self.spacing_mm, self.center_mm, self.shape)
        return Grid(self.shape, affine)


@dataclass(frozen=True, slots=True)
class FindingPlan:
    """One finding, before it is drawn.

    ``name`` is one of :data:`~simcrop_core.statements.FINDINGS`; ``lobe`` is text such as
    ``"right upper lobe"`` or empty; ``size_mm`` None where it has none.
    """

    name: str
    side: Side = "any"
    level: Level = "any"
    lobe: str = ""
    size_mm: float | None = None
    count: int = 1
    severity: Literal["mild", "moderate", "severe"] = "mild"
    attributes: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PhantomPlan:
    """A whole phantom."""

    seed: int
    patient: PatientPlan
    scanner: ScannerPlan
    findings: tuple[FindingPlan, ...] = ()


def plan_phantom(seed: int) -> PhantomPlan:
    """All that is drawn at random for the phantom of this seed (0 or more)."""
    from simcrop_core.phantoms.findings import plan_findings  # findings need the plan's types

    patient = plan_patient(np.random.default_rng([seed, STREAM_PATIENT]))
    scanner = plan_scanner(np.random.default_rng([seed, STREAM_SCANNER]), patient)
    findings = plan_findings(np.random.default_rng([seed, STREAM_FINDINGS]), patient)
    return PhantomPlan(seed, patient, scanner, tuple(findings))


def _normal(
    rng: np.random.Generator, mean: float, deviation: float, low: float, high: float
) -> float:
    return float(np.clip(rng.normal(mean, deviation), low, high))


def plan_patient(rng: np.random.Generator) -> PatientPlan:
    """Draw a person: wider than a clinic's range, so that models carry over."""
    sex: Sex = "female" if rng.random() < 0.48 else "male"
    female = sex == "female"
    age = int(rng.integers(20, 91))
    size = 0.93 if female else 1.03
    scale = tuple(
        float(size * s) for s in np.exp(rng.normal(0, (0.055, 0.075, 0.06))).clip(0.82, 1.2)
    )
    fat = float(np.clip(rng.lognormal(np.log(17 if female else 13), 0.5), 3, 55))
    breast = float(rng.uniform(8, 50) * (0.6 + fat / 40)) if female else 0.0
    arms: Arms = "up" if rng.random() < 0.72 else "down"
    inspiration = float(rng.beta(5, 1.8))
    offset = (float(rng.normal(0, 12)), float(rng.normal(0, 30)), float(rng.uniform(-900, 500)))
    return PatientPlan(
        sex=sex,
        age_years=age,
        scale=scale,  # type: ignore[arg-type]
        fat_mm=fat,
        muscle=_normal(rng, 0.85 if female else 1.05, 0.16, 0.55, 1.5),
        visceral_fat=float(np.clip(rng.lognormal(0, 0.35) * (0.7 + 0.02 * fat), 0.35, 2.2)),
        breast_mm=min(breast, 70.0),
        arms=arms,
        inspiration=inspiration,
        roll_deg=_normal(rng, 0, 5, -18, 18),
        lean_deg=_normal(rng, 0, 2.2, -7, 7),
        pitch_deg=_normal(rng, 1.5, 3.5, -8, 12),
        scoliosis_mm=float(rng.normal(0, 4) + (rng.normal(0, 14) if rng.random() < 0.1 else 0)),
        kyphosis_mm=_normal(rng, 0.12 * (age - 50), 5, -10, 22),
        offset_mm=offset,
        heart_scale=_normal(rng, 1.0, 0.05, 0.88, 1.1),
        heart_turn_deg=_normal(rng, 0, 9, -20, 20),
        aorta_scale=(0.86 + 0.004 * (age - 20)) * _normal(rng, 1, 0.06, 0.86, 1.16),
        dome_mm=(_normal(rng, 0, 8, -16, 20), _normal(rng, 0, 8, -16, 22)),
        lung_hu=float(rng.normal(-862, 16) + 85 * (1 - inspiration)),
        stomach_fill=float(rng.beta(1.6, 2)),
        stomach_gas=float(rng.uniform(0.05, 0.85)),
        seed=int(rng.integers(2**31)),
    )


def plan_scanner(rng: np.random.Generator, patient: PatientPlan) -> ScannerPlan:
    """Draw a scan of that person: field of view, coverage, table, kernel, contrast."""
    sx, sy, sz = patient.scale
    half_width = 1.0 * sx * 158 + patient.fat_mm + 0.3 * patient.breast_mm
    tight, usual, wide = (0.94, 1.05), (1.05, 1.3), (1.3, 1.7)
    low, high = (tight, usual, usual, wide)[rng.integers(4)]
    field_of_view = float(np.clip(2 * half_width * rng.uniform(low, high), 270, 560))
    # From the neck's base to below the lungs; some scans start or end within them.
    depth = 205 - 25 * (1 - patient.inspiration)
    top = float(rng.uniform(98, 150) * sz)
    bottom = float(-(depth + rng.choice([rng.uniform(-10, 30), rng.uniform(20, 110)])) * sz)
    cut = rng.random()
    if cut < 0.09:
        top = float(rng.uniform(0, 85) * sz)
    elif cut < 0.2:
        bottom = float(-rng.uniform(95, 190) * sz)
    elif cut < 0.24:
        top, bottom = float(rng.uniform(40, 90) * sz), float(-rng.uniform(80, 150) * sz)
    thickness = float(rng.choice([1.0, 1.0, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 5.0]))
    step = thickness if rng.random() < 0.6 else float(max(0.8, thickness * rng.uniform(0.5, 1.0)))
    pixels = int(rng.choice([256, 384, 512, 512, 512]))
    in_plane = field_of_view / pixels
    x, y, z = patient.offset_mm
    center = (
        x + float(rng.normal(0, 10)),
        y - 8 * sy + float(rng.normal(0, 9)),
        z + (top + bottom) / 2,
    )
    square = rng.random() < 0.55
    kernel: Kernel = ("soft", "standard", "standard", "sharp")[rng.integers(4)]
    noise = float(rng.lognormal(np.log({"soft": 11, "standard": 17, "sharp": 42}[kernel]), 0.4))
    orientation = str(rng.choice(["LPS", "LPS", "LPS", "RAS", "LAS", "RPS", "LPI"]))
    draw = rng.random()
    contrast: Contrast = (
        "none"
        if draw < 0.55
        else "venous"
        if draw < 0.8
        else "arterial"
        if draw < 0.92
        else "pulmonary"
    )
    couch = rng.random()
    return ScannerPlan(
        shape=(pixels, pixels, max(16, round((top - bottom) / step))),
        spacing_mm=(in_plane, in_plane, step),
        orientation=orientation,
        center_mm=center,
        thickness_mm=thickness,
        padding_hu=None if square else int(rng.choice([-1024, -1024, -2000, -3024])),
        couch_gap_mm=float(rng.uniform(0, 22)),
        couch_kind="none" if couch < 0.08 else "curved" if couch < 0.7 else "flat",
        kernel=kernel,
        noise_hu=min(noise, 90.0),
        contrast=contrast,
        contrast_hu=_normal(rng, 1, 0.2, 0.5, 1.5),
        blood_hu=_normal(rng, 41, 4, 28, 52),
        hu_shift=_normal(rng, 0, 3, -8, 8),
        seed=int(rng.integers(2**31)),
    )
