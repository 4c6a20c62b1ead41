"""How a report names a place: sides, lobes, pleural spaces.

A place is given as slots for templates. The same ``choices`` with another side or level give the
same words for the other place, so that a counterfactual differs in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from simcrop_core.statements import Level, Side

_MIDDLE: dict[str, tuple[str, ...]] = {
    "right": (
        "the right middle lobe",
        "the middle lobe of the right lung",
        "the right lung middle lobe",
    ),
    "left": (
        "the lingula",
        "the lingular segment of the left upper lobe",
        "the left upper lobe lingula",
    ),
    "both": (
        "the right middle lobe and the lingula",
        "the middle lobe and the lingula",
        "the right middle lobe and the left lingula",
    ),
    "any": (
        "the middle lobe or the lingula",
        "the middle lobe and the lingula",
        "the middle lobe or the lingula",
    ),
}
_LOBE: dict[str, tuple[str, ...]] = {
    "left": ("the left {0} lobe", "the {0} lobe of the left lung", "the left lung {0} lobe"),
    "right": ("the right {0} lobe", "the {0} lobe of the right lung", "the right lung {0} lobe"),
    "both": ("both {0} lobes", "the {0} lobes of both lungs", "the {0} lobes bilaterally"),
    "any": ("the {0} lobes", "the {0} lobes of the lungs", "the {0} zones of the lungs"),
}
_LUNG: dict[str, tuple[str, ...]] = {
    "left": ("the left lung", "the left lung", "the left lung parenchyma"),
    "right": ("the right lung", "the right lung", "the right lung parenchyma"),
    "both": ("both lungs", "both lungs", "the parenchyma of both lungs"),
    "any": ("the lungs", "the lungs", "the lung parenchyma"),
}
_NEITHER_LUNG = ("either lung", "both lungs", "the lung parenchyma")
_NEITHER_LOBE = ("either {0} lobe", "the {0} lobes of both lungs", "the {0} lobes")
_NEITHER_MIDDLE = ("the middle lobe or the lingula",) * 3


def lung_place(side: Side, level: Level, choices: Sequence[float], *, absent: bool) -> str:
    """The lung or lobe in words: ``"the upper lobe of the left lung"``.

    Parameters
    ----------
    choices
        Numbers in [0, 1) that decide between wordings.
    absent
        The place is where something is not: of both sides that is "either lung", not "the lungs".
    """
    neither = absent and side in ("any", "both")
    if level == "any":
        options = _NEITHER_LUNG if neither else _LUNG[side]
    elif level == "middle":
        options = _NEITHER_MIDDLE if neither else _MIDDLE[side]
    else:
        options = _NEITHER_LOBE if neither else _LOBE[side]
    return options[int(choices[0] * len(options))].format(level)


def place_slots(
    side: Side, level: Level, choices: Sequence[float], *, absent: bool = False
) -> dict[str, str]:
    """All slots that say where: lung, side, hemithorax, pleural space, hilum.

    Slots that a side has no word for are left out, so that templates which need them do not fit.
    """
    place = lung_place(side, level, choices, absent=absent)
    slots = {"place": place, "in_place": f"in {place}", "lung": "the lungs"}
    if level == "any":
        slots["no_level"] = ""  # a template with this slot speaks of whole lungs only
    if side in ("left", "right"):
        slots |= {
            "side": side,
            "one_side": side,
            "on_side": f"on the {side}",
            "hemithorax": f"the {side} hemithorax",
            "pleural_space": f"the {side} pleural space",
            "hilum": f"the {side} hilum",
            "lung": f"the {side} lung",
        }
    elif side == "both" or absent:
        slots |= {
            "side": "bilateral",
            "on_side": "on either side" if absent else "on both sides",
            "hemithorax": "either hemithorax" if absent else "both hemithoraces",
            "pleural_space": "the pleural spaces" if absent else "both pleural spaces",
            "hilum": "either hilum" if absent else "both hila",
            "lung": "either lung" if absent else "both lungs",
            "no_side": "",
        }
        if side == "both":
            slots["two_sides"] = ""
    else:
        slots["no_side"] = ""
    return slots
