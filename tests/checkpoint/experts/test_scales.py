"""Experts in fp8 and mxfp4: views of codes and scales where they lie, and one error for each damage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.reader import file_ranges
from trimoe.checkpoint.experts.tensors import MoeLayerTensors, find_moe_layers
from trimoe.checkpoint.quant_scheme import UnsupportedDtypeError
from trimoe.errors import InputError
from trimoe.layer.source import ELEMENT_BITS, StridedView

Write = Callable[..., Path]
Specs = dict[str, Any]
PREFIX = "model.layers.0.mlp.experts"
E, H, INTER = 2, 200, 136  # two blocks of 128 each way, the second ones narrow
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
MXFP4 = {"quant_method": "mxfp4"}


def config(quantization: Mapping[str, Any] | None, model_type: str = "new_moe") -> dict[str, Any]:
    base = {"model_type": model_type, "num_hidden_layers": 1, "num_experts": E}
    return base if quantization is None else {**base, "quantization_config": quantization}


def blocks(size: int) -> int:
    return -(-size // 128)


def fp8_singles(scale: str = "F32", names: str = "gate_proj up_proj down_proj") -> Specs:
    gate, up, down = names.split()
    tensors: Specs = {}
    for expert in range(E):
        for name, (rows, cols) in {gate: (INTER, H), up: (INTER, H), down: (H, INTER)}.items():
            weight = f"{PREFIX}.{expert}.{name}.weight"
            tensors[weight] = ("F8_E4M3", (rows, cols))
            tensors[f"{weight}_scale_inv"] = (scale, (blocks(rows), blocks(cols)))
    return tensors


def fp8_stacks(inter: int = 256, transposed: bool = False) -> Specs:
    def order(rows: int, cols: int) -> tuple[int, int, int]:
        return (E, cols, rows) if transposed else (E, rows, cols)

    return {
        f"{PREFIX}.gate_up_proj": ("F8_E4M3", order(2 * inter, H)),
        f"{PREFIX}.gate_up_proj_scale_inv": ("F32", order(blocks(2 * inter), blocks(H))),
        f"{PREFIX}.down_proj": ("F8_E4M3", order(H, inter)),
        f"{PREFIX}.down_proj_scale_inv": ("F32", order(blocks(H), blocks(inter))),
    }


def mxfp4(hidden: int = 64, inter: int = 96, scale: str = "U8") -> Specs:
    return {
        f"{PREFIX}.gate_up_proj_blocks": ("U8", (E, 2 * inter, hidden // 32, 16)),
        f"{PREFIX}.gate_up_proj_scales": (scale, (E, 2 * inter, hidden // 32)),
        f"{PREFIX}.gate_up_proj_bias": ("BF16", (E, 2 * inter)),
        f"{PREFIX}.down_proj_blocks": ("U8", (E, hidden, inter // 32, 16)),
        f"{PREFIX}.down_proj_scales": (scale, (E, hidden, inter // 32)),
        f"{PREFIX}.down_proj_bias": ("BF16", (E, hidden)),
    }


def open_layer(folder: Path) -> tuple[Checkpoint, MoeLayerTensors]:
    checkpoint = Checkpoint(folder)
    return checkpoint, find_moe_layers(checkpoint)[0]


def elements(view: StridedView) -> torch.Tensor:
    """The raw codes [rows, cols] that the view names."""
    begin, end = view.extent
    raw, bits = view.owner.read(begin, end - begin), ELEMENT_BITS[view.dtype]
    if bits == 4:
        pairs = torch.frombuffer(raw, dtype=torch.uint8)
        flat = torch.stack([pairs & 15, pairs >> 4], 1).flatten()
    else:
        flat = torch.frombuffer(raw, dtype={8: torch.uint8, 16: torch.int16, 32: torch.int32}[bits])
    return flat.as_strided(view.shape, view.strides).clone()


def stored(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    entry = checkpoint.entry(name)
    dtype = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[entry.nbytes // torch.Size(entry.shape).numel()]
    return torch.frombuffer(checkpoint.read(name), dtype=dtype).view(entry.shape)


def scale_of(view: StridedView) -> StridedView:
    assert view.scale is not None
    return view.scale


def nbytes_of(layer: MoeLayerTensors) -> int:
    return sum(part.nbytes for e in range(E) for part in file_ranges(layer.expert(e)))


@pytest.mark.parametrize("names", ["gate_proj up_proj down_proj", "w1 w3 w2"])
@pytest.mark.parametrize("scale", ["F32", "BF16", "F8_E8M0"])
def test_single_matrices_in_fp8_have_their_scales(write_checkpoint: Write, scale: str, names: str) -> None:
    tensors = fp8_singles(scale, names)
    checkpoint, layer = open_layer(write_checkpoint(config(FP8), {"model.safetensors": tensors}))
    assert (layer.experts, layer.hidden, layer.inter, layer.dtype) == (E, H, INTER, "F8_E4M3")
    assert set(layer.names) == set(tensors)
    for expert in range(E):
        source = layer.expert(expert)
        for part, name in zip((source.gate, source.up, source.down), names.split(), strict=True):
            assert part is not None
            assert part.block == (128, 128)
            full = f"{PREFIX}.{expert}.{name}.weight"
            assert torch.equal(elements(part), stored(checkpoint, full))
            assert torch.equal(elements(scale_of(part)), stored(checkpoint, f"{full}_scale_inv"))
    assert nbytes_of(layer) == layer.nbytes


@pytest.mark.parametrize("transposed", [False, True])
def test_stacks_in_fp8_have_their_scales(write_checkpoint: Write, transposed: bool) -> None:
    folder = write_checkpoint(config(FP8), {"model.safetensors": fp8_stacks(256, transposed)})
    checkpoint, layer = open_layer(folder)
    assert (layer.experts, layer.hidden, layer.inter, layer.gated) == (E, H, 256, True)

    def matrices(name: str) -> torch.Tensor:
        found = stored(checkpoint, f"{PREFIX}.{name}")
        return found.transpose(1, 2) if transposed else found

    codes, scales = matrices("gate_up_proj"), matrices("gate_up_proj_scale_inv")
    for expert in range(E):
        source = layer.expert(expert)
        assert source.gate is not None
        assert torch.equal(elements(source.gate), codes[expert, :256])
        assert torch.equal(elements(source.up), codes[expert, 256:])
        assert torch.equal(elements(scale_of(source.gate)), scales[expert, :2])
        assert torch.equal(elements(scale_of(source.up)), scales[expert, 2:])
        assert torch.equal(elements(source.down), matrices("down_proj")[expert])
        assert torch.equal(elements(scale_of(source.down)), matrices("down_proj_scale_inv")[expert])


@pytest.mark.parametrize("scale", ["U8", "F8_E8M0"])
@pytest.mark.parametrize("hidden", [64, 96, 192])  # H = I and H = 2I too
def test_interleaved_stacks_in_mxfp4_have_their_scales(
    write_checkpoint: Write, hidden: int, scale: str
) -> None:
    tensors = mxfp4(hidden, 96, scale)
    folder = write_checkpoint(config(MXFP4, "gpt_oss"), {"model.safetensors": tensors})
    checkpoint, layer = open_layer(folder)
    assert (layer.hidden, layer.inter, layer.dtype, layer.has_bias) == (hidden, 96, "MXFP4", True)

    def codes(name: str) -> torch.Tensor:
        packed = stored(checkpoint, f"{PREFIX}.{name}")
        return torch.stack([packed & 15, packed >> 4], -1).flatten(-3)

    for expert in range(E):
        source = layer.expert(expert)
        assert source.gate is not None
        both, scales = codes("gate_up_proj_blocks"), stored(checkpoint, f"{PREFIX}.gate_up_proj_scales")
        assert torch.equal(elements(source.gate), both[expert, 0::2])
        assert torch.equal(elements(source.up), both[expert, 1::2])
        assert torch.equal(elements(source.down), codes("down_proj_blocks")[expert])
        assert torch.equal(elements(scale_of(source.gate)), scales[expert, 0::2])
        assert torch.equal(elements(scale_of(source.up)), scales[expert, 1::2])
        assert source.up.block == (1, 32)
        assert source.up.dtype == "mxfp4" and scale_of(source.up).dtype == "e8m0"
    assert nbytes_of(layer) == layer.nbytes


def test_unaligned_files_are_views_all_the_same(
    tmp_path: Path, write_safetensors: Callable[..., dict[str, bytes]]
) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}'
    )
    write_safetensors(tmp_path / "model.safetensors", mxfp4(), pad=1)
    checkpoint, layer = open_layer(tmp_path)
    up = layer.expert(1).up
    codes = stored(checkpoint, f"{PREFIX}.gate_up_proj_blocks")[1, 1::2].flatten(1)
    assert torch.equal(elements(up)[:, 0::2], codes & 15) and torch.equal(elements(up)[:, 1::2], codes >> 4)


def without(tensors: Specs, *names: str) -> Specs:
    return {name: spec for name, spec in tensors.items() if name.removeprefix(f"{PREFIX}.") not in names}


def replaced(tensors: Specs, name: str, spec: Any) -> Specs:
    assert f"{PREFIX}.{name}" in tensors
    return {**tensors, f"{PREFIX}.{name}": spec}


UP = "0.up_proj.weight"
DAMAGES: dict[str, tuple[Mapping[str, Any] | None, Specs, str]] = {
    "a scale": (
        FP8,
        without(fp8_singles(), f"{UP}_scale_inv"),
        r"experts\.0\.up_proj\.weight_scale_inv; got .*without",
    ),
    "all scales": (
        FP8,
        {name: spec for name, spec in fp8_singles().items() if "scale" not in name},
        r"experts\.0\.\w+_proj\.weight_scale_inv",
    ),
    "scale's shape": (
        FP8,
        replaced(fp8_singles(), f"{UP}_scale_inv", ("F32", (1, 2))),
        r"\(2, 2\) of .*up_proj.*\(1, 2\)",
    ),
    "scale per row": (
        FP8,
        replaced(fp8_singles(), f"{UP}_scale_inv", ("F32", (INTER, 1))),
        r"\(2, 2\).*\(136, 1\)",
    ),
    "scale's dtype": (FP8, fp8_singles("I32"), r"scales of dtype F32 or BF16.*got I32"),
    "mixed scales": (
        FP8,
        replaced(fp8_singles(), f"{UP}_scale_inv", ("BF16", (2, 2))),
        r"dtype F32 of .*got BF16",
    ),
    "mixed weights": (FP8, replaced(fp8_singles(), UP, ("BF16", (INTER, H))), r"dtype F8_E4M3 of .*got BF16"),
    "scaled bf16": (
        FP8,
        {
            name: ("BF16", spec[1]) if name.endswith("weight") else spec
            for name, spec in fp8_singles().items()
        },
        r"of dtype F8_E4M3, since .*_scale_inv has scales.*got dtype BF16",
    ),
    "stack's scale": (FP8, without(fp8_stacks(), "down_proj_scale_inv"), r"experts\.down_proj_scale_inv"),
    "stack's scale's shape": (
        FP8,
        replaced(fp8_stacks(), "down_proj_scale_inv", ("F32", (E, 2, 1))),
        r"\(2, 2, 2\) of .*down_proj_scale_inv.*\(2, 2, 1\)",
    ),
    "blocks' scales": (MXFP4, without(mxfp4(), "down_proj_scales"), r"experts\.down_proj_scales"),
    "blocks": (MXFP4, without(mxfp4(), "gate_up_proj_blocks"), r"experts\.gate_up_proj"),
    "block's bytes": (
        MXFP4,
        replaced(mxfp4(), "down_proj_blocks", ("U8", (E, 64, 3, 8))),
        r"blocks of 16 bytes in .*down_proj_blocks.*\(2, 64, 3, 8\)",
    ),
    "flat blocks": (
        MXFP4,
        replaced(mxfp4(), "down_proj_blocks", ("U8", (E, 64, 16))),
        r"a stack of matrices",
    ),
    "blocks' shape": (
        MXFP4,
        replaced(mxfp4(), "down_proj_blocks", ("U8", (E, 32, 3, 16))),
        r"down_proj_blocks|gate_up_proj_blocks",
    ),
    "scales' shape": (
        MXFP4,
        replaced(mxfp4(), "down_proj_scales", ("U8", (E, 64, 2))),
        r"\(2, 64, 3\).*\(2, 64, 2\)",
    ),
    "scales' dtype": (MXFP4, mxfp4(scale="F32"), r"scales of dtype U8 or F8_E8M0.*got F32"),
    "one in blocks": (
        MXFP4,
        {
            **without(mxfp4(), "down_proj_blocks", "down_proj_scales"),
            f"{PREFIX}.down_proj": ("BF16", (E, 64, 96)),
        },
        r"dtype BF16 of .*gate_up_proj_blocks.*got MXFP4",
    ),
    "both": (
        MXFP4,
        {**mxfp4(), f"{PREFIX}.down_proj": ("BF16", (E, 64, 96))},
        r"both .*down_proj\w* and .*down_proj",
    ),
    "a bias": (MXFP4, without(mxfp4(), "down_proj_bias"), r"experts\.down_proj_bias"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(write_checkpoint: Write, damage: str) -> None:
    quantization, tensors, message = DAMAGES[damage]
    folder = write_checkpoint(config(quantization, "gpt_oss"), {"model.safetensors": tensors})
    with Checkpoint(folder) as checkpoint:
        with pytest.raises(InputError, match=message) as caught:
            find_moe_layers(checkpoint)
        assert not isinstance(caught.value, UnsupportedDtypeError)
        assert "\n" not in str(caught.value)


def renamed(tensors: Specs, old: str, new: str) -> Specs:
    return {name.replace(old, new): spec for name, spec in tensors.items()}


UNSUPPORTED: dict[str, tuple[Mapping[str, Any] | None, Specs, str]] = {
    "no config": (None, fp8_singles(), "F8_E4M3 with quant_method None"),
    "mxfp4 without config": (None, mxfp4(), "gate_up_proj_blocks of dtype U8 with quant_method None"),
    "mxfp4 called fp8": (FP8, mxfp4(), "dtype U8 with quant_method fp8"),
    "fp8 called mxfp4": (MXFP4, fp8_singles(), "F8_E4M3 with quant_method mxfp4"),
    "other blocks": (
        {**FP8, "weight_block_size": [64, 128]},
        fp8_singles(),
        r"weight_block_size \[64, 128\]",
    ),
    "no blocks": ({**FP8, "weight_block_size": None}, fp8_singles(), "weight_block_size None"),
    "static": ({**FP8, "activation_scheme": "static"}, fp8_singles(), "activation_scheme 'static'"),
    "activation scales": (
        FP8,
        {**fp8_singles(), f"{PREFIX}.0.up_proj.activation_scale": ("F32", ())},
        "activation_scale of dtype F32, a part of a format",
    ),
    "compressed-tensors": (
        {"quant_method": "compressed-tensors"},
        renamed(fp8_singles("BF16"), "_scale_inv", "_scale"),
        "quant_method compressed-tensors",
    ),
    "awq": (
        {"quant_method": "awq"},
        {f"{PREFIX}.0.up_proj.{part}": ("I32", (16, 4)) for part in ("qweight", "qzeros", "scales")},
        r"qweight of dtype I32, a part of a format that trimoe does not know, with quant_method awq",
    ),
    "e5m2": (FP8, {**fp8_singles(), f"{PREFIX}.0.up_proj.weight": ("I8", (INTER, H))}, "I8"),
    "stack with a block of both": (FP8, fp8_stacks(192), r"blocks of 128 rows and an inner width of 192"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_is_not_read_is_said_with_what_is(write_checkpoint: Write, case: str) -> None:
    quantization, tensors, message = UNSUPPORTED[case]
    folder = write_checkpoint(config(quantization), {"model.safetensors": tensors})
    with (
        Checkpoint(folder) as checkpoint,
        pytest.raises(UnsupportedDtypeError, match=rf"F32, BF16, F16, F8_E4M3.*MXFP4.*got .*{message}"),
    ):
        find_moe_layers(checkpoint)
