"""Every Mixture-of-Experts type of transformers: its logits, or one line that says what is not read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import trimoe
from locked import read_lock
from support.command_line import run_here
from support.moe_types import KNOWN, REFUSED, moe_types, tiny_config, tiny_model
from trimoe.errors import InputError

TYPES = moe_types()


def logits(model: Any) -> torch.Tensor:
    ids = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        result: torch.Tensor = model(input_ids=ids).logits
    return result


@pytest.mark.slow
@pytest.mark.parametrize("model_type", TYPES)
def test_every_type_is_right_or_refused(
    model_type: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        model = tiny_model(TYPES[model_type], tiny_config(model_type))
        expected = logits(model)
        model.save_pretrained(tmp_path)
    except Exception:
        if model_type in KNOWN:
            raise
        pytest.skip("newer than the tests: support/moe_types.py has no sizes for it")
    inspected = run_here(["inspect", str(tmp_path), "--json"], capfd)
    assert inspected.code == 0 or "dense" not in inspected.err
    try:
        loaded = trimoe.load(tmp_path)
    except InputError as error:
        assert model_type in REFUSED or model_type not in KNOWN, error
        assert re.search(REFUSED.get(model_type, "; got .*; try "), str(error)), error
        return
    assert model_type not in REFUSED
    assert inspected.code == 0
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=1e-5)


def test_many_types_are_walked() -> None:
    """The search by source found what there is."""
    assert {"qwen3_moe", "deepseek_v3", "gpt_oss", "granitemoe", "aria", "qwen3_vl_moe", "glm4v_moe"} <= set(
        TYPES
    )
    assert len(set(TYPES) & set(KNOWN)) > 40


def test_of_the_locked_transformers_every_type_is_known() -> None:
    """Or one would be skipped above as newer than the tests."""
    locked = [line for line in read_lock("packages.txt") if line.name == "transformers"]
    assert any(line.specifier.contains("5.24.0") for line in locked), "then KNOWN is of another version"
    if transformers.__version__.startswith("5.24."):
        assert set(TYPES) == KNOWN
