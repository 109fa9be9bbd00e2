"""The error that each weight format costs: one layer against fp32 arithmetic on its bf16 weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.tensors import find_moe_layers
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.op import moe_forward
from trimoe.layer.source import ExpertSource, StridedView, source_of
from trimoe.measure.layer_bench import route, source_dtype
from trimoe.measure.reference import exact_forward, rel_error

__all__ = ["FormatError", "all_packings", "gaussian_errors", "model_errors"]

_TOKENS, _TOPK = 16, 4
_SIGMA = 0.02
Expert = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class FormatError:
    """Relative Frobenius error of a layer in one format.

    bits_per_weight counts everything that is packed, scales and padding too.
    """

    packed_format: str
    weights: str
    group: int
    activations: str
    bits_per_weight: float
    rel_error: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def all_packings(shape: LayerSpec) -> list[LayerSpec]:
    """The layer in every format, with every group and kind of activations that it leaves a choice of."""
    int4 = [
        replace(shape, weights="int4", group=group, activations=kind)
        for kind in ("int8", "bf16")
        for group in (32, 64, 128)
    ]
    return [replace(shape, weights=name) for name in ("fp32", "bf16", "int8", "fp8", "mxfp4")] + int4


def gaussian_errors(hidden: int = 2048, inter: int = 768, experts: int = 8) -> Iterator[FormatError]:
    """Each format on Gaussian weights of deviation 0.02 and Gaussian hidden states, 16 tokens, top-4.

    Hidden states and results are bf16, as in use, but for fp32 weights; the result's rounding counts.
    """
    generator = torch.Generator().manual_seed(11)

    def matrix(rows: int, cols: int) -> torch.Tensor:
        return torch.randn(rows, cols, generator=generator).mul_(_SIGMA).bfloat16()

    made = [(matrix(inter, hidden), matrix(inter, hidden), matrix(hidden, inter)) for _ in range(experts)]
    yield from _errors(LayerSpec(experts, hidden, inter), made.__getitem__)


def model_errors(folder: Path) -> Iterator[FormatError]:
    """Each format on the experts of the first such layer of a checkpoint in bf16 or fp32, gated with SiLU."""
    with Checkpoint(folder) as checkpoint:
        layer = next(iter(find_moe_layers(checkpoint).values()))
        made = [_tensors(layer.expert(index)) for index in range(layer.experts)]
    yield from _errors(LayerSpec(layer.experts, layer.hidden, layer.inter), made.__getitem__)


def _errors(shape: LayerSpec, expert: Callable[[int], Expert]) -> Iterator[FormatError]:
    ids, weights = route(_TOKENS, shape.experts, _TOPK, "uniform", seed=3)
    hidden = torch.randn(_TOKENS, shape.hidden, generator=torch.Generator().manual_seed(4)).bfloat16()
    exact = exact_forward(hidden, ids, weights, expert)
    count = 3 * shape.experts * shape.hidden * shape.inter
    for spec in all_packings(shape):
        layer = ExpertLayer(spec)
        for index in range(spec.experts):
            gate, up, down = (source_of(matrix) for matrix in expert(index))
            layer.pack_expert(index, gate, up, down)
        result = moe_forward(hidden.to(source_dtype(spec)), ids, weights, layer.handle)
        bits = 8 * spec.layer_bytes / count
        error = rel_error(result, exact)
        yield FormatError(spec.format_name, spec.weights, spec.packing.group, spec.activations, bits, error)
        layer.close()


def _tensors(source: ExpertSource) -> Expert:
    """Copies of an expert's matrices."""

    def tensor(view: StridedView | None) -> torch.Tensor:
        assert view is not None
        begin, end = view.extent
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[view.dtype]
        flat = torch.frombuffer(view.owner.read(begin, end - begin), dtype=dtype)
        return flat.as_strided(view.shape, view.strides)

    return tensor(source.gate), tensor(source.up), tensor(source.down)
