"""Hounsfield units of tissues without and with contrast agent, by phase.

Ranges: unenhanced blood 35 to 50, myocardium 45, liver 55 to 65, spleen 45 to 50; portal-venous
phase liver 100 to 120, spleen 110 to 130; thyroid 100 to 120 for its iodine (Prokop and Galanski,
Spiral and Multislice CT of the Body, 2003).
"""

from __future__ import annotations

from simcrop_core.phantoms.plan import ScannerPlan

#: Gain over unenhanced tissue by phase: venous, arterial, pulmonary.
_GAIN: dict[str, tuple[float, float, float]] = {
    "aorta": (115, 300, 150),
    "left heart": (115, 300, 190),
    "right heart": (112, 190, 340),
    "pulmonary artery": (112, 220, 380),
    "pulmonary veins": (115, 290, 260),
    "superior vena cava": (115, 420, 640),
    "inferior vena cava": (95, 40, 20),
    "myocardium": (65, 75, 30),
    "liver": (52, 12, 2),
    "spleen": (72, 80, 15),
    "kidneys": (140, 130, 25),
    "stomach wall": (40, 35, 8),
    "pancreas": (50, 60, 12),
    "thyroid": (80, 90, 40),
    "adrenal glands": (40, 40, 10),
    "muscle": (12, 5, 2),
}
_PLAIN = {
    "myocardium": 47.0,
    "liver": 59.0,
    "spleen": 48.0,
    "kidneys": 32.0,
    "stomach wall": 40.0,
    "pancreas": 40.0,
    "thyroid": 105.0,
    "adrenal glands": 28.0,
    "muscle": 53.0,
}


def tissue_hu(scanner: ScannerPlan) -> dict[str, float]:
    """Tissue -> Hounsfield units in a scan."""
    phase = ("venous", "arterial", "pulmonary")
    out = {}
    for name, gains in _GAIN.items():
        gain = 0.0
        if scanner.contrast != "none":
            gain = gains[phase.index(scanner.contrast)] * scanner.contrast_hu
        out[name] = _PLAIN.get(name, scanner.blood_hu) + gain
    return out
