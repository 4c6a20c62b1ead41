"""Which patches look most like each sentence: the result, on disk and in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.encoded import VolumeCard, as_written, check_schema, stored_arrays
from simcrop_core.geometry import Grid
from simcrop_core.io import write_map
from simcrop_core.patches import PatchGrid

SCHEMA = 1
QUERY = "query"


@dataclass(frozen=True, slots=True)
class AlignedSentence:
    """One sentence, or a person's own words, with how well the scan supports it.

    Attributes
    ----------
    text, section, span
        As in the report; a free-text query has the section ``"query"`` and no span.
    score
        How far the sentence stands out, in standard deviations of the null: the mean similarity
        of its top patches less that of all patches, against the same for unrelated sentences.
    null_percentile
        Per cent of the unrelated sentences that stand out less (ties count half).
    """

    text: str
    section: str
    span: tuple[int, int] | None
    score: float
    null_percentile: float


@dataclass(frozen=True, slots=True, eq=False)
class AlignmentResult:
    """Sentences against patches.

    Attributes
    ----------
    sentences
        S sentences, in the report's order, then the queries.
    similarity_SN
        float32; N patches in flat (C) order. Padding patches have values too, see ``inside_N``.
    top_SK
        Flat indices of each sentence's K most similar patches that touch the scan, by falling
        similarity.
    inside_N
        Which patches touch the scan.
    patches
        Where the patches lie.
    model
        What the model says of itself: id, name, preset, provenance.
    volume
        The scan's card, with all notes.
    """

    sentences: tuple[AlignedSentence, ...]
    similarity_SN: NDArray[np.float32]
    top_SK: NDArray[np.int64]
    inside_N: NDArray[np.bool_]
    patches: PatchGrid
    model: dict[str, Any]
    volume: VolumeCard

    @property
    def model_id(self) -> str:
        return str(self.model["id"])

    def top(self, sentence: int, k: int | None = None) -> NDArray[np.int64]:
        """Flat indices of the ``k`` best patches of a sentence (all K if None)."""
        return self.top_SK[sentence, :k]

    def overlay(self, sentence: int) -> NDArray[np.float32]:
        """The sentence's similarity on the patch grid, ``(I, J, K)``."""
        return self.patches.as_map(self.similarity_SN[sentence])

    def to_dict(self) -> dict[str, Any]:
        """The content of ``alignment.json``; millimetres are RAS."""
        box = self.patches.box(0)
        size = [round(float(s), 6) for s in box.high_mm - box.low_mm]
        return {
            "schema": SCHEMA,
            "sentences": [
                {
                    "index": index,
                    "section": sentence.section,
                    "text": sentence.text,
                    "span": None if sentence.span is None else list(sentence.span),
                    "score": round(sentence.score, 6),
                    "null_percentile": round(sentence.null_percentile, 4),
                    "top_k": [
                        {
                            "patch": list(self.patches.ijk(int(patch))),
                            "similarity": float(self.similarity_SN[index, patch]),
                            "center_mm": [round(v, 6) for v in self.patches.center(int(patch))],
                            "size_mm": size,
                        }
                        for patch in self.top_SK[index]
                    ],
                }
                for index, sentence in enumerate(self.sentences)
            ],
            "patch_grid": {
                "shape": list(self.patches.shape),
                "patch_shape": list(self.patches.patch_shape),
                "axes": self.patches.grid.axcodes,
                "affine": self.patches.affine.tolist(),
            },
            "model": self.model,
            "volume": self.volume.to_dict(),
        }

    def write(self, folder: Path) -> None:
        """Write ``alignment.json``, ``alignment.npz`` and ``heatmaps/`` into a folder."""
        (folder / "heatmaps").mkdir(parents=True)
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "alignment.json").write_text(text + "\n", encoding="utf-8")
        with (folder / "alignment.npz").open("wb") as file:
            np.savez(
                file,
                similarity=self.similarity_SN,
                top_k=self.top_SK,
                inside_scan=self.inside_N,
            )
        for index in range(len(self.sentences)):
            write_map(
                folder / "heatmaps" / f"{index:03d}.nii.gz", self.overlay(index), self.patches.grid
            )

    @classmethod
    def read(cls, folder: str | Path) -> AlignmentResult:
        """Read what `write` wrote.

        Raises
        ------
        SimCroPError
            The folder holds no whole alignment.
        """
        folder = Path(folder)
        with as_written(folder, "alignment", "alignment", "Align the scan again."):
            card = json.loads((folder / "alignment.json").read_text(encoding="utf-8"))
            json.dumps(card, ensure_ascii=False).encode()  # refuses what is no text
            check_schema(card, SCHEMA)
            arrays = stored_arrays(folder / "alignment.npz", ("similarity", "top_k", "inside_scan"))
            similarity = np.asarray(arrays[0], dtype=np.float32)
            top = np.asarray(arrays[1], dtype=np.int64)
            inside = np.asarray(arrays[2], dtype=bool)
            i, j, k = card["patch_grid"]["shape"]
            p, q, r = card["patch_grid"]["patch_shape"]
            patches = PatchGrid(Grid((i, j, k), card["patch_grid"]["affine"]), (p, q, r))
            sentences = tuple(
                AlignedSentence(
                    text=str(s["text"]),
                    section=str(s["section"]),
                    span=None if s["span"] is None else (int(s["span"][0]), int(s["span"][1])),
                    score=float(s["score"]),
                    null_percentile=float(s["null_percentile"]),
                )
                for s in card["sentences"]
            )
            if similarity.shape != (len(sentences), len(patches)) or inside.shape != (
                len(patches),
            ):
                raise ValueError("alignment.json and alignment.npz differ in size")
            if top.ndim != 2 or len(top) != len(sentences):
                raise ValueError("top_k does not fit")
            if top.size and not 0 <= top.min() <= top.max() < len(patches):
                raise ValueError("top_k names patches that are none")
            if not isinstance(card["model"]["id"], str):
                raise ValueError("the model has no id")
            volume = VolumeCard.from_dict(card["volume"])
            return cls(sentences, similarity, top, inside, patches, dict(card["model"]), volume)
