"""Reads a small JSON file that must hold one object, with errors in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trimoe.errors import InputError
from trimoe.input_file import MAX_JSON_BYTES, read_input

__all__ = ["read_json_object"]


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that the file holds.

    Raises:
        InputError: the file is missing, unreadable, no regular file, too long, or holds no JSON object.
    """
    hint = "the folder of a Hugging Face checkpoint, as save_pretrained or `hf download` writes it"
    raw = read_input(path, f"the file {path.name} in {path.parent}", hint, MAX_JSON_BYTES)
    try:
        value = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            expected=f"valid JSON in {path}", got=f"{error}", hint="downloading the file again"
        ) from error
    if not isinstance(value, dict):
        raise InputError(
            expected=f"a JSON object in {path}",
            got=f"a JSON {type(value).__name__}",
            hint="downloading the file again",
        )
    return value
