"""A layer's experts stored as stacks of all of them: checks, and views of one expert."""

from __future__ import annotations

from collections.abc import Mapping

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.checks import ANOTHER_FILE, check_dtype, check_shape, missing
from trimoe.checkpoint.experts.layer_storage import Key, LayerStorage
from trimoe.checkpoint.experts.names import PARTNERS
from trimoe.checkpoint.experts.scales import BLOCKS, check_scales, logical_shape, scaled, stored_format
from trimoe.checkpoint.quant_scheme import unsupported
from trimoe.errors import InputError
from trimoe.layer.source import ExpertSource, StridedView

__all__ = ["stacked_storage"]

_UP, _DOWN, _GATE_UP = ("up", "weight"), ("down", "weight"), ("gate_up", "weight")


def stacked_storage(
    checkpoint: Checkpoint, prefix: str, names: Mapping[Key, str], interleaved: bool
) -> LayerStorage:
    """A layer with stacks of all experts; `names[key]` are their names.

    Args:
        checkpoint: where the tensors are.
        prefix: path of the experts module.
        names: the stacks' names.
        interleaved: whether gate_up holds gate, up, gate, up, ... instead of all gates first.

    Raises:
        UnsupportedDtypeError: blocks with a scale hold rows of both gate and up.
        InputError: a stack is missing, or the shapes or dtypes do not fit each other.
    """
    gated = _GATE_UP in names
    up_key = _GATE_UP if gated else _UP
    _check_keys(prefix, names, up_key)
    up_name, down_name = names[up_key], names[_DOWN]
    outputs = 2 if gated else 1
    experts, first, second = _stack_shape(checkpoint, up_name)
    # A fused stack tells its order: one of its dimensions is 2I, and the other is down's H.
    _, down_first, down_second = _stack_shape(checkpoint, down_name)
    transposed = gated and (first, second) == (down_second, 2 * down_first)
    hidden, rows = (first, second) if transposed else (second, first)
    inter = rows // outputs
    for name, rows, cols in ((up_name, outputs * inter, hidden), (down_name, hidden, inter)):
        shape = (experts, *_order(rows, cols, transposed))
        check_shape(name, logical_shape(checkpoint, name), shape)
    fmt = stored_format(checkpoint, down_name)
    check_dtype(up_name, stored_format(checkpoint, up_name), fmt)
    up_scale, down_scale = names.get((up_key[0], "scale")), names.get(("down", "scale"))
    check_scales(checkpoint, {up_name: up_scale, down_name: down_scale})
    block_rows = BLOCKS.get(fmt, (1, 1))[0]
    if gated and block_rows > 1 and (interleaved or inter % block_rows):
        raise unsupported(f"{up_name} with blocks of {block_rows} rows and an inner width of {inter}")
    up_bias, down_bias = names.get((up_key[0], "bias")), names.get(("down", "bias"))
    if up_bias or down_bias:  # both have one, or none has
        for bias_name, name, size in ((up_bias, up_name, outputs * inter), (down_bias, down_name, hidden)):
            if bias_name is None:
                raise missing(f"{name.removesuffix('_blocks')}_bias")
            check_shape(bias_name, checkpoint.entry(bias_name).shape, (experts, size))

    def part(name: str | None, expert: int) -> StridedView | None:
        return checkpoint.tensor(name)[expert] if name else None

    def matrix(name: str, scale: str | None, expert: int) -> StridedView:
        whole = scaled(checkpoint.tensor(name)[expert], part(scale, expert))
        return whole.T if transposed else whole

    def source(expert: int) -> ExpertSource:
        up, up_vector = matrix(up_name, up_scale, expert), part(up_bias, expert)
        down, down_vector = matrix(down_name, down_scale, expert), part(down_bias, expert)
        if not gated:
            return ExpertSource(None, up, down, None, up_vector, down_vector)
        gate, up = _split(up, interleaved)
        gate_vector, up_vector = _split(up_vector, interleaved) if up_vector else (None, None)
        return ExpertSource(gate, up, down, gate_vector, up_vector, down_vector)

    return LayerStorage(experts, hidden, inter, fmt, gated, bool(up_bias), source)


def _split(both: StridedView, interleaved: bool) -> tuple[StridedView, StridedView]:
    """Gate and up of 2I rows: all gates, then all ups; or gate, up, gate, up, ... if `interleaved`."""
    inter = both.shape[0] // 2
    step, up_row = (2, 1) if interleaved else (1, inter)
    return both.rows(0, step, inter), both.rows(up_row, step, inter)


def _check_keys(prefix: str, names: Mapping[Key, str], up_key: Key) -> None:
    for key, leaf, other in ((up_key, "gate_up_proj", _DOWN), (_DOWN, "down_proj", up_key)):
        if key not in names:
            partner = PARTNERS.get(names.get(other, "").removeprefix(f"{prefix}."), leaf)
            raise missing(f"{prefix}.{partner}")
    parts = ("weight", "bias", "scale")
    if extra := set(names) - {(role, part) for role in (up_key[0], "down") for part in parts}:
        got = f"both {names[up_key]} and {names[extra.pop()]}"
        raise InputError(expected=f"either gate_up_proj or up_proj in {prefix}", got=got, hint=ANOTHER_FILE)


def _order(rows: int, cols: int, transposed: bool) -> tuple[int, int]:
    return (cols, rows) if transposed else (rows, cols)


def _stack_shape(checkpoint: Checkpoint, name: str) -> tuple[int, int, int]:
    shape = logical_shape(checkpoint, name)
    if len(shape) != 3 or 0 in shape:
        raise InputError(expected=f"a stack of matrices in {name}", got=f"shape {shape}", hint=ANOTHER_FILE)
    return shape[0], shape[1], shape[2]
