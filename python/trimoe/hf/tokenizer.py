"""The tokenizer that lies beside a model, read without running any code that lies there too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimoe.errors import InputError

__all__ = ["check_generation_config", "load_tokenizer"]


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of the model in `folder`; InputError where there is none that transformers can read."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        if not tokenizer.encode("a", add_special_tokens=False):
            raise ValueError("none, or one without a vocabulary")  # transformers makes up an empty one
    except Exception as error:  # each tokenizer library has its own ways to fail
        raise InputError(
            expected=f"a tokenizer in {folder}",
            got=str(error)[:200],
            hint="the tokenizer files that came with the weights, of a kind that transformers has",
        ) from error
    return tokenizer


def check_generation_config(folder: Path) -> None:
    """InputError for a generation_config.json that transformers cannot read; there may be none."""
    from transformers import GenerationConfig

    try:
        if (folder / "generation_config.json").exists():
            GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers takes what is in the file for granted
        raise InputError(
            expected=f"a generation_config.json that transformers can read in {folder}",
            got=f"{type(error).__name__}: {str(error)[:200]}",
            hint="the file that came with the weights, or removing it",
        ) from error
