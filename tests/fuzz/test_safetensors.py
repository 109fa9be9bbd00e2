"""Checkpoints whose files were changed at random: read as they are now, or refused in one line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors import SafetensorError, deserialize

from support.fuzz import fuzz
from support.fuzz_checkpoints import LAYOUTS, checkpoint_files, plain_contents, read_tensors, write_files
from support.fuzz_files import json_bytes, mutated_bytes, mutated_json, replace_file, strange
from support.fuzz_limits import bounded
from support.fuzz_safetensors import (
    changed_data,
    changed_header,
    changed_length,
    twisted_header,
    written_again,
)
from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.compute_spec import ExpertMath, Packing
from trimoe.checkpoint.experts.tensors import find_moe_layers
from trimoe.checkpoint.moe_shape import checkpoint_moe_shape, config_moe_shape
from trimoe.checkpoint.non_expert_tensors import find_rest
from trimoe.checkpoint.safetensors_reader import SafetensorsFile
from trimoe.checkpoint.size_breakdown import weight_parts
from trimoe.cli.inspect import inspect
from trimoe.errors import TrimoeError
from trimoe.layer.expert_layer import LayerSpec
from trimoe.store.expert_store import ExpertStore, layer_specs
from trimoe.store.pack import pack_to_folder
from trimoe.store.packed_folder import PACKED_FILE, PackedFolder, problem_in_folder

pytestmark = pytest.mark.slow

Result = TypeVar("Result")
Way = Callable[[random.Random, bytes], bytes]
Opened = tuple[dict[int, LayerSpec], dict[int, bytes]]  # the layers of the experts, and their packed bytes
MODEL, INDEX = "model.safetensors", "model.safetensors.index.json"
OUTSIDE = "outside"  # beside the folder, and good: nothing may lead there
KEYS = (
    *("quantization_config", "quantization", "transformers_weights", "mlp_only_layers", "text_config"),
    *("mlp_layer_types", "first_k_dense_replace", "decoder_sparse_step", "zero_expert_num", "hidden_act"),
)
# Of a packed file: where the length of its JSON is, where the JSON begins, and where the layers begin.
_LENGTH_AT, _START_BYTES, _PAGE = 48, 56, 4096


def told(call: Callable[..., Result], *arguments: Any) -> Result | None:
    """What the call returns; None where it refuses as everything here should."""
    try:
        return call(*arguments)
    except TrimoeError as error:
        text = str(error)
        assert text.startswith("expected ") and "; got " in text and "; try " in text, text
        assert text.isprintable() and len(text) < 20_000, ascii(text)
        return None


def _read(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    with SafetensorsFile(path) as file:
        return {
            name: (entry.dtype, list(entry.shape), bytes(file.read(entry.begin, entry.nbytes)))
            for name, entry in file.tensors.items()
        }


@fuzz(rounds=600)
def test_a_file_is_read_as_safetensors_reads_it_or_refused(seed: int, tmp_path: Path) -> None:
    choose, path = random.Random(seed), tmp_path / "one.safetensors"
    raw = checkpoint_files(choose.choice(LAYOUTS[:-1]))[MODEL]
    whole = choose.choice((changed_data, written_again))
    way = choose.choice(
        (whole, twisted_header, twisted_header, changed_header, changed_length, mutated_bytes)
    )
    path.write_bytes(way(choose, whole(choose, raw)))
    with bounded(256 << 20):
        mine = told(_read, path)
    if mine is not None or way is whole:
        try:
            theirs = dict(deserialize(path.read_bytes()))
        except SafetensorError as error:
            raise AssertionError(f"{way.__name__}: read, but {error}") from error
        expected = {name: (one["dtype"], one["shape"], bytes(one["data"])) for name, one in theirs.items()}
        assert mine == expected, way.__name__


def _math(folder: Path) -> dict[int, ExpertMath]:
    with Checkpoint(folder) as checkpoint:
        packed = PackedFolder.of(checkpoint)
        if packed is None:
            layers = find_moe_layers(checkpoint)
            return {index: ExpertMath(gated=one.gated, bias=one.has_bias) for index, one in layers.items()}
        return {
            index: ExpertMath(spec.activation, spec.gated, spec.bias, spec.alpha, spec.limit)
            for index, spec in packed.specs.items()
        }


@pytest.fixture(scope="module")
def packed_files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """A folder as `trimoe pack --output` writes it."""
    source = tmp_path_factory.mktemp("packed") / "source"
    write_files(source, checkpoint_files("per_expert"))
    pack_to_folder(source, _math(source), Packing(), source.with_name("packed"))
    return {path.name: path.read_bytes() for path in source.with_name("packed").iterdir()}


def _look(folder: Path) -> None:
    """All that reads headers, each on its own."""
    problem_in_folder(folder, lambda nbytes: None)
    with Checkpoint(folder) as checkpoint:
        assert {path.parent for path in checkpoint.files.paths} == {folder}
        checkpoint.fingerprint()
        layers = told(find_moe_layers, checkpoint)
        if layers is not None:
            told(checkpoint_moe_shape, checkpoint, layers)
        for call in (find_rest, weight_parts):
            told(call, checkpoint)
        told(config_moe_shape, checkpoint.config)
        packed = told(PackedFolder.of, checkpoint)
        assert packed is None or packed.path.parent == folder


def _inspect(folder: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        inspect(folder, json_output=True)
    json.loads(out.getvalue())


def _specs(folder: Path) -> dict[int, LayerSpec]:
    with Checkpoint(folder) as checkpoint:
        return layer_specs(find_moe_layers(checkpoint), _math(folder), Packing())


def _open(folder: Path, use_cache: bool) -> Opened:
    store = ExpertStore.open(folder, _math(folder), use_cache=use_cache)
    specs = {index: layer.spec.packing for index, layer in store.layers.items()}
    contents = {index: bytes(layer.memory) for index, layer in store.layers.items()}
    store.close()
    return specs, contents


def _pack(folder: Path) -> Opened:
    """What is in a packed folder that was made of it."""
    output = folder.with_name(f"{folder.name}-packed")
    pack_to_folder(folder, _math(folder), Packing(), output)
    return _open(output, False)


def _bits(tensor: torch.Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    return tensor.dtype, tensor.shape, tensor.flatten().view(torch.uint8).numpy().tobytes()


def _changed_packed(choose: random.Random, raw: bytes) -> bytes:
    """Another header, with a checksum as if it had been written so."""
    length = int.from_bytes(raw[_LENGTH_AT:_START_BYTES], "little")
    text = _changed_digit(choose, raw[_START_BYTES : _START_BYTES + length])
    header = json.loads(text)
    if choose.random() < 0.5:
        text = json_bytes(choose, mutated_json(choose, header))
    sums_at, sums_bytes = _START_BYTES + length, 8 * len(header["layer_bytes"])
    head = raw[:_LENGTH_AT] + len(text).to_bytes(8, "little") + text + raw[sums_at : sums_at + sums_bytes]
    new = head + zlib.crc32(head).to_bytes(4, "little")
    return new.ljust(-(-len(new) // _PAGE) * _PAGE, b"\0") + raw[_PAGE:]


def _changed_digit(choose: random.Random, raw: bytes) -> bytes:
    at = choose.choice([one.start() for one in re.finditer(rb"\d", raw[:1024])])
    return raw[:at] + choose.choice(b"123456789").to_bytes(1, "little") + raw[at + 1 :]


def _changed_json(choose: random.Random, raw: bytes) -> bytes:
    value = json.loads(raw)
    for _ in range(choose.choice((1, 1, 2))):
        value = mutated_json(choose, value)
    if choose.random() < 0.3 and isinstance(value, dict):
        value[choose.choice(choose.choice((KEYS, [*value, KEYS[0]])))] = strange(choose)
    return json_bytes(choose, value)


def _led_outside(choose: random.Random, raw: bytes) -> bytes:
    value = json.loads(raw)
    if "weight_map" in value:
        value["weight_map"][choose.choice(list(value["weight_map"]))] = f"../{OUTSIDE}.safetensors"
    elif "packed" in value.get("quantization_config", ()):
        value["quantization_config"]["packed"] = f"../{OUTSIDE}.trimoe"
    else:
        value["transformers_weights"] = f"../{OUTSIDE}.safetensors"
    return json.dumps(value).encode()


WAYS: dict[str, tuple[Way, ...]] = {
    ".safetensors": (
        *(changed_data, written_again, twisted_header),
        *(changed_header, changed_length, mutated_bytes),
    ),
    ".json": (_changed_json, _changed_json, _changed_json, _led_outside, mutated_bytes),
    ".trimoe": (_changed_packed, _changed_packed, _changed_digit, mutated_bytes),
}  # fmt: skip


def _mutate(choose: random.Random, folder: Path) -> tuple[Path, Way | None]:
    """Changes a file of the folder: which, and in which of the ways, if in one."""
    names = sorted(path.name for path in folder.iterdir() if path.name != "tokenizer.json")
    path = folder / choose.choice(names + [name for name in names if name == PACKED_FILE] * 4)
    change = choose.random()
    if change < 0.1:
        replace_file(choose, path, folder / choose.choice(names))
        return path, None
    if change < 0.15:
        new = choose.choice(("a.safetensors", INDEX, "adapter_config.json", "x.gguf", PACKED_FILE))
        content = choose.choice((b"", b"{}", (folder / choose.choice(names)).read_bytes()))
        (folder / new).write_bytes(content)
        return folder / new, None
    way = choose.choice(WAYS[path.suffix])
    path.write_bytes(way(choose, path.read_bytes()))
    return path, way


@fuzz(rounds=300)
def test_a_checkpoint_is_packed_as_it_is_or_refused(seed: int, tmp_path: Path) -> None:
    choose, folder = random.Random(seed), tmp_path / str(seed)
    (tmp_path / OUTSIDE).with_suffix(".safetensors").write_bytes(checkpoint_files("per_expert")[MODEL])
    layout = choose.choice((*LAYOUTS, "sharded", "sharded"))
    write_files(folder, checkpoint_files(layout))
    path, way = _mutate(choose, folder)
    what, is_whole = f"{layout}, {path.name}, {way}", way in (changed_data, written_again)
    names = sorted(path for path in folder.iterdir() if path.suffix == ".safetensors")
    before = sorted(os.listdir(folder))
    with bounded(256 << 20):
        told(_look, folder)
        told(_inspect, folder)
        opened = told(_open, folder, choose.random() < 0.5)
        again = told(_pack, folder)
        specs = told(_specs, folder)
    assert sorted(os.listdir(folder)) == before, what
    if way and path.suffix == ".safetensors" and (specs or is_whole):
        tensors = read_tensors(names)
        contents = plain_contents(tensors, layout, specs or {})
        assert (opened and opened[1]) == contents and (again == opened or not is_whole), what
        if again is not None:
            rest = read_tensors([folder.with_name(f"{seed}-packed") / MODEL])
            assert {name for name in tensors if not {"experts", "mtp"} & {*name.split(".")}} <= {*rest}, what
            assert all(_bits(tensor) == _bits(tensors[name]) for name, tensor in rest.items()), what
    assert again in (None, opened), what
    for made in (folder, folder.with_name(f"{seed}-packed")):
        shutil.rmtree(made, ignore_errors=True)


@fuzz(rounds=300)
def test_packed_experts_are_those_that_were_packed_or_refused(
    seed: int, tmp_path: Path, packed_files: Mapping[str, bytes]
) -> None:
    choose, folder = random.Random(seed), tmp_path / str(seed)
    (tmp_path / OUTSIDE).with_suffix(".trimoe").write_bytes(packed_files[PACKED_FILE])
    write_files(folder, packed_files)
    unchanged = _open(folder, False)
    path, way = _mutate(choose, folder)
    with bounded(256 << 20):
        told(_look, folder)
        opened = told(_open, folder, choose.random() < 0.5)
    what, is_whole = f"{path.name}, {way}", way in (changed_data, written_again)
    assert way is _changed_packed or opened == unchanged or (opened is None and not is_whole), what
    shutil.rmtree(folder)
