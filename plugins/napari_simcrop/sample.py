"""The built-in sample study as layers."""

from __future__ import annotations

import numpy as np

from napari_simcrop.provenance import KEY
from napari_simcrop.readers import LayerData, ct_data, labels_data
from simcrop_core.sample import sample_study


def sample_layers() -> list[LayerData]:
    """The phantom's scan, its structures (hidden at first) and its findings; the report is in the
    scan's metadata. Takes a few seconds."""
    study = sample_study()
    grid = study.volume.grid
    data, attributes, kind = ct_data(study.volume)
    assert study.report is not None
    assert study.structures_XYZ is not None
    attributes["metadata"][KEY]["report"] = study.report.text
    findings = np.zeros(grid.shape, np.uint8)
    names: dict[int, str] = {}
    for key, mask in study.regions.items():
        if key.startswith("finding "):  # "finding 0 pleural effusion"
            names[len(names) + 1] = key.split(maxsplit=2)[2]
            findings[mask] = len(names)
    structures = dict(enumerate(study.structure_names, start=1))
    return [
        (data, attributes, kind),
        labels_data(study.structures_XYZ, grid, structures, "Structures", visible=False),
        labels_data(findings, grid, names, "Findings"),
    ]
