"""Packs a checkpoint's experts ahead of time: into the packed cache, or into a model folder of its own.

One layer is in memory at a time, so that a model may be packed on a machine that cannot hold all of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimoe.checkpoint.checkpoint import Checkpoint, CheckpointSource, opened
from trimoe.checkpoint.compute_spec import ExpertMath, Packing
from trimoe.checkpoint.experts.tensors import MoeLayerTensors, find_moe_layers
from trimoe.checkpoint.non_expert_tensors import find_rest
from trimoe.errors import FailureError, InputError
from trimoe.layer.expert_layer import LayerSpec
from trimoe.store.expert_store import Progress, cache_of, layer_specs, pack_layers
from trimoe.store.folder_writer import FolderWriter
from trimoe.store.new_folder import new_folder
from trimoe.store.packed_folder import PackedFolder

__all__ = ["PackReport", "pack_to_cache", "pack_to_folder", "packable_bytes", "verify_packed"]


@dataclass(frozen=True)
class PackReport:
    """What was packed.

    path: the file or folder that holds the packed experts; packed_format: such as "int4 g128"; already_there:
    nothing was left to do; source_bytes and packed_bytes: of the experts; duration_ns: of all of it.
    """

    path: Path
    packed_format: str
    already_there: bool
    source_bytes: int
    packed_bytes: int
    duration_ns: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "path": str(self.path)}


def packable_bytes(source: CheckpointSource, packing: Packing) -> int:
    """Bytes of the experts on disk, from the headers; InputError for what cannot be packed that way."""
    with _open(source) as checkpoint:
        find_rest(checkpoint)
        tensors = find_moe_layers(checkpoint)
        math = {index: ExpertMath(gated=x.gated, bias=x.has_bias) for index, x in tensors.items()}
        for spec in layer_specs(tensors, math, packing).values():
            _ = spec.native
        return sum(layer.nbytes for layer in tensors.values())


def pack_to_cache(
    source: CheckpointSource,
    math: Mapping[int, ExpertMath],
    packing: Packing,
    progress: Progress = lambda done_bytes, total_bytes: None,
) -> PackReport:
    """Writes the packed cache, which the next load in the same format maps.

    math, progress: as in `ExpertStore.open`. Raises InputError for a bad checkpoint, FailureError for a full
    disk, too little memory, or a cache that another process is writing.
    """
    start_ns = time.monotonic_ns()
    with _open(source) as checkpoint:
        tensors = find_moe_layers(checkpoint)
        specs = layer_specs(tensors, math, packing)
        cache = cache_of(checkpoint, specs)
        already_there = cache.load() is not None
        if not already_there:
            cache.write(pack_layers(tensors, specs, progress))
    return _report(cache.path, tensors, specs, start_ns, already_there)


def pack_to_folder(
    source: CheckpointSource,
    math: Mapping[int, ExpertMath],
    packing: Packing,
    output: str | os.PathLike[str],
    progress: Progress = lambda done_bytes, total_bytes: None,
) -> PackReport:
    """Writes a model folder with packed experts, which needs the original no longer.

    It holds the packed experts, one safetensors file with all other weights as they were, and the other
    files of the original (tokenizer, ...). Raises as `pack_to_cache` does, and InputError where `output` is
    something already.
    """
    start_ns, target = time.monotonic_ns(), Path(output)
    with _open(source) as checkpoint:
        tensors = find_moe_layers(checkpoint)
        specs = layer_specs(tensors, math, packing)
        rest = find_rest(checkpoint)
        with new_folder(target) as part:
            writer = FolderWriter(checkpoint, part, specs, rest)
            free_bytes = shutil.disk_usage(part).free
            if writer.total_bytes > free_bytes:
                raise FailureError(
                    expected=f"{writer.total_bytes / 1e9:.2f} GB free for {target}",
                    got=f"{free_bytes / 1e9:.2f} GB",
                    hint="freeing space, or another disk",
                )
            writer.write(pack_layers(tensors, specs, progress))
    return _report(target, tensors, specs, start_ns, already_there=False)


def verify_packed(
    source: CheckpointSource,
    math: Mapping[int, ExpertMath],
    packing: Packing,
    advance: Callable[[int], None] = lambda nbytes: None,
) -> bool:
    """Compares every byte of what a load in this format would map with its checksum; whether there is any.

    A damaged file of the packed cache is removed, with a warning, so that the load packs again; InputError
    for a damaged folder of `pack_to_folder`. advance: called with the bytes that were just read.
    """
    with opened(source) as checkpoint:
        folder = PackedFolder.of(checkpoint)
        if folder is not None:
            folder.verify(advance)
            return True
        specs = layer_specs(find_moe_layers(checkpoint), math, packing)
        return cache_of(checkpoint, specs).load(advance) is not None


@contextlib.contextmanager
def _open(source: CheckpointSource) -> Iterator[Checkpoint]:
    with opened(source) as checkpoint:
        if PackedFolder.of(checkpoint) is not None:
            raise InputError(
                expected=f"a checkpoint to pack in {checkpoint.path}",
                got="one whose experts are packed already",
                hint="the original checkpoint",
            )
        yield checkpoint


def _report(
    path: Path,
    tensors: Mapping[int, MoeLayerTensors],
    specs: Mapping[int, LayerSpec],
    start_ns: int,
    already_there: bool,
) -> PackReport:
    return PackReport(
        path=path,
        packed_format=next(iter(specs.values())).format_name,
        already_there=already_there,
        source_bytes=sum(tensors[index].nbytes for index in specs),
        packed_bytes=sum(spec.layer_bytes for spec in specs.values()),
        duration_ns=time.monotonic_ns() - start_ns,
    )
