"""What goes into the model and out of it: prompts of any tokenizer, and logits that are no numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import trimoe
from support.shipped_model import SHIPPED
from trimoe.errors import FailureError, InputError
from trimoe.generate.generation import Sampling, _FiniteLogits, generate
from trimoe.generate.record import record_trace
from trimoe.hf.tokenizer import load_tokenizer

SAMPLING = Sampling(max_new_tokens=4, temperature=0)
PROMPT = "And God said"
IDS = torch.zeros(1, 1, dtype=torch.long)


def test_forbidden_tokens_are_no_failure() -> None:
    scores = torch.tensor([[-math.inf, 2.0, -1e30]])
    assert torch.equal(_FiniteLogits()(IDS, scores), scores)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_nan_and_infinity_are(value: float, place: int) -> None:
    scores = torch.tensor([[-math.inf, 2.0, 1.0]])
    scores[0, place] = value
    with pytest.raises(FailureError, match="finite logits"):
        _FiniteLogits()(IDS, scores)


def test_nothing_left_to_choose_from_is_a_failure() -> None:
    with pytest.raises(FailureError, match="finite logits"):
        _FiniteLogits()(IDS, torch.full((1, 3), -math.inf))


@pytest.fixture(scope="module")
def model() -> Any:
    return trimoe.load(SHIPPED, cache=False)


@pytest.mark.slow
@pytest.mark.parametrize("names", [["input_ids", "token_type_ids", "attention_mask"], ["input_ids"]])
def test_a_tokenizer_that_returns_more_or_less_than_the_model_takes(model: Any, names: list[str]) -> None:
    usual, other = load_tokenizer(SHIPPED), load_tokenizer(SHIPPED)
    other.model_input_names = names
    assert set(other(PROMPT)) == set(names)
    assert generate(model, other, PROMPT, SAMPLING).text == generate(model, usual, PROMPT, SAMPLING).text
    assert record_trace(model, other, [PROMPT], SAMPLING).ids.shape[0] == len(model.trimoe_store.layers)


def test_a_prompt_that_is_no_text(model: Any) -> None:
    """Bytes of the command line that are not UTF-8 arrive as lone surrogates."""
    with pytest.raises(InputError, match=r"UTF-8.* got .*udcff"):
        generate(model, load_tokenizer(SHIPPED), b"And \xff".decode("utf-8", "surrogateescape"), SAMPLING)
