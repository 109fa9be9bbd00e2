"""The shipped model: its size and shape, its tokenizer, its bits per byte on unseen text, its routing."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import trimoe

FOLDER = Path(trimoe.__file__).parent / "hf" / "tiny"
MAX_WEIGHTS_BYTES = 12_000_000

# Held out of the training text, out of the tokenizer's too: Hebrews 11 and the end of Revelation.
BOOK = """Hebrews 11

1 Now faith is the substance of things hoped for, the evidence of things not seen.
2 For by it the elders obtained a good report.
3 Through faith we understand that the worlds were framed by the word of God, so that things which are \
seen were not made of things which do appear.

Revelation 21

1 And I saw a new heaven and a new earth: for the first heaven and the first earth were passed away; and \
there was no more sea.
2 And I John saw the holy city, new Jerusalem, coming down from God out of heaven, prepared as a bride \
adorned for her husband.
3 And I heard a great voice out of heaven saying, Behold, the tabernacle of God is with men, and he will \
dwell with them, and they shall be his people, and God himself shall be with them, and be their God.
"""
# Written for this test, in the manner of the code it was trained on.
CODE = '''class RetryPolicy:
    """Decide whether a failed request is sent again."""

    def __init__(self, attempts=3, delay=0.5):
        if attempts < 1:
            raise ValueError("attempts must be at least 1")
        self.attempts = attempts
        self.delay = delay

    def wait(self, attempt):
        """Return the number of seconds to sleep before the next attempt."""
        return self.delay * 2 ** attempt
'''


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(
        FOLDER, dtype=torch.float32, experts_implementation="eager", attn_implementation="eager"
    ).eval()


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / "training.json").read_text())
    return loaded


@torch.inference_mode()
def run(model: Any, tokenizer: Any, text: str) -> tuple[float, list[torch.Tensor]]:
    """Bits per byte of `text` after an end-of-text token, and each layer's expert counts [E]."""
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
    out = model(input_ids=ids, output_router_logits=True)
    nats = torch.nn.functional.cross_entropy(out.logits[0, :-1], ids[0, 1:], reduction="sum")
    chosen = [logits.topk(model.config.num_experts_per_tok, dim=-1).indices for logits in out.router_logits]
    counts = [torch.bincount(c.flatten(), minlength=model.config.num_experts).double() for c in chosen]
    return float(nats) / math.log(2) / len(text.encode()), counts


def unigram_bits_per_byte(text: str) -> float:
    """The least that any model of single bytes can spend: one fitted on the very text."""
    data = text.encode()
    return -sum(n * math.log2(n / len(data)) for n in Counter(data).values()) / len(data)


def test_weights_are_small_and_bf16_one_tensor_per_expert() -> None:
    file = FOLDER / "model.safetensors"
    assert file.stat().st_size <= MAX_WEIGHTS_BYTES
    with safe_open(file, "pt") as tensors:
        names = set(tensors.keys())
        assert {tensors.get_slice(name).get_dtype() for name in names} == {"BF16"}
    experts = {
        f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight"
        for layer in range(4)
        for expert in range(32)
        for part in ("gate", "up", "down")
    }
    assert experts <= names


def test_the_shipped_model_has_enough_layers_and_experts() -> None:
    config = AutoConfig.from_pretrained(FOLDER)
    assert config.model_type == "qwen3_moe"
    assert config.num_hidden_layers >= 4
    assert (config.num_experts, config.num_experts_per_tok) == (32, 4)
    assert config.tie_word_embeddings
    assert getattr(config, "quantization_config", None) is None


def test_licence_names_every_text(figures: dict[str, Any]) -> None:
    licence = (FOLDER / "LICENSE").read_text()
    assert len(figures["texts"]) >= 2
    for text in figures["texts"]:
        assert text["name"] in licence and text["licence"] in licence
        assert all(f"{name} {version}" in licence for name, version in text["packages"].items())


@pytest.mark.parametrize(
    "text",
    [
        BOOK,
        CODE,
        " leading and trailing ",
        "\n\n\t \r\n",
        "naïve – Größe, 日本語, 🦊\u200d🔥",
        "\x00\x01\x7f\u0080",
    ],
)
def test_tokenizer_round_trip(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_has_every_byte(tokenizer: Any) -> None:
    every_byte = bytes(range(256)).decode("latin-1")
    ids = tokenizer(every_byte)["input_ids"]
    assert tokenizer.decode(ids) == every_byte
    # Byte-level: one single-letter symbol for each of the 256 bytes.
    assert sum(len(token) == 1 for token in tokenizer.get_vocab()) == 256
    assert len(tokenizer) == AutoConfig.from_pretrained(FOLDER).vocab_size


@pytest.mark.slow
@pytest.mark.parametrize("text", [BOOK, CODE], ids=["book", "code"])
def test_predicts_text_it_never_saw(model: Any, tokenizer: Any, text: str) -> None:
    bits, _ = run(model, tokenizer, text)
    gzip_bits = 8 * len(gzip.compress(text.encode(), 9)) / len(text.encode())
    assert bits < 0.7 * unigram_bits_per_byte(text)
    assert bits < gzip_bits


@torch.inference_mode()
def bits_per_byte(model: Any, tokenizer: Any, text: str) -> float:
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
    logits = model(input_ids=ids).logits[0, :-1].float()
    nats = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
    return float(nats) / math.log(2) / len(text.encode())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "group", "activations", "at_most"),
    [
        ("bf16", 0, "auto", 0.001),
        ("int8", 0, "auto", 0.002),
        ("fp8", 0, "auto", 0.008),
        ("mxfp4", 0, "auto", 0.01),
        ("int4", 32, "int8", 0.01),
        ("int4", 64, "bf16", 0.01),
        ("int4", 128, "int8", 0.015),
    ],
)
def test_no_format_changes_what_it_predicts(
    weights: str, group: int, activations: str, at_most: float, model: Any, tokenizer: Any
) -> None:
    """Bits per byte in relation to fp32; docs/formats.md has the figures."""
    packed = trimoe.load(
        FOLDER, dtype=torch.float32, weights=weights, group=group, activations=activations, cache=False
    )
    for text in (BOOK, CODE):
        exact = bits_per_byte(model, tokenizer, text)
        assert abs(bits_per_byte(packed, tokenizer, text) / exact - 1) < at_most


@pytest.mark.slow
def test_routing_is_real(model: Any, tokenizer: Any) -> None:
    _, book = run(model, tokenizer, BOOK)
    _, code = run(model, tokenizer, CODE)
    for layer_book, layer_code in zip(book, code, strict=True):
        for counts in (layer_book, layer_code):
            uniform = counts.sum() / len(counts)
            chi_squared = ((counts - uniform) ** 2 / uniform).sum()
            # A router that chose uniformly at random would give E - 1 on average: six deviations above that.
            freedom = len(counts) - 1
            assert chi_squared > freedom + 6 * math.sqrt(2 * freedom)
        distance = (layer_book / layer_book.sum() - layer_code / layer_code.sum()).abs().sum() / 2
        assert distance > 0.2


def test_figures_agree_with_the_files(figures: dict[str, Any], model: Any) -> None:
    assert figures["weights_bytes"] == (FOLDER / "model.safetensors").stat().st_size
    assert figures["weights"] == model.num_parameters()
    assert figures["training"]["seconds"] <= 3600
    config = model.config
    by_text = torch.tensor(list(figures["routing_counts_by_text"].values())).double()
    assert by_text.shape[1:] == (config.num_hidden_layers, config.num_experts)
    for layer, stated in zip(by_text.sum(0), figures["routing"], strict=True):
        share = layer / layer.sum()
        assert stated["counts"] == layer.long().tolist()
        variation = float(share.std(unbiased=False) / share.mean())
        assert stated["coefficient_of_variation"] == pytest.approx(variation, abs=1e-4)
        entropy = float(torch.special.entr(share).sum()) / math.log(config.num_experts)
        assert stated["entropy_of_uniform"] == pytest.approx(entropy, abs=1e-4)
        assert stated["coefficient_of_variation"] > 0.1


def test_figures_beat_the_baselines(figures: dict[str, Any]) -> None:
    for bits in figures["held_out_bits_per_byte"].values():
        assert bits["model"] < bits["gzip_9"] < bits["unigram"]
