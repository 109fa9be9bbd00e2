"""The tokenizer beside a model is read, or one line says that there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.deciders import SHIPPED
from trimoe.errors import InputError
from trimoe.hf.tokenizer import check_generation_config, load_tokenizer


def test_text_comes_back_as_it_was() -> None:
    tokenizer = load_tokenizer(SHIPPED)
    assert tokenizer.decode(tokenizer.encode("Once upon a time")) == "Once upon a time"


@pytest.mark.parametrize("damage", ["none", "text", "no vocabulary"])
def test_a_folder_without_a_tokenizer_is_one_line(damage: str, tmp_path: Path) -> None:
    shutil.copy(SHIPPED / "config.json", tmp_path)
    if damage != "none":
        found = '{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}'
        (tmp_path / "tokenizer.json").write_text("no JSON" if damage == "text" else found)
    with pytest.raises(InputError, match=f"a tokenizer in {tmp_path}; got "):
        load_tokenizer(tmp_path)


def test_no_code_beside_a_model_is_run(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        own = {"model_type": "own", "auto_map": {"AutoTokenizer": ["t.T", None]}}
        (tmp_path / name).write_text(json.dumps(own))
    (tmp_path / "t.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass T: pass\n")
    with pytest.raises(InputError, match="a tokenizer in"):
        load_tokenizer(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_generation_config_is_read_or_named(tmp_path: Path) -> None:
    check_generation_config(tmp_path)  # there may be none
    (tmp_path / "generation_config.json").write_text('{"max_new_tokens": 5}')
    check_generation_config(tmp_path)
    (tmp_path / "generation_config.json").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"a generation_config.json that transformers can read"):
        check_generation_config(tmp_path)
