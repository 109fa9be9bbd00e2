"""Which files a checkpoint is made of, as transformers chooses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers.modeling_utils import _get_resolved_checkpoint_files

from trimoe.checkpoint.files import chosen_files, find_files
from trimoe.errors import InputError

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def write_index(folder: Path, name: str, shards: list[str]) -> None:
    fill(folder, *shards)
    (folder / name).write_text(
        json.dumps({"metadata": {}, "weight_map": dict(zip("abc", shards, strict=False))})
    )


@pytest.mark.parametrize("variant", [None, "v2"])
@pytest.mark.parametrize("has_single", [True, False])
def test_the_files_are_those_that_transformers_reads(
    variant: str | None, has_single: bool, tmp_path: Path
) -> None:
    if has_single:
        fill(tmp_path, "model.safetensors", "model.v2.safetensors")
    write_index(tmp_path, "model.safetensors.index.json", SHARDS)
    write_index(tmp_path, "model.safetensors.index.v2.json", ["model.v2-00001-of-00001.safetensors"])
    found = find_files(tmp_path, {}, variant)
    theirs, _ = _get_resolved_checkpoint_files(str(tmp_path), variant, None, None, {}, False)
    assert sorted(str(path) for path in found.paths) == sorted(theirs)
    assert chosen_files(theirs).paths == found.paths
    assert (found.index is None) == has_single


def test_a_name_in_the_config_counts(tmp_path: Path) -> None:
    fill(tmp_path, "model.safetensors", "own.safetensors")
    write_index(tmp_path, "own.safetensors.index.json", SHARDS)
    for named, names in (("own.safetensors", ["own.safetensors"]), ("own.safetensors.index.json", SHARDS)):
        assert list(find_files(tmp_path, {"transformers_weights": named}).names) == names


@pytest.mark.parametrize("named", ["", "..", "../own.safetensors", "/own.safetensors", "own.bin", 3, ["x"]])
def test_a_name_in_the_config_that_is_none(named: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="transformers_weights"):
        find_files(tmp_path, {"transformers_weights": named})


def test_what_was_chosen_must_be_safetensors_of_one_folder() -> None:
    for paths in (["/a/pytorch_model.bin"], ["/a/x.safetensors", "/b/x.safetensors"], ["/a/x.gguf"]):
        with pytest.raises(InputError, match=paths[-1]):
            chosen_files(paths)


def test_the_shards_of_one_set_are_one_family() -> None:
    assert chosen_files([f"/a/{name}" for name in SHARDS]).family == "model.safetensors"
    assert chosen_files(["/a/model.v2-00001-of-00009.safetensors"]).family == "model.v2.safetensors"
