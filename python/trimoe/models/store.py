"""The expert store: every expert of a checkpoint, packed once, held outside the model. Needs no torch.

Experts are streamed from the mapped safetensors files into the packed layout, a few at a time; the
source pages are given back at once, so that memory peaks at the packed bytes plus what is in flight.

Every size is checked against the files before any byte is read. Not guarded: another program that
shortens a file while it is mapped; the kernel then ends the process (SIGBUS), and nothing on disk is harmed.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from trimoe import _cpu
from trimoe.errors import FailureError, InputError
from trimoe.expert_layer import ExpertLayer, LayerSpec, Source
from trimoe.hardware.machine import memory, usable_threads
from trimoe.models.cache import PackedCache
from trimoe.models.checkpoint import Checkpoint
from trimoe.models.dimensions import packed_format
from trimoe.models.expert_math import ExpertMath
from trimoe.models.expert_tensors import ExpertSource, Matrix, MoeLayerTensors, Vector, find_moe_layers

__all__ = ["ExpertStore"]

_SOURCE_DTYPES = {"F32": "fp32", "BF16": "bf16", "F16": "fp16"}
_IN_FLIGHT = 4  # experts per thread that are read ahead

Progress = Callable[[int, int], None]


@dataclass
class ExpertStore:
    """The packed expert layers of one checkpoint, by layer index.

    source_bytes: bytes of the experts on disk; packed_bytes: bytes in memory; from_cache: whether they
    were mapped from the packed cache; load_ns: time to get there, the writing of the cache excluded.
    """

    layers: dict[int, ExpertLayer]
    source_bytes: int
    packed_bytes: int
    from_cache: bool
    load_ns: int

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        math: Mapping[int, ExpertMath],
        *,
        weights: str = "auto",
        use_cache: bool = True,
        progress: Progress = lambda done_bytes, total_bytes: None,
    ) -> ExpertStore:
        """Maps the packed cache of the checkpoint at `path`, or packs the experts and writes the cache.

        math: how each layer's experts are computed; weights: packed format "auto", "fp32" or "bf16";
        progress: called with the source bytes just packed and those of all experts. Raises InputError
        for a bad checkpoint and FailureError when memory does not suffice; a cache that cannot be
        written is only a warning.
        """
        start_ns = time.monotonic_ns()
        with Checkpoint(path) as checkpoint:
            tensors = find_moe_layers(checkpoint)
            _check_layers(tensors, math)
            specs = {index: _spec(tensors[index], math[index], weights) for index in math}
            source_bytes = sum(tensors[index].nbytes for index in specs)
            key, origin = _cache_key(checkpoint, specs), os.path.realpath(path)
            cache = PackedCache(key, specs, origin=origin) if use_cache else None
            layers = cache.load() if cache else None
            from_cache = layers is not None
            if layers is None:
                _check_memory(specs)
                layers = _pack_all(tensors, specs, lambda done_bytes: progress(done_bytes, source_bytes))
        load_ns = time.monotonic_ns() - start_ns
        if cache and not from_cache:
            cache.save(layers)
        packed_bytes = sum(spec.layer_bytes for spec in specs.values())
        return cls(layers, source_bytes, packed_bytes, from_cache, load_ns)

    def close(self) -> None:
        """Frees every layer; idempotent."""
        for layer in self.layers.values():
            layer.close()


def _check_layers(tensors: Mapping[int, MoeLayerTensors], math: Mapping[int, ExpertMath]) -> None:
    """A layer that is left out would be computed elsewhere, from a second copy of its weights."""
    if set(math) != set(tensors):
        raise InputError(
            expected=f"a model whose expert layers trimoe can take over: {sorted(tensors)}",
            got=f"experts modules that it knows in layers {sorted(math)}",
            hint="the checkpoint that belongs to this config.json, or transformers without trimoe",
        )


def _spec(layer: MoeLayerTensors, how: ExpertMath, weights: str) -> LayerSpec:
    if (how.gated, how.bias) != (layer.gated, layer.has_bias):
        raise InputError(
            expected=f"experts with gate={how.gated}, bias={how.bias} in {layer.prefix}, as in the model",
            got=f"gate={layer.gated}, bias={layer.has_bias}",
            hint="the checkpoint that belongs to this config.json",
        )
    fmt = packed_format(layer.dtype) if weights == "auto" else weights
    return how.spec(layer.experts, layer.hidden, layer.inter, fmt)


def _cache_key(checkpoint: Checkpoint, specs: Mapping[int, LayerSpec]) -> str:
    """Checkpoint content, formats and layout version: whatever would change a packed byte."""
    text = f"{checkpoint.fingerprint()} {_cpu.LAYOUT_VERSION} {sorted(specs.items())}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _check_memory(specs: Mapping[int, LayerSpec]) -> None:
    needed, available = sum(spec.layer_bytes for spec in specs.values()), memory().available_bytes
    if needed > available:
        raise FailureError(
            expected=f"{needed / 1e9:.2f} GB of free memory for packed experts",
            got=f"{available / 1e9:.2f} GB",
            hint="weights='bf16', closing other programs, or a machine with more memory",
        )


def _pack_all(
    tensors: Mapping[int, MoeLayerTensors], specs: Mapping[int, LayerSpec], advance: Callable[[int], None]
) -> dict[int, ExpertLayer]:
    layers = {index: ExpertLayer(spec) for index, spec in specs.items()}  # memory is touched as it is filled
    threads = usable_threads()
    pending: set[Future[int]] = set()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="trimoe-pack")
    try:
        for index, layer in layers.items():
            for expert in range(layer.spec.experts):
                if len(pending) >= threads * _IN_FLIGHT:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        advance(future.result())
                source = tensors[index].expert(expert)
                source.advise_willneed()
                pending.add(executor.submit(_pack_one, layer, expert, source))
        for future in pending:
            advance(future.result())
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
    return layers


def _pack_one(layer: ExpertLayer, expert: int, source: ExpertSource) -> int:
    parts = (source.gate, source.up, source.down, source.gate_bias, source.up_bias, source.down_bias)
    gate, up, down, *biases = (None if part is None else _source(part) for part in parts)
    assert up is not None and down is not None
    layer.pack_expert(expert, gate, up, down, *biases)
    source.release()
    return source.nbytes


def _source(part: Matrix | Vector) -> Source:
    if isinstance(part, Matrix):
        shape, strides = (part.rows, part.cols), (part.row_stride, part.col_stride)
    else:
        shape, strides = (part.size, 1), (part.stride, 0)
    return Source(part.address, _SOURCE_DTYPES[part.dtype], *shape, *strides, part.owner)
