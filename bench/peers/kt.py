"""kt-kernel (KTransformers). It takes raw pointers only, so the torch it pins is not needed.

Its pool spins on a dispatcher, a thread per node and the workers: with two workers on two processors every
call waits for time slices of the scheduler (multiples of 4 ms). The "@1" peers have one worker, which then
has a processor of its own; half of their time is the least that two could take.
"""

from __future__ import annotations

from typing import Any

import torch

from peers.cases import GROUP, Case
from peers.data import Weights, int4_groups
from peers.peer import Call

__all__ = ["build"]

_PROJECTIONS = ("gate", "up", "down")
_RAW_GROUP = 32
_BYTES_PER_WEIGHT = {
    "bf16": 2.0,
    "int8": 1.0,
    "int4": 0.5,
    "gptq4": 0.5 + 4 / GROUP,
    "raw4": 0.5 + 2 / _RAW_GROUP,
}


def _packed(matrix: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight 4-bit codes per int32, along k: GPTQ [K/8, N] with fp32 scales, or raw [N, K/8] with bf16."""
    codes, scale = int4_groups(matrix, GROUP if kind == "gptq4" else _RAW_GROUP)
    rows, cols = codes.shape
    offset = codes.int() + 8
    if kind == "gptq4":
        eights = offset.T.reshape(cols // 8, 8, rows)
        return sum(eights[:, i] << (4 * i) for i in range(8)), scale.T.contiguous().float()
    eights = offset.view(rows, cols // 8, 8)
    return sum(eights[..., i] << (4 * i) for i in range(8)), scale.contiguous()


class _Kt:
    def __init__(self, case: Case, source: Weights, kind: str, threads: int) -> None:
        import kt_kernel

        self._ext = kt_kernel.kt_kernel_ext
        self.isa = str(getattr(kt_kernel, "__cpu_variant__", self._ext.__name__))
        pool = self._ext.WorkerPoolConfig()
        pool.subpool_count, pool.subpool_numa_map, pool.subpool_thread_count = 1, [0], [threads]
        self._case, self._cpu = case, self._ext.CPUInfer(pool)
        self.bytes_per_weight = _BYTES_PER_WEIGHT[kind]
        self.copies = case.copies(self.bytes_per_weight)
        self._on_gpu = torch.zeros(case.experts, dtype=torch.bool)
        self._physical = torch.arange(case.experts, dtype=torch.int64)
        matrices = self._matrices(source, kind)
        self._layers = [self._layer(kind, matrices) for _ in range(self.copies)]

    def _matrices(self, source: Weights, kind: str) -> dict[str, list[Any]]:
        """Per projection, what each expert's pointers point to."""
        result: dict[str, list[Any]] = {name: [] for name in _PROJECTIONS}
        for index in range(self._case.experts):
            gate_up, down = source.expert(index)
            parts = (*gate_up.chunk(2), down)
            for name, part in zip(_PROJECTIONS, parts, strict=True):
                result[name].append(_packed(part, kind) if kind in ("gptq4", "raw4") else part)
        return result

    def _layer(self, kind: str, matrices: dict[str, list[Any]]) -> Any:
        moe, case = self._ext.moe, self._case
        config = moe.MOEConfig(case.experts, case.topk, case.hidden, case.inter, self._on_gpu.data_ptr())
        config.layer_idx, config.pool, config.max_len = 0, self._cpu.backend_, 512
        kept: list[torch.Tensor] = []  # until the weights are loaded
        for name, parts in matrices.items():
            if kind == "bf16":
                setattr(config, f"{name}_projs", [[part.data_ptr() for part in parts]])
                setattr(config, f"{name}_scales", [[0] * case.experts])
            elif kind in ("int8", "int4"):
                kept.append(torch.stack(parts))
                setattr(config, f"{name}_proj", kept[-1].data_ptr())
            else:
                setattr(config, f"{name}_projs", [[codes.data_ptr() for codes, _ in parts]])
                setattr(config, f"{name}_scales", [[scale.data_ptr() for _, scale in parts]])
        if kind in ("int8", "int4"):
            config.save = config.load = False
        if kind in ("gptq4", "raw4"):
            config.quant_config.bits, config.quant_config.zero_point = 4, False
            config.quant_config.group_size = GROUP if kind == "gptq4" else _RAW_GROUP
        layer = {
            "bf16": moe.AMXBF16_MOE,
            "int8": moe.AMXInt8_MOE,
            "int4": moe.AMXInt4_MOE,
            "gptq4": moe.AVXVNNI256GPTQInt4Packed_MOE,
            "raw4": moe.AMXInt4_KGroup_MOE,
        }[kind](config)
        self._cpu.submit(layer.load_weights_task(self._physical.data_ptr()))
        self._cpu.sync()
        return layer

    def call(self, path: str, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> Call:
        tokens, topk = ids.shape
        count, out = torch.tensor([tokens], dtype=torch.int32), torch.empty_like(hidden)

        def run(copy: int) -> torch.Tensor:
            task = self._layers[copy].forward_task(
                count.data_ptr(),
                topk,
                ids.data_ptr(),
                weights.data_ptr(),
                hidden.data_ptr(),
                out.data_ptr(),
                False,
            )
            self._cpu.submit(task)
            self._cpu.sync()
            return out

        return run


def build(case: Case, source: Weights, kind: str, threads: int) -> _Kt:
    """kind: "bf16", "int8" and "int4" (one scale per row), "gptq4" (groups of 128) or "raw4" (of 32)."""
    return _Kt(case, source, kind, threads)
