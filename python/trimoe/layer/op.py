"""The op `torch.ops.trimoe.moe_forward`: loads its library, calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

import trimoe
from trimoe import _cpu
from trimoe.errors import FailureError
from trimoe.layer import experts_op
from trimoe.layer.op_kernels import add_kernels, check_arguments, raise_cause
from trimoe.layer.source import source_of, view_of

__all__ = ["forward_on", "load_op", "moe_forward"]

_ID_NAMES = {torch.int32: "int32", torch.int64: "int64"}


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
            raise _unusable(str(error.__cause__ or error)) from None
        if not hasattr(torch.ops.trimoe, "moe_forward"):
            raise _unusable("no op after loading it")
        add_kernels("moe_forward", check_arguments)
        experts_op.register()
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
    try:
        out: torch.Tensor = torch.ops.trimoe.moe_forward(hidden, topk_ids, topk_weights, layer, plan)
    except RuntimeError as error:
        raise_cause(error)
        raise
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
    process. Same arguments and result as `moe_forward`; InputError for an entry that cannot run.
    """
    out = torch.empty(hidden.shape, dtype=hidden.dtype)
    ids = view_of(topk_ids, _ID_NAMES[topk_ids.dtype])
    _cpu.run_entry(isa, layer, source_of(hidden), ids, source_of(topk_weights), out.data_ptr(), threads)
    return out
