"""The frozen text encoder: a BERT-family network that turns sentences into vectors.

Shapes in names: S sentences; B texts of a batch; T tokens; D the width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from simcrop_core.errors import SimCroPError
from simcrop_core.model.config import MINILM, TextConfig
from simcrop_core.model.text_folder import (
    REMEDY,
    fingerprint,
    is_hub_id,
    load_parts,
    locate_text_encoder,
    positions,
)
from simcrop_core.volume import Note

_SENTENCES_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class EncodedSentences:
    """Sentence vectors.

    Attributes
    ----------
    sentences_SD
        One vector a sentence, in the order given, as the encoder gives them (not normalised).
    truncated
        Indices of sentences that were longer than the encoder's window: their end was not read.
    """

    sentences_SD: Tensor
    truncated: tuple[int, ...] = ()

    def notes(self) -> tuple[Note, ...]:
        """A note where sentences were cut."""
        return (_cut_note(self.truncated),) if self.truncated else ()


def _cut_note(truncated: Sequence[int]) -> Note:
    which = ", ".join(str(index) for index in truncated)
    return Note(
        "sentence-truncated",
        f"Longer than the text encoder reads, so that their end was left out: sentences {which} "
        "(counted from 0).",
    )


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Texts as tokens, padded to the longest.

    Attributes
    ----------
    ids_BT
        Token numbers.
    attend_BT
        True on tokens, False on padding.
    special_BT
        True on tokens that are no text (start, end, padding): never masked.
    truncated
        Indices of texts whose end did not fit.
    """

    ids_BT: Tensor
    attend_BT: Tensor
    special_BT: Tensor
    truncated: tuple[int, ...]


class TextEncoder(nn.Module):
    """A frozen BERT: no gradients, no dropout, whatever mode its owner is in.

    Make one with :meth:`load`.
    """

    def __init__(
        self, config: TextConfig, network: Any, tokenizer: Any, notes: Sequence[Note] = ()
    ) -> None:
        super().__init__()
        self.config = config
        self.network: Any = network.requires_grad_(False)
        self.tokenizer = tokenizer
        self.notes = tuple(notes)
        self.window = min(config.max_tokens, positions(network.config))
        self.fingerprint = fingerprint(network, tokenizer)
        self.eval()

    @classmethod
    def load(cls, config: TextConfig, location: str | None = None) -> TextEncoder:
        """Load the encoder that ``config`` names, or the same one from another ``location``.

        Raises
        ------
        SimCroPError
            It is not on this machine, is incomplete or damaged, or is not the encoder that the
            model was made with.
        """
        folder = locate_text_encoder(location or config.source)
        network, tokenizer = load_parts(folder)
        width = network.config.hidden_size
        if width != config.width:
            raise _other_encoder(
                folder, f"Its vectors have {width} numbers and the model expects {config.width}"
            )
        notes = []
        if config.fingerprint is None:
            notes.append(
                Note(
                    "text-encoder-unverified",
                    "The model was made without its text encoder at hand, so it is not certain "
                    "that the one loaded now is the right one.",
                )
            )
        encoder = cls(config, network, tokenizer, notes)
        if config.fingerprint not in (None, encoder.fingerprint):
            raise _other_encoder(folder, "Its weights or vocabulary are not those it was made with")
        return encoder

    # -- facts ----------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        return int(self.network.config.hidden_size)

    @property
    def vocabulary_size(self) -> int:
        return int(self.network.config.vocab_size)

    @property
    def mask_id(self) -> int:
        """Number of the token that stands for a masked one."""
        return _special_id(self.tokenizer, ("[MASK]", "<mask>"))

    @property
    def pad_id(self) -> int:
        """Number of the padding token."""
        return _special_id(self.tokenizer, ("[PAD]", "<pad>"))

    def train(self, mode: bool = True) -> TextEncoder:
        """Stay in evaluation mode: the encoder is frozen, so its vectors may be stored."""
        return super().train(False)

    # -- texts to vectors -----------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str], max_tokens: int | None = None) -> TokenBatch:
        """Texts as padded token numbers, at most ``max_tokens`` (default: the window) each."""
        limit = min(max_tokens or self.window, self.window)
        encodings = self.tokenizer.encode_batch(list(texts))
        length = min(limit, max((len(e.ids) for e in encodings), default=0))
        ids = torch.full((len(encodings), length), self.pad_id, dtype=torch.long)
        attend = torch.zeros(ids.shape, dtype=torch.bool)
        special = torch.ones(ids.shape, dtype=torch.bool)
        truncated = []
        for row, encoding in enumerate(encodings):
            count = len(encoding.ids)
            picked = list(range(count))
            if count > limit:
                truncated.append(row)
                picked = [*range(limit - 1), count - 1]  # the closing token is kept
            end = len(picked)
            ids[row, :end] = torch.tensor([encoding.ids[i] for i in picked])
            special[row, :end] = torch.tensor(
                [bool(encoding.special_tokens_mask[i]) for i in picked]
            )
            attend[row, :end] = True
        device = next(self.network.parameters()).device
        return TokenBatch(ids.to(device), attend.to(device), special.to(device), tuple(truncated))

    @torch.no_grad()
    def forward(self, ids_BT: Tensor, attend_BT: Tensor) -> Tensor:
        """Token vectors of the last layer, ``(B, T, D)``."""
        return self.network(input_ids=ids_BT, attention_mask=attend_BT.long()).last_hidden_state

    @torch.no_grad()
    def encode_sentences(self, sentences: Sequence[str]) -> EncodedSentences:
        """One vector a sentence; computed in batches of like length.

        Raises
        ------
        SimCroPError
            A sentence is blank: it says nothing and must not be given a vector.
        """
        blank = [index + 1 for index, text in enumerate(sentences) if not text.strip()]
        if blank:
            raise SimCroPError(
                f"Sentence {blank[0]} is blank",
                code="blank-sentence",
                remedy="Leave blank sentences out.",
            )
        if not sentences:
            device = next(self.network.parameters()).device
            return EncodedSentences(torch.zeros(0, self.width, device=device))
        tokens = self.tokenize(sentences)
        lengths = tokens.attend_BT.sum(dim=1)
        order = lengths.argsort(stable=True)
        device = tokens.ids_BT.device
        vectors_SD = torch.zeros(len(sentences), self.width, device=device)
        for rows in order.split(_SENTENCES_AT_ONCE):
            longest = int(lengths[rows].max())
            attend_BT = tokens.attend_BT[rows, :longest]
            tokens_BTD = self(tokens.ids_BT[rows, :longest], attend_BT).float()
            vectors_SD[rows] = self.pool(tokens_BTD, attend_BT)
        return EncodedSentences(vectors_SD, tokens.truncated)

    def tokenize_report(self, sentences: Sequence[str]) -> tuple[TokenBatch, tuple[Note, ...]]:
        """A report as one row of tokens; one longer than the window loses whole sentences, last
        ones first, with a note.

        Raises
        ------
        SimCroPError
            There is no sentence: an empty report says nothing and must not be encoded.
        """
        if not any(sentence.strip() for sentence in sentences):
            raise SimCroPError(
                "The report has no sentence to encode",
                code="no-sentences",
                remedy="Leave reports without text out.",
            )
        alone = self.tokenizer.encode_batch(list(sentences))
        lengths = torch.tensor([len(e.ids) - sum(e.special_tokens_mask) for e in alone])
        special = sum(alone[0].special_tokens_mask)
        kept = max(1, int((lengths.cumsum(0) + special <= self.window).sum()))
        tokens = self.tokenize([" ".join(sentences[:kept])])
        notes = []
        if kept < len(sentences):
            notes.append(
                Note(
                    "report-shortened",
                    f"The report is longer than the text encoder reads; its last "
                    f"{len(sentences) - kept} of {len(sentences)} sentences were left out.",
                )
            )
        if tokens.truncated:
            notes.append(_cut_note((0,)))
        return tokens, tuple(notes)

    @torch.no_grad()
    def encode_report(self, sentences: Sequence[str]) -> tuple[Tensor, tuple[Note, ...]]:
        """Token vectors of a report, ``(T, D)``, and the notes of :meth:`tokenize_report`."""
        tokens, notes = self.tokenize_report(sentences)
        return self(tokens.ids_BT, tokens.attend_BT)[0], notes

    def pool(self, tokens_BTD: Tensor, attend_BT: Tensor) -> Tensor:
        """One vector a text, ``(B, D)``, of its tokens' vectors: the first one, or the mean."""
        if self.config.sentence_vector == "cls":
            return tokens_BTD[:, 0]
        weight_BT1 = attend_BT[..., None].to(tokens_BTD.dtype)
        return (tokens_BTD * weight_BT1).sum(dim=1) / weight_BT1.sum(dim=1)


def text_config_for(
    source: str, sentence_vector: Literal["cls", "mean"] | None = None
) -> tuple[TextConfig, TextEncoder | None]:
    """A configuration for the text encoder at ``source``, and the encoder if it is at hand.

    An encoder that is only named (a hub id that is not in the cache) is taken to have BERT-base's
    width of 768; its fingerprint stays unknown. MiniLM was trained to be read as the mean of its
    tokens; other encoders are read at their first token unless told.
    """
    vector: Literal["cls", "mean"] = sentence_vector or ("mean" if source == MINILM else "cls")
    try:
        folder = locate_text_encoder(source)
    except SimCroPError as e:
        if e.code != "text-encoder-missing" or not is_hub_id(source):
            raise
        return TextConfig(source=source, sentence_vector=vector), None
    network, tokenizer = load_parts(folder)
    stored = source if source == MINILM or not Path(source).is_dir() else str(folder)
    config = TextConfig(
        source=stored,
        width=network.config.hidden_size,
        sentence_vector=vector,
        max_tokens=max(8, min(512, positions(network.config))),
        fingerprint=fingerprint(network, tokenizer),
    )
    return config, TextEncoder(config, network, tokenizer)


def _special_id(tokenizer: Any, names: tuple[str, ...]) -> int:
    for name in names:
        number = tokenizer.token_to_id(name)
        if number is not None:
            return int(number)
    raise SimCroPError(
        f"The text encoder's vocabulary has no {names[0]} token",
        code="bad-text-encoder",
        remedy=REMEDY,
    )


def _other_encoder(folder: Path, why: str) -> SimCroPError:
    return SimCroPError(
        f"This is not the text encoder of the model. {why}",
        code="text-encoder-mismatch",
        remedy="Pass --text-encoder with the encoder the model was made with, or make the model "
        "again with this one.",
        path=folder,
    )
