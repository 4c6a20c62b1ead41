"""The text encoder against plain transformers, and folders as the hub has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from simcrop_core.errors import SimCroPError
from simcrop_core.model import TextConfig, TextEncoder, create_model
from simcrop_core.model.text import text_config_for
from simcrop_core.model.text_folder import locate_text_encoder, text_encoder_sources

SENTENCES = [
    "No pleural effusion.",
    "There is a large mass in the left hilum, with narrowing of the upper lobe bronchus.",
    "Heart size is normal.",
    "Calcified plaques are seen in the coronary arteries and along the arch of the aorta.",
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "pleural", "effusion", ".", "heart",
         "size", "is", "normal", "left", "##sided", "mass"]  # fmt: skip


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    _, encoder = text_config_for("minilm")
    assert encoder is not None
    return encoder


def small_config() -> dict[str, Any]:
    return {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 24,
        "pad_token_id": 0,
    }


def cxr_bert_folder(folder: Path, *, binary: bool = False) -> tuple[Path, Any]:
    """A folder with the file names, configuration and weight names of CXR-BERT, but small.

    Its code would be run by whoever trusted it; it leaves a mark then.
    """
    from transformers.models.bert import BertConfig, BertForMaskedLM

    torch.manual_seed(4)
    network = BertForMaskedLM(BertConfig(**small_config())).eval()
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights["bert.embeddings.position_ids"] = torch.arange(24)[None]
    for name, shape in {
        "dense_to_hidden.weight": (8, 32),
        "dense_to_hidden.bias": (8,),
        "LayerNorm.weight": (8,),
        "LayerNorm.bias": (8,),
        "dense_to_output.weight": (8, 8),
        "dense_to_output.bias": (8,),
    }.items():
        weights[f"cls_projection_head.{name}"] = torch.randn(shape)
    folder.mkdir()
    config = small_config() | {
        "architectures": ["CXRBertModel"],
        "auto_map": {
            "AutoConfig": "configuration_cxrbert.CXRBertConfig",
            "AutoModel": "modeling_cxrbert.CXRBertModel",
        },
        "model_type": "cxr-bert",
        "projection_size": 8,
        "torch_dtype": "float32",
        "transformers_version": "4.17.0",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({
            "do_lower_case": True,
            "tokenizer_class": "CXRBertTokenizer",
            "auto_map": {"AutoTokenizer": ["configuration_cxrbert.CXRBertTokenizer", None]},
        })
    )  # fmt: skip
    for name in ("configuration_cxrbert.py", "modeling_cxrbert.py"):
        (folder / name).write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    if binary:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors")
    return folder, network


# -- vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", ["mean", "cls"])
def test_sentence_vectors_are_those_of_plain_transformers(vector: str) -> None:
    from transformers import AutoModel, AutoTokenizer

    config, _ = text_config_for("minilm", vector)
    got = TextEncoder.load(config).encode_sentences(SENTENCES)
    folder = str(locate_text_encoder("minilm"))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    for sentence, vector_D in zip(SENTENCES, got.sentences_SD, strict=True):
        tokens = tokenizer(sentence, return_tensors="pt")  # alone: no padding can play a part
        with torch.no_grad():
            last = network(**tokens).last_hidden_state[0]
        expected = last.mean(dim=0) if vector == "mean" else last[0]
        torch.testing.assert_close(vector_D, expected, atol=2e-5, rtol=0)
    assert got.truncated == ()


def test_vectors_do_not_depend_on_company_or_order(minilm: TextEncoder) -> None:
    many = [f"{text} Image {i}." for i in range(20) for text in SENTENCES]
    together = minilm.encode_sentences(many).sentences_SD
    turned = minilm.encode_sentences(many[::-1]).sentences_SD.flip(0)
    torch.testing.assert_close(together, turned, atol=1e-5, rtol=0)
    alone = minilm.encode_sentences(many[41:42]).sentences_SD[0]
    torch.testing.assert_close(together[41], alone, atol=1e-5, rtol=0)


def test_no_sentences_give_no_vectors(minilm: TextEncoder) -> None:
    assert minilm.encode_sentences([]).sentences_SD.shape == (0, 384)
    # Where the encoder is, so that it meets what was computed there.
    elsewhere = deepcopy(minilm).to("meta")
    assert elsewhere.encode_sentences([]).sentences_SD.device.type == "meta"


@pytest.mark.parametrize("blank", ["", "  ", "\n\t"])
def test_a_blank_sentence_is_never_encoded(minilm: TextEncoder, blank: str) -> None:
    with pytest.raises(SimCroPError, match="Sentence 2 is blank") as refusal:
        minilm.encode_sentences(["Normal.", blank])
    assert refusal.value.code == "blank-sentence"


def test_a_sentence_beyond_the_window_is_cut_and_named(minilm: TextEncoder) -> None:
    long = "lung " * 900
    result = minilm.encode_sentences(["Normal.", long, "Clear."])
    assert result.truncated == (1,)
    assert "sentences 1" in result.notes()[0].text
    exact = minilm.encode_sentences(["lung " * 510])
    assert exact.truncated == ()
    assert exact.notes() == ()
    torch.testing.assert_close(result.sentences_SD[1], exact.sentences_SD[0], atol=1e-5, rtol=0)


def test_the_configured_window_cuts_earlier() -> None:
    config, _ = text_config_for("minilm")
    short = TextEncoder.load(config.model_copy(update={"max_tokens": 8}))
    assert short.encode_sentences(["lung " * 7]).truncated == (0,)
    assert short.encode_sentences(["lung " * 6]).truncated == ()


def test_token_features_of_a_report(minilm: TextEncoder) -> None:
    text = " ".join(SENTENCES)
    tokens_TD, notes = minilm.encode_report(SENTENCES)
    assert notes == ()
    batch = minilm.tokenize([text, "Normal."])
    assert tokens_TD.shape == (int(batch.attend_BT[0].sum()), 384)
    with_padding = minilm(batch.ids_BT, batch.attend_BT)
    torch.testing.assert_close(with_padding[0, : len(tokens_TD)], tokens_TD, atol=1e-5, rtol=0)
    assert batch.special_BT[1].tolist() == [True, False, False, True] + [True] * (
        batch.ids_BT.shape[1] - 4
    )
    assert set(batch.ids_BT[~batch.attend_BT].tolist()) == {minilm.pad_id}
    assert minilm.tokenizer.id_to_token(minilm.mask_id) == "[MASK]"
    assert minilm.tokenize([text], max_tokens=10).ids_BT.shape == (1, 10)


@pytest.mark.parametrize("count", [1, 60, 85, 86, 200])
def test_a_report_beyond_the_window_loses_whole_sentences_last(
    minilm: TextEncoder, count: int
) -> None:
    sentences = [f"Nodule number {n} is stable." for n in range(10, 10 + count)]
    tokens, notes = minilm.tokenize_report(sentences)
    read = minilm.tokenizer.decode(tokens.ids_BT[0].tolist())
    kept = read.count("nodule")
    # Whole sentences from the beginning, and as many as fit: one more would not have.
    assert read.replace(" .", ".") == " ".join(s.lower() for s in sentences[:kept])
    whole = minilm.tokenizer.encode(" ".join(sentences[: kept + 1]))
    assert kept == count or len(whole.ids) > minilm.window
    assert [n.code for n in notes] == (["report-shortened"] if kept < count else [])
    if notes:
        assert f"{count - kept} of {count}" in notes[0].text
    assert tokens.truncated == ()


def test_a_first_sentence_beyond_the_window_is_cut_with_a_note(minilm: TextEncoder) -> None:
    tokens, notes = minilm.tokenize_report(["lung " * 900, "Clear."])
    assert tokens.ids_BT.shape == (1, minilm.window)
    assert [n.code for n in notes] == ["report-shortened", "sentence-truncated"]


@pytest.mark.parametrize("sentences", [[], ["  "]])
def test_an_empty_report_is_never_encoded(minilm: TextEncoder, sentences: list[str]) -> None:
    with pytest.raises(SimCroPError, match="no sentence"):
        minilm.encode_report(sentences)


# -- frozen -------------------------------------------------------------------------------------


def test_the_encoder_is_frozen_whatever_its_owner_does(minilm: TextEncoder) -> None:
    model = create_model("starter")
    before = model.encode_text(SENTENCES).sentences_SD
    model.train()
    model.text.train()
    assert not any(module.training for module in model.text.modules())
    assert not any(p.requires_grad for p in model.text.parameters())
    after = model.encode_text(SENTENCES).sentences_SD
    assert torch.equal(before, after)
    assert not after.requires_grad
    owned = {id(p) for p in model.parameters()}
    assert not any(id(p) in owned for p in model.text.parameters())
    assert not any(name.startswith(("text.", "_text")) for name in model.state_dict())


# -- folders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True])
def test_cxr_bert_loads_as_the_stock_bert_it_is(tmp_path: Path, binary: bool) -> None:
    from transformers.models.bert import BertTokenizerFast

    folder, network = cxr_bert_folder(tmp_path / "cxr-bert", binary=binary)
    config, encoder = text_config_for(str(folder))
    assert encoder is not None
    assert config.width == 32
    assert config.sentence_vector == "cls"
    assert config.max_tokens == 24
    text = "No left sided pleural effusion."
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True)
    ids = tokenizer(text)["input_ids"]
    assert encoder.tokenize([text]).ids_BT.tolist() == [ids]
    with torch.no_grad():
        expected = network.bert(torch.tensor([ids])).last_hidden_state[0]
    got = encoder.encode_sentences([text]).sentences_SD[0]
    torch.testing.assert_close(got, expected[0], atol=1e-6, rtol=0)
    assert not (folder / "ran").exists()


def test_the_fingerprint_is_of_the_weights_not_of_the_file(tmp_path: Path) -> None:
    one, _ = cxr_bert_folder(tmp_path / "one")
    two, _ = cxr_bert_folder(tmp_path / "two", binary=True)
    config, _ = text_config_for(str(one))
    assert config.fingerprint == text_config_for(str(two))[0].fingerprint
    assert TextEncoder.load(config, str(two)).encode_sentences(["normal"]).sentences_SD.any()
    weights = load_file(one / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"][0, 0] += 1
    save_file(weights, one / "model.safetensors")
    with pytest.raises(SimCroPError, match="not the text encoder of the model") as refusal:
        TextEncoder.load(config)
    assert refusal.value.code == "text-encoder-mismatch"
    (two / "vocab.txt").write_text("\n".join([*WORDS[:-1], "tumour"]) + "\n")
    with pytest.raises(SimCroPError, match="not the text encoder of the model"):
        TextEncoder.load(config, str(two))


def test_an_encoder_of_another_width_is_refused() -> None:
    with pytest.raises(SimCroPError, match="384 numbers and the model expects 768") as refusal:
        TextEncoder.load(TextConfig(), "minilm")
    assert refusal.value.code == "text-encoder-mismatch"


def test_an_encoder_without_fingerprint_gets_a_note(tmp_path: Path) -> None:
    folder, _ = cxr_bert_folder(tmp_path / "cxr-bert")
    unknown = TextConfig(source=str(folder), width=32)
    assert [note.code for note in TextEncoder.load(unknown).notes] == ["text-encoder-unverified"]
    known, _ = text_config_for(str(folder))
    assert TextEncoder.load(known).notes == ()


def test_missing_and_misshapen_weights_are_listed(tmp_path: Path) -> None:
    folder, _ = cxr_bert_folder(tmp_path / "cxr-bert")
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.bias"]
    weights["bert.embeddings.LayerNorm.weight"] = torch.ones(31)
    weights["bert.encoder.layer.2.output.dense.bias"] = torch.ones(32)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(SimCroPError) as refusal:
        text_config_for(str(folder))
    text = str(refusal.value)
    assert "encoder.layer.1.output.dense.bias is missing" in text
    assert "embeddings.LayerNorm.weight is (31,), expected (32,)" in text
    assert "encoder.layer.2.output.dense.bias is unexpected" in text


def break_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def other_family(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(small_config() | {"model_type": "gpt2"}))


BREAKAGES = {
    "no config": lambda f: (f / "config.json").unlink(),
    "config is no json": lambda f: (f / "config.json").write_text("{"),
    "config is a list": lambda f: (f / "config.json").write_text("[]"),
    "config is nonsense": lambda f: (f / "config.json").write_text(
        json.dumps({"model_type": "bert", "hidden_size": "wide"})
    ),
    "another family": other_family,
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "cut weights": break_weights,
    "no vocabulary": lambda f: (f / "vocab.txt").unlink(),
    "vocabulary too long": lambda f: (f / "vocab.txt").write_text("\n".join([*WORDS, "x", "y"])),
    "broken tokenizer": lambda f: (f / "tokenizer.json").write_text("{}"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_folder_is_refused_in_one_sentence(tmp_path: Path, breakage: str) -> None:
    folder, _ = cxr_bert_folder(tmp_path / "cxr-bert")
    BREAKAGES[breakage](folder)
    with pytest.raises(SimCroPError) as refusal:
        text_config_for(str(folder))
    assert refusal.value.remedy
    assert "\n" not in str(refusal.value)


def test_an_encoder_that_is_not_here_is_said_so_and_never_fetched(tmp_path: Path) -> None:
    """In a process of its own whose cache is empty and where every connection is an error."""
    code = """
import socket
def refuse(*a, **k): raise AssertionError("the network was asked")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from simcrop_core.errors import SimCroPError
from simcrop_core.model import create_model
model = create_model("paper", vision={"depth": 1, "width": 24, "heads": 2})
assert model.config.text.fingerprint is None and model.config.text.width == 768
try:
    model.text
except SimCroPError as e:
    print(e.code, e)
"""
    environment = os.environ | {"HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("text-encoder-missing")
    assert "--text-encoder" in done.stdout
    assert "\n" not in done.stdout.strip()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SimCroPError) as refusal:
        create_model("starter", text_encoder=str(tmp_path / "nowhere"))
    assert refusal.value.code == "text-encoder-missing"


def test_sources_name_minilm_with_its_folder() -> None:
    found = text_encoder_sources()
    assert Path(found["minilm"]).is_dir()
    assert "microsoft/BiomedVLP-CXR-BERT-specialized" in found
