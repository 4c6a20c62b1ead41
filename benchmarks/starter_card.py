"""The measured figures of the starter model as a section of its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simcrop_core.evaluate.pointing import SIZE_CLASSES

Facts = Mapping[str, Any]
_ROWS = (
    ("organ", "organ statements", "pointing"),
    ("organ, unseen wording", "the same, wordings never trained on", "pointing"),
    ("finding", "findings", "pointing"),
    ("finding, unseen wording", "the same, wordings never trained on", "pointing"),
    ("negative", "negations, on what is said not to be there", "pointing"),
)


def written(facts: Facts) -> str:
    """Markdown, between the marks of the card."""
    parts = [_grounding(facts), _segmentation(facts["segmentation"])]
    if facts["real"]:
        parts.append(_real(facts["real"]))
    parts.append(_words(facts["words"]))
    shape = " x ".join(map(str, facts["speed"]["input"]))
    parts.append(
        f"Encoding an input of {shape} voxels: {facts['speed']['encode_s']:.2f} s of one core."
    )
    return "\n\n" + "\n\n".join(parts) + "\n\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def _value(estimate: Facts | None) -> str:
    return "" if estimate is None else f"{estimate['value']:.2f}"


def _interval(estimate: Facts | None) -> str:
    if estimate is None:
        return ""
    return f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})"


def _grounding(facts: Facts) -> str:
    model = facts["grounding"]["model"]
    peer = facts["grounding"].get("peer")
    rows = []
    names = [*_ROWS, ("finding", "the side, where a finding's sentence names one", "side")]
    names += [(f"Lung nodule {size}", f"nodules {size}", "pointing") for size in SIZE_CLASSES]
    for name, title, figure in names:
        found = model["pointing"].get(name, {}).get(figure)
        if found is None:
            continue
        row = [title, str(found["model"]["count"]), _interval(found["model"])]
        if peer:
            row.append(_value(peer["pointing"].get(name, {}).get(figure, {}).get("model")))
        rows.append([*row, _value(found.get("prior")), _value(found.get("chance"))])
    for words in ("all", "unseen"):
        means = model["presence_auc"].get(words, {})
        if "mean" not in means:
            continue
        title = "presence, area under the curve" + (", unseen wordings" if words != "all" else "")
        row = [title, str(means["mean"]["count"]), _interval(means["mean"])]
        if peer:
            row.append(_value(peer["presence_auc"].get(words, {}).get("mean")))
        rows.append([*row, "", "0.50"])
    head = ["", "n", "this model (95 % interval)", *(["peer"] if peer else []), "prior", "chance"]
    first = (
        f"On {facts['phantoms']} phantoms that no training saw: share of sentences whose most "
        "similar patch overlaps what they speak of. The prior is the mean region of the same "
        f"statement in {facts['prior_phantoms']} training phantoms and never looks at the image."
    )
    by_finding = [
        [name, str(by["pointing"]["model"]["count"]), _interval(by["pointing"]["model"]),
         _value(by["pointing"].get("prior")), _value(model["presence_auc"]["all"].get(name))]
        for name, by in model["pointing"].items()
        if name in model["presence_auc"].get("all", {})
    ]  # fmt: skip
    second = _table(["finding", "n", "pointing", "prior", "presence"], by_finding)
    return f"{first}\n\n{_table(head, rows)}\n\n{second}"


def _segmentation(facts: Facts) -> str:
    rows = [
        [name, _interval(by.get("dice")), _value(by.get("average_surface_distance_mm"))]
        for name, by in facts["structures"].items()
    ]
    studies = len(facts["cases"])
    head = ["structure", "Dice (95 % interval)", "surface distance, mm"]
    return f"Segmentation of {studies} of these phantoms:\n\n{_table(head, rows)}"


def _real(facts: Facts) -> str:
    rows = []
    for name, by in facts.items():
        missed = sorted({s["organ"] for s in by["sentences"] if not s["hit"]})
        sides = ("left lung", "right lung")
        dice = [f"{by['dice'][side]:.3f}" for side in sides]
        rows.append([name, *dice, f"{by['hits']} of {by['of']}", ", ".join(missed) or "none"])
    head = ["scan", "Dice, left lung", "right lung", "organ sentences that hit", "misses"]
    first = (
        "Real scans, never trained on, which are not part of the software: three sentences each on "
        "left lung, right lung, heart, aorta, spine and liver."
    )
    return f"{first}\n\n{_table(head, rows)}"


def _words(facts: Facts) -> str:
    each = ", ".join(f"{name} {v:.2f}" for name, v in facts["jaccard_by_statement"].items())
    swapped = ", ".join(f"{name} {v:.2f}" for name, v in facts["swapped"].items())
    return (
        f"Ten wordings of the same statement, on {facts['scans']} scans: mean Jaccard index of "
        f"their 64 most similar patches {facts['jaccard']:.2f} ({each}). Left swapped for right: "
        "the mean of these patches lies on the side named, both times, in "
        f"{facts['swapped_all']:.0%} ({swapped})."
    )
