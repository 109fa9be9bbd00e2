"""Packing of sources in fp8 and mxfp4: kept bit for bit in their own format, exact in wider ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from support.packed import Matrix, decode, read
from support.quantised import from_mxfp4
from trimoe.errors import InputError
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.source import StridedView, source_of

H, I = 300, 202  # neither a multiple of a block, a k tile or a panel  # noqa: E741
SHAPES = {"gate": (I, H), "up": (I, H), "down": (H, I)}
Parts = dict[str, tuple[torch.Tensor, torch.Tensor]]


def _fp8_parts(block: tuple[int, int], scale_dtype: torch.dtype = torch.float32) -> Parts:
    """Every code that is a number, with scales of any sign."""
    generator = torch.Generator().manual_seed(1)
    parts: Parts = {}
    for name, (rows, cols) in SHAPES.items():
        codes = torch.randint(0, 256, (rows, cols), generator=generator, dtype=torch.int64)
        codes = torch.where(codes % 128 == 127, 0, codes).to(torch.uint8).view(torch.float8_e4m3fn)
        scale = torch.randn(-(-rows // block[0]), -(-cols // block[1]), generator=generator)
        if scale_dtype == torch.float8_e8m0fnu:
            scale = scale.abs().clamp_min(1e-3)
        parts[name] = codes, scale.to(scale_dtype)
    return parts


def _mxfp4_parts() -> Parts:
    """Every code and every exponent but NaN's; rows are padded to whole groups, as checkpoints have them."""
    generator = torch.Generator().manual_seed(2)
    parts: Parts = {}
    for name, (rows, cols) in SHAPES.items():
        codes = torch.randint(0, 256, (rows, cols // 2), generator=generator).to(torch.uint8)
        exponents = torch.randint(0, 255, (rows, -(-cols // 32)), generator=generator).to(torch.uint8)
        parts[name] = codes, exponents
    return parts


def _pack(weights: str, sources: dict[str, StridedView]) -> ExpertLayer:
    layer = ExpertLayer(LayerSpec(1, H, I, weights))
    layer.pack_expert(0, **sources)
    return layer


def _sources(parts: Parts, block: tuple[int, int]) -> dict[str, StridedView]:
    return {name: source_of(codes, scale, block) for name, (codes, scale) in parts.items()}


def _spread(scale: torch.Tensor, block: tuple[int, int], shape: torch.Size) -> torch.Tensor:
    return scale.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[: shape[0], : shape[1]]


def _assert_equal_codes(matrix: Matrix, codes: torch.Tensor) -> None:
    assert torch.equal(matrix.codes, codes) and torch.equal(matrix.codes.signbit(), codes.signbit())


@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e8m0fnu])
@pytest.mark.parametrize("block", [(128, 128), (16, 128), (64, 256), (1000, 1000)])
def test_fp8_codes_and_scales_are_kept(block: tuple[int, int], scale_dtype: torch.dtype) -> None:
    parts = _fp8_parts(block, scale_dtype)
    matrices, _ = read(_pack("fp8", _sources(parts, block)), 0)
    for name, (codes, scale) in parts.items():
        _assert_equal_codes(matrices[name], codes.double())
        spread = _spread(scale.double(), block, codes.shape)[:, ::128]
        assert torch.equal(matrices[name].scales[:, : spread.shape[1]], spread)


def test_fp8_without_scales_is_kept() -> None:
    parts = _fp8_parts((128, 128))
    matrices, _ = read(_pack("fp8", {name: source_of(codes) for name, (codes, _) in parts.items()}), 0)
    for name, (codes, _) in parts.items():
        _assert_equal_codes(matrices[name], codes.double())
        assert torch.equal(matrices[name].scales, torch.ones_like(matrices[name].scales))


def test_mxfp4_codes_and_exponents_are_kept() -> None:
    parts = _mxfp4_parts()
    matrices, _ = read(_pack("mxfp4", _sources(parts, (1, 32))), 0)
    for name, (codes, exponents) in parts.items():
        _assert_equal_codes(matrices[name], from_mxfp4(*_ungrouped(codes)).double())
        kept, padding = matrices[name].scales.tensor_split([exponents.shape[1]], 1)
        assert torch.equal(kept, torch.exp2(exponents.double() - 127))
        assert (padding == 1).all()


def _ungrouped(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As one group per row with the scale 1, whatever the row's length."""
    return codes[:, None], torch.full((codes.shape[0], 1), 127, dtype=torch.uint8)


Layout = Callable[[torch.Tensor], torch.Tensor]
LAYOUTS: dict[str, Layout] = {
    "interleaved": lambda tensor: torch.stack([tensor, tensor.flip(0)], 1).flatten(0, 1)[0::2],
    "wider": lambda tensor: torch.cat([tensor, tensor.flip(1)], 1)[:, : tensor.shape[1]],
    "unaligned": lambda tensor: _at_odd_address(tensor),
    "transposed": lambda tensor: tensor.T.contiguous().T,
}


def _at_odd_address(tensor: torch.Tensor) -> torch.Tensor:
    size = tensor.element_size()
    raw = torch.empty(tensor.numel() * size + 1, dtype=torch.uint8)
    moved = torch.frombuffer(raw.numpy(), dtype=tensor.dtype, offset=1).view(tensor.shape)
    moved.copy_(tensor)
    return moved


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("weights", ["fp8", "mxfp4", "bf16"])
def test_layouts_of_fp8_pack_alike(weights: str, layout: str) -> None:
    """Codes and scales each in the layout; gpt-oss interleaves both."""
    parts = _fp8_parts((128, 128))
    change = LAYOUTS[layout]
    moved = {name: (_as_bytes(change, codes), change(scale)) for name, (codes, scale) in parts.items()}
    plain, other = (_pack(weights, _sources(p, (128, 128))) for p in (parts, moved))
    assert bytes(plain.memory) == bytes(other.memory)


def _as_bytes(change: Layout, codes: torch.Tensor) -> torch.Tensor:
    return change(codes.view(torch.uint8)).view(torch.float8_e4m3fn)


@pytest.mark.parametrize("layout", ["interleaved", "wider", "unaligned"])
@pytest.mark.parametrize("weights", ["mxfp4", "int4", "fp32"])
def test_layouts_of_mxfp4_pack_alike(weights: str, layout: str) -> None:
    parts = {name: (codes, exponents % 60 + 100) for name, (codes, exponents) in _mxfp4_parts().items()}
    change = LAYOUTS[layout]
    moved = {name: (change(codes), change(exponents)) for name, (codes, exponents) in parts.items()}
    plain, other = (_pack(weights, _sources(p, (1, 32))) for p in (parts, moved))
    assert bytes(plain.memory) == bytes(other.memory)


@pytest.mark.parametrize("weights", ["mxfp4", "int4", "fp32"])
def test_rows_may_lie_backwards(weights: str) -> None:
    parts = {name: (codes, exponents % 60 + 100) for name, (codes, exponents) in _mxfp4_parts().items()}
    flipped = {name: (codes.flip(0), exponents.flip(0)) for name, (codes, exponents) in parts.items()}
    backwards = {name: _backwards(source) for name, source in _sources(flipped, (1, 32)).items()}
    plain, other = (_pack(weights, sources) for sources in (_sources(parts, (1, 32)), backwards))
    assert bytes(plain.memory) == bytes(other.memory)


def _backwards(source: StridedView) -> StridedView:
    bits, (step, col_stride) = 4 if source.dtype == "mxfp4" else 8, source.strides
    end = source.address + (source.shape[0] - 1) * step * bits // 8
    scale = source.scale and _backwards(source.scale)
    return replace(source, address=end, strides=(-step, col_stride), scale=scale)


def test_an_odd_number_of_mxfp4_columns_ends_in_half_a_byte() -> None:
    """Whatever the other half holds."""
    codes = torch.randint(0, 256, (64, 32), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    scale = torch.full((64, 2), 127, dtype=torch.uint8)
    layers = []
    for garbage in (0, 0xF0):
        odd = codes.clone()
        odd[:, 31] = odd[:, 31] & 15 | garbage
        layer = ExpertLayer(LayerSpec(1, 63, 64, "mxfp4", gated=False))
        up = replace(source_of(odd, scale, (1, 32)), shape=(64, 63))
        layer.pack_expert(0, None, up, source_of(codes[:63], scale[:63], (1, 32)))
        layers.append(bytes(layer.memory))
    assert layers[0] == layers[1]


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_fp8_in_wider_formats_is_exact(weights: str) -> None:
    """NaN codes included."""
    parts = _fp8_parts((128, 128), torch.float8_e8m0fnu)
    parts["up"][0].view(torch.uint8)[3, 4:6] = torch.tensor([0x7F, 0xFF], dtype=torch.uint8)
    packed = decode(_pack(weights, _sources(parts, (128, 128))), 0)
    for name, (codes, scale) in parts.items():
        exact = codes.double() * _spread(scale.double(), (128, 128), codes.shape)
        torch.testing.assert_close(packed[name], exact, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_mxfp4_in_wider_formats_is_exact(weights: str) -> None:
    parts = _mxfp4_parts()
    for _, exponents in parts.values():
        exponents.clamp_(2, 250)  # beyond, a product leaves the range of fp32's normal numbers
    packed = decode(_pack(weights, _sources(parts, (1, 32))), 0)
    for name, (codes, exponents) in parts.items():
        values = from_mxfp4(*_ungrouped(codes)).double()
        exact = values * _spread(torch.exp2(exponents.double() - 127), (1, 32), values.shape)
        assert torch.equal(packed[name], exact)


@pytest.mark.parametrize("block", [(1, 1000), (8, 128), (128, 64), (24, 128)])
def test_blocks_that_fp8_s_do_not_cover_are_quantised_anew(block: tuple[int, int]) -> None:
    parts = _fp8_parts(block)
    packed = decode(_pack("fp8", _sources(parts, block)), 0)
    for name, (codes, scale) in parts.items():
        exact = codes.double() * _spread(scale.double(), block, codes.shape)
        assert 0 < (packed[name] - exact).norm() / exact.norm() < 0.03


def test_mxfp4_of_other_blocks_is_quantised_anew() -> None:
    parts = {
        name: (codes, exponents[:, ::2] % 4 + 120) for name, (codes, exponents) in _mxfp4_parts().items()
    }
    for block, scales in (((1, 64), None), ((1, 64), torch.float32)):
        given = {name: (codes, _as(scale, scales)) for name, (codes, scale) in parts.items()}
        packed = decode(_pack("mxfp4", _sources(given, block)), 0)
        for name, (codes, exponents) in parts.items():
            values = from_mxfp4(*_ungrouped(codes)).double()
            exact = values * _spread(torch.exp2(exponents.double() - 127), block, values.shape)
            assert torch.equal(packed[name], exact)


def test_mxfp4_of_smaller_blocks_is_quantised_anew() -> None:
    parts = _mxfp4_parts()
    parts = {
        name: (codes, torch.cat([e, e], 1)[:, : -(-codes.shape[1] * 2 // 16)])
        for name, (codes, e) in parts.items()
    }
    for _, exponents in parts.values():
        exponents.remainder_(3).add_(126)
    packed = decode(_pack("mxfp4", _sources(parts, (1, 16))), 0)
    for name, (codes, exponents) in parts.items():
        values = from_mxfp4(*_ungrouped(codes)).double()
        exact = values * _spread(torch.exp2(exponents.double() - 127), (1, 16), values.shape)
        assert 0 < (packed[name] - exact).norm() / exact.norm() < 0.2


def _as(exponents: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return exponents if dtype is None else torch.exp2(exponents.float() - 127).to(dtype)


@pytest.mark.parametrize("part", list(SHAPES))
@pytest.mark.parametrize("code", [0x7F, 0xFF])
@pytest.mark.parametrize("weights", ["fp8", "mxfp4", "int8", "int4"])
def test_a_nan_code_of_fp8_is_an_error(weights: str, code: int, part: str) -> None:
    for column in (-1, -2, -3, -4):  # every byte of a dword
        parts = _fp8_parts((128, 128))
        parts[part][0].view(torch.uint8)[-1, column] = code
        with pytest.raises(InputError, match=f"finite weights.*NaN or infinity in {part}, rows"):
            _pack(weights, _sources(parts, (128, 128)))


@pytest.mark.parametrize("part", list(SHAPES))
@pytest.mark.parametrize("weights", ["mxfp4", "fp8", "int8", "int4"])
def test_a_nan_exponent_is_an_error(weights: str, part: str) -> None:
    parts = {name: (codes, exponents % 60 + 100) for name, (codes, exponents) in _mxfp4_parts().items()}
    parts[part][1][-1, -1] = 255
    with pytest.raises(InputError, match=f"NaN or infinity in {part}, rows"):
        _pack(weights, _sources(parts, (1, 32)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_scale_of_fp8_that_is_no_number_is_an_error(value: float) -> None:
    parts = _fp8_parts((128, 128))
    parts["down"][1][-1, -1] = value
    with pytest.raises(InputError, match="NaN or infinity in down, rows"):
        _pack("fp8", _sources(parts, (128, 128)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, scale=None), "scales beside mxfp4 weights"),
        (lambda s: replace(s, strides=(s.strides[0], 2)), "mxfp4 weights of contiguous columns"),
        (lambda s: replace(s, strides=(303, 1)), "rows of whole bytes"),
        (lambda s: replace(s, block=(1, 64)), r"one scale per block of weights; got \[202, 10\]"),
        (lambda s: replace(s, block=(0, 32)), "blocks of at least one row and column"),
        (lambda s: replace(s, dtype="e8m0"), "weights of fp32, bf16, fp16, fp8 or mxfp4; got e8m0"),
        (lambda s: replace(s, dtype="int64"), "a source's type out of fp32, .*, e8m0; got int64"),
        (
            lambda s: replace(s, scale=replace(s.scale, dtype="fp8")),
            "scales of fp32, bf16, fp16 or e8m0; got fp8",
        ),
        (
            lambda s: replace(s, scale=replace(s.scale, shape=(201, 10))),
            r"one scale per block of weights; got \[201, 10\]",
        ),
    ],
)
def test_bad_sources_are_errors(change: Callable[[Any], Any], message: str) -> None:
    sources = _sources(_mxfp4_parts(), (1, 32))
    sources["up"] = change(sources["up"])
    with pytest.raises(InputError, match=message):
        _pack("mxfp4", sources)
