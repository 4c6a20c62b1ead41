"""The starter model and wording: do paraphrases point alike, does swapping sides move the overlay?

The paraphrases are written for this measurement; they were not used to make or choose the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np

from simcrop_core.align import align
from simcrop_core.encoded import Encoded
from simcrop_core.model.simcrop import SimCroP

TOP = 64

#: Ten wordings of each statement. ``{side}`` stands for left or right.
PARAPHRASES: dict[str, tuple[str, ...]] = {
    "effusion": (
        "There is a pleural effusion on the {side}.",
        "{side}-sided pleural effusion is present.",
        "Fluid is seen in the {side} pleural space.",
        "A {side} pleural effusion is noted.",
        "Pleural fluid collects on the {side} side.",
        "The {side} hemithorax contains free pleural fluid.",
        "An effusion is observed in the {side} pleural cavity.",
        "Effusion measuring 3 cm at its thickest on the {side}.",
        "Free fluid between the pleural leaves on the {side}.",
        "Findings are consistent with {side} pleural effusion.",
    ),
    "nodule": (
        "There is a nodule in the {side} upper lobe.",
        "A pulmonary nodule is seen in the {side} upper lobe.",
        "{side} upper lobe nodule is present.",
        "The upper lobe of the {side} lung contains a nodule.",
        "A solid nodule is observed in the {side} upper lobe.",
        "Nodular lesion in the upper lobe of the {side} lung.",
        "A rounded nodule, 12 mm, lies in the {side} upper lobe.",
        "In the {side} upper lobe a nodule was detected.",
        "Note is made of a small nodule in the {side} upper lobe.",
        "Parenchymal nodule, {side} upper lobe.",
    ),
    "consolidation": (
        "There is consolidation in the {side} lower lobe.",
        "{side} lower lobe consolidation is seen.",
        "An area of consolidation is present in the lower lobe of the {side} lung.",
        "Consolidative opacity is observed in the {side} lower lobe.",
        "The {side} lower lobe is consolidated.",
        "Airspace consolidation in the {side} lower lobe.",
        "In the {side} lower lobe, consolidation was detected.",
        "The lower lobe of the {side} lung shows consolidation.",
        "Dense consolidation of the {side} lower lobe.",
        "Findings are consistent with consolidation in the {side} lower lobe.",
    ),
    "heart": (
        "The heart is enlarged.",
        "Cardiomegaly is present.",
        "Heart size is increased.",
        "The cardiac silhouette is enlarged.",
        "There is enlargement of the heart.",
        "The heart is larger than normal.",
        "An enlarged heart is seen.",
        "Cardiac dimensions are increased.",
        "The heart contour is widened.",
        "The transverse diameter of the heart is increased.",
    ),
    "aorta": (
        "The thoracic aorta is of normal calibre.",
        "The calibre of the thoracic aorta is normal.",
        "The aorta is not dilated.",
        "No dilatation of the thoracic aorta is seen.",
        "Thoracic aorta diameter is normal.",
        "The aorta has a normal diameter.",
        "There is no aneurysm of the thoracic aorta.",
        "The diameter of the aorta is within normal limits.",
        "Aortic calibre is natural.",
        "The aorta is of normal width.",
    ),
    "liver": (
        "The liver is homogeneous.",
        "Liver parenchyma is of homogeneous density.",
        "The imaged part of the liver is normal.",
        "No focal lesion is seen in the liver.",
        "The liver shows no mass.",
        "Hepatic parenchyma is unremarkable.",
        "The density of the liver is natural.",
        "The liver included in the sections is normal.",
        "There is no lesion in the liver.",
        "Normal appearance of the liver.",
    ),
}


def measure(model: SimCroP, scans: Iterable[tuple[Encoded, float]]) -> dict[str, object]:
    """Mean Jaccard index of the top patches of wordings, and how often sides move the overlay.

    Parameters
    ----------
    scans
        Encoded scans with the x of their midline in RAS millimetres.
    """
    overlaps: dict[str, list[float]] = {name: [] for name in PARAPHRASES}
    right_side: dict[str, list[bool]] = {}
    for encoded, midline_mm in scans:
        for name, wordings in PARAPHRASES.items():
            sided = "{side}" in wordings[0]
            middles = {}
            for side in ("left", "right") if sided else ("",):
                texts = [_sentence(wording, side) for wording in wordings]
                result = align(model, encoded, queries=texts, top_k=TOP)
                tops = [set(result.top(number).tolist()) for number in range(len(texts))]
                overlaps[name] += [len(a & b) / len(a | b) for a, b in combinations(tops, 2)]
                x = np.array([encoded.patches.center(p)[0] for p in range(len(encoded.patches))])
                middles[side] = [x[sorted(top)].mean() - midline_mm for top in tops]
            if sided:
                pairs = zip(middles["left"], middles["right"], strict=True)
                right_side.setdefault(name, []).extend(a < 0 < b for a, b in pairs)
    by_statement = {name: float(np.mean(found)) for name, found in overlaps.items()}
    return {
        "jaccard": float(np.mean(list(by_statement.values()))),
        "jaccard_by_statement": by_statement,
        "swapped": {name: float(np.mean(found)) for name, found in right_side.items()},
        "swapped_all": float(np.mean([one for found in right_side.values() for one in found])),
    }


def _sentence(wording: str, side: str) -> str:
    text = wording.format(side=side)
    return text[0].upper() + text[1:]
