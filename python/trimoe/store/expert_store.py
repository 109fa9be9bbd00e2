"""The expert store: every expert of a checkpoint, packed once, held outside the model. Needs no torch.

Experts are streamed from the safetensors files into the packed layout, a few at a time, through buffers that
are used again, so that memory peaks at the packed bytes plus what is in flight. Every size is checked against
the files before any byte is read, and a file that becomes shorter then is an error.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from trimoe import _cpu
from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.compute_spec import ExpertMath, Packing
from trimoe.checkpoint.experts.reader import ExpertReader, file_ranges
from trimoe.checkpoint.experts.tensors import MoeLayerTensors, find_moe_layers
from trimoe.checkpoint.moe_shape import packed_format
from trimoe.errors import FailureError, InputError
from trimoe.hardware.machine import memory, usable_threads
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.source import ExpertSource
from trimoe.store.cache import PackedCache
from trimoe.store.packed_file import FILE_VERSION
from trimoe.store.packed_folder import PackedFolder

__all__ = ["ExpertStore", "Progress", "cache_of", "layer_specs", "pack_layers"]

_log = logging.getLogger("trimoe")
_IN_FLIGHT = 4  # experts per thread that are read ahead
_BUFFER_BYTES = 2 << 30  # for experts being packed, all threads together

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
        packing: Packing = Packing(),  # noqa: B008 - it is frozen
        use_cache: bool = True,
        progress: Progress = lambda done_bytes, total_bytes: None,
    ) -> ExpertStore:
        """The packed experts of the checkpoint at `path`; arguments and errors as of `of`."""
        with Checkpoint(path) as checkpoint:
            return cls.of(checkpoint, math, packing=packing, use_cache=use_cache, progress=progress)

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        math: Mapping[int, ExpertMath],
        *,
        packing: Packing = Packing(),  # noqa: B008 - it is frozen
        use_cache: bool = True,
        progress: Progress = lambda done_bytes, total_bytes: None,
    ) -> ExpertStore:
        """Maps the packed experts of an open checkpoint, or packs them and writes the cache.

        math: how each layer's experts are computed; packing: the packed format; progress: called with
        the source bytes just packed and those of all experts. Raises InputError for a bad checkpoint and
        FailureError when memory does not suffice; a cache that cannot be written is only a warning.
        """
        start_ns = time.monotonic_ns()
        folder = PackedFolder.of(checkpoint)
        if folder is not None:
            return _map_folder(folder, math, packing, start_ns)
        tensors = find_moe_layers(checkpoint)
        specs = layer_specs(tensors, math, packing)
        source_bytes = sum(tensors[index].nbytes for index in specs)
        cache = _cache_if_any(checkpoint, specs) if use_cache else None
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


def layer_specs(
    tensors: Mapping[int, MoeLayerTensors], math: Mapping[int, ExpertMath], packing: Packing
) -> dict[int, LayerSpec]:
    """The layers to pack; InputError where the model does not fit its files, or the format is unknown."""
    _check_layers(set(tensors), math)
    return {index: _spec(tensors[index], math[index], packing) for index in math}


def cache_of(checkpoint: Checkpoint, specs: Mapping[int, LayerSpec]) -> PackedCache:
    """The packed cache of a checkpoint in the format of `specs`, whether it is written yet or not."""
    # Checkpoint content, formats and layout version: whatever would change a packed byte.
    packings = [(index, spec.packing) for index, spec in sorted(specs.items())]
    text = f"{checkpoint.fingerprint()} {_cpu.LAYOUT_VERSION} {FILE_VERSION} {packings}"
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    return PackedCache(key, specs, origin=f"{os.path.realpath(checkpoint.path)}/{checkpoint.files.family}")


def _cache_if_any(checkpoint: Checkpoint, specs: Mapping[int, LayerSpec]) -> PackedCache | None:
    try:
        return cache_of(checkpoint, specs)
    except InputError as error:
        _log.warning("trimoe: %s (the model runs, the next start packs again)", error)
        return None


def pack_layers(
    tensors: Mapping[int, MoeLayerTensors], specs: Mapping[int, LayerSpec], progress: Progress
) -> Iterator[tuple[int, ExpertLayer]]:
    """Packs one layer after the other, each freed when the next one is asked for.

    progress: as in `ExpertStore.open`.
    """
    source_bytes = sum(tensors[index].nbytes for index in specs)
    for index, spec in specs.items():
        one = {index: spec}
        _check_memory(one)
        layer = _pack_all(tensors, one, lambda done_bytes: progress(done_bytes, source_bytes))[index]
        yield index, layer
        layer.close()


def _map_folder(
    folder: PackedFolder, math: Mapping[int, ExpertMath], packing: Packing, start_ns: int
) -> ExpertStore:
    """The experts that `trimoe pack` put into the checkpoint's folder."""
    _check_layers(set(folder.specs), math)
    specs = folder.specs_for(packing)
    for index, spec in specs.items():
        if spec != math[index].spec(spec.experts, spec.hidden, spec.inter, Packing.of(spec)):
            raise InputError(
                expected=f"experts with {math[index]}, as in the model, in layer {index} of {folder.path}",
                got=str(spec),
                hint="the config.json that `trimoe pack` wrote",
            )
    layers = folder.map(specs)
    nbytes = sum(spec.layer_bytes for spec in specs.values())
    return ExpertStore(layers, nbytes, nbytes, True, time.monotonic_ns() - start_ns)


def _check_layers(found: set[int], math: Mapping[int, ExpertMath]) -> None:
    """A layer that is left out would be computed elsewhere, from a second copy of its weights."""
    if set(math) != found:
        raise InputError(
            expected=f"a model whose expert layers trimoe can take over: {sorted(found)}",
            got=f"experts modules that it knows in layers {sorted(math)}",
            hint="the checkpoint that belongs to this config.json, or transformers without trimoe",
        )


def _spec(layer: MoeLayerTensors, how: ExpertMath, packing: Packing) -> LayerSpec:
    if (how.gated, how.bias) != (layer.gated, layer.has_bias):
        raise InputError(
            expected=f"experts with gate={how.gated}, bias={how.bias} in {layer.prefix}, as in the model",
            got=f"gate={layer.gated}, bias={layer.has_bias}",
            hint="the checkpoint that belongs to this config.json",
        )
    return how.spec(layer.experts, layer.hidden, layer.inter, packing.resolved(packed_format(layer.dtype)))


def _check_memory(specs: Mapping[int, LayerSpec]) -> None:
    needed, available = sum(spec.layer_bytes for spec in specs.values()), memory().available_bytes
    if needed > available:
        raise FailureError(
            expected=f"{needed / 1e9:.2f} GB of free memory for packed experts",
            got=f"{available / 1e9:.2f} GB",
            hint="a smaller format (weights='int8' or 'int4'), `trimoe pack` beforehand, or more memory",
        )


def _pack_all(
    tensors: Mapping[int, MoeLayerTensors], specs: Mapping[int, LayerSpec], advance: Callable[[int], None]
) -> dict[int, ExpertLayer]:
    layers = {index: ExpertLayer(spec) for index, spec in specs.items()}  # memory is touched as it is filled
    largest_bytes = max((_bytes_of(tensors[index].expert(0)) for index in specs), default=1)
    buffer_bytes = min(_BUFFER_BYTES, memory().available_bytes // 8)
    threads = max(1, min(usable_threads(), buffer_bytes // largest_bytes))
    reader = ExpertReader(threads)
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
                for part in file_ranges(source):
                    part.file.advise_willneed(part.begin, part.nbytes)
                pending.add(executor.submit(_pack_one, layer, expert, source, reader))
        for future in pending:
            advance(future.result())
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
    return layers


def _pack_one(layer: ExpertLayer, expert: int, source: ExpertSource, reader: ExpertReader) -> int:
    try:
        with reader.read(source) as parts:
            layer.pack_expert(expert, *parts)
    except InputError as error:  # a number that the format cannot hold
        got = f"{error.got} (expert {expert}, {source.up.name})"
        raise InputError(expected=error.expected, got=got, hint=error.hint) from None
    return _bytes_of(source)


def _bytes_of(source: ExpertSource) -> int:
    return sum(part.nbytes for part in file_ranges(source))
