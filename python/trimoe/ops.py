"""The op `torch.ops.trimoe.moe_forward` and its fake kernel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

import trimoe
from trimoe import _cpu
from trimoe.errors import FailureError, InputError
from trimoe.expert_layer import Source
from trimoe.op_kernels import register

__all__ = ["forward_on", "load_op", "moe_forward", "source_of"]

_DTYPE_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_SCALE_NAMES = {**_DTYPE_NAMES, torch.float8_e8m0fnu: "e8m0"}
_ID_NAMES = {torch.int32: "int32", torch.int64: "int64"}


def source_of(
    tensor: torch.Tensor, scale: torch.Tensor | None = None, block: tuple[int, int] = (1, 1)
) -> Source:
    """Views a CPU tensor [N, K] or [N] as a Source, which keeps the tensor alive.

    With `scale`, of shape [ceil(N / block[0]), ceil(K / block[1])], the values are those of the tensor times
    the scale of their block. Formats of 8 bits and less come with one: float8_e4m3fn as it is, and
    mxfp4 as uint8 [N, K / 2] (two e2m1 per byte, low nibble first) with scales in uint8 (e8m0) and
    block (1, 32).
    """
    mxfp4 = tensor.dtype == torch.uint8 and scale is not None and tensor.dim() == 2
    names = {**_DTYPE_NAMES, torch.float8_e4m3fn: "fp8"}
    if (tensor.dtype not in names and not mxfp4) or tensor.device.type != "cpu":
        raise InputError(
            expected="weights of fp32, bf16 or fp16, or fp8 and mxfp4 with their scales, on the CPU",
            got=f"{tensor.dtype} on {tensor.device}",
            hint="weights.to('cpu', torch.bfloat16)",
        )
    source = _view(tensor, "mxfp4" if mxfp4 else names[tensor.dtype])
    if mxfp4:
        source = source._replace(cols=2 * source.cols, row_stride=2 * source.row_stride)
    if scale is None:
        return source
    exponents = scale.dtype == torch.uint8
    if scale.dtype not in _SCALE_NAMES and not exponents:
        raise InputError(
            expected="scales of fp32, bf16, fp16 or e8m0", got=str(scale.dtype), hint="scale.float()"
        )
    scale_source = _view(scale, "e8m0" if exponents else _SCALE_NAMES[scale.dtype])
    return source._replace(scale=scale_source, block_rows=block[0], block_cols=block[1])


def _view(tensor: torch.Tensor, dtype: str) -> Source:
    """A matrix, or a vector as one column; InputError for what does not lie in memory as it says."""
    if tensor.layout is not torch.strided or tensor.dim() not in (1, 2):
        raise InputError(
            expected="a dense matrix or vector",
            got=f"{str(tensor.layout).removeprefix('torch.')} with {tensor.dim()} dimensions",
            hint="tensor.to_dense(), or one expert of a stack",
        )
    tensor = tensor.resolve_neg()  # torch may keep a sign beside the memory
    matrix = tensor if tensor.dim() == 2 else tensor[:, None]
    (rows, cols), (row_stride, col_stride) = matrix.shape, matrix.stride()
    held = tensor.untyped_storage().nbytes()
    last = matrix.storage_offset() + (rows - 1) * row_stride + (cols - 1) * col_stride
    if matrix.numel() and (last + 1) * matrix.element_size() > held:
        raise InputError(
            expected=f"a tensor of shape {list(tensor.shape)} whose storage holds all its elements",
            got=f"{held} bytes",
            hint="a tensor that was not resized or freed",
        )
    return Source(tensor.data_ptr(), dtype, rows, cols, row_stride, col_stride, tensor)


def _unusable(got: str) -> FailureError:
    return FailureError(
        expected=f"an op library that works with torch {torch.__version__}",
        got=got,
        hint="torch >= 2.11, or pip install . again",
    )


def load_op() -> Callable[..., torch.Tensor]:
    """Loads the op library unless the process has it and returns `torch.ops.trimoe.moe_forward.default`.

    A second registration of the namespace in the stable ABI would crash, hence the guard.
    """
    if not hasattr(torch.ops.trimoe, "moe_forward"):
        candidates = [Path(folder) / "_ops.so" for folder in trimoe.__path__]
        library = next((path for path in candidates if path.exists()), None)
        if library is None:
            raise FailureError(
                expected="the op library _ops.so in the trimoe package",
                got=f"none in {list(trimoe.__path__)}",
                hint="pip install . in the source tree",
            )
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except OSError as error:
            raise _unusable(str(error)) from None
        if not hasattr(torch.ops.trimoe, "moe_forward"):
            raise _unusable("no op after loading it")
        register()
    return torch.ops.trimoe.moe_forward.default


load_op()


def moe_forward(
    hidden: torch.Tensor,
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
    layer: int,
    plan: torch.Tensor | None = None,
) -> torch.Tensor:
    """One MoE layer: out[t] = sum over k of topk_weights[t, k] * expert(topk_ids[t, k])(hidden[t]).

    hidden [T, H] bf16, fp16 or fp32; topk_ids [T, K] int32 or int64, ids outside [0, E) skipped;
    topk_weights [T, K] fp32, bf16 or fp16; layer: `ExpertLayer.handle`; plan [E] int32 on the CPU,
    the domain of each expert (0 CPU), or None. Returns [T, H] in the dtype of hidden; accumulates
    in fp32. Raises RuntimeError with a hint on bad arguments. Inference only.
    """
    out: torch.Tensor = torch.ops.trimoe.moe_forward(hidden, topk_ids, topk_weights, layer, plan)
    return out


def forward_on(
    isa: str,
    hidden: torch.Tensor,
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
    layer: int,
    threads: int = 1,
) -> torch.Tensor:
    """`moe_forward` on a named entry of the kernel table, with threads of its own.

    For checks, not for speed: every entry this machine supports can be compared with "ref" in one
    process. Same arguments and result as `moe_forward`; ValueError for an entry that cannot run.
    """
    out = torch.empty(hidden.shape, dtype=hidden.dtype)
    ids = _view(topk_ids, _ID_NAMES[topk_ids.dtype])
    _cpu.run_entry(isa, layer, source_of(hidden), ids, source_of(topk_weights), out.data_ptr(), threads)
    return out
