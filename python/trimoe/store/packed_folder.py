"""A model folder with packed experts in it, as `trimoe pack --output` writes: reading them.

Beside what every checkpoint has, its config.json says {"quantization_config": {"quant_method": "trimoe",
"packed": FILE, ...}}, the experts lie in FILE, and the safetensors hold everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

from trimoe import _cpu
from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.compute_spec import Packing
from trimoe.errors import FailureError, InputError
from trimoe.input_file import open_input
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.store.packed_file import PackedFile

__all__ = ["PACKED_FILE", "PackedFolder", "folder_file", "problem_in_folder"]

PACKED_FILE = "experts.trimoe"
_PACK_AGAIN = "`trimoe pack` again, from the original checkpoint"


def folder_file(specs: Mapping[int, LayerSpec]) -> PackedFile:
    """The packed file of these layers; its header is enough to use it without the original checkpoint."""
    header = {
        "layout": _cpu.LAYOUT_VERSION,
        "layers": {str(index): asdict(spec.packing) for index, spec in sorted(specs.items())},
    }
    return PackedFile(header, {index: spec.layer_bytes for index, spec in specs.items()})


class PackedFolder:
    """The packed experts of a model folder.

    Attributes:
        path: the file that holds them.
        specs: the layers, by index.
        nbytes: size of the file.
    """

    def __init__(self, path: Path) -> None:
        """Reads the header; InputError where the file is missing, of another layout or not whole."""
        self.path = path
        with _open(path) as file:
            try:
                self._file = PackedFile.read(file)
            except ValueError as error:
                raise self._not_whole(str(error)) from None
        self.specs = _specs_of(self._file, path)
        self.nbytes = self._file.file_bytes

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> PackedFolder | None:
        """The packed experts that belong to a checkpoint; None for an ordinary one."""
        return checkpoint.once(cls._of)

    @classmethod
    def _of(cls, checkpoint: Checkpoint) -> PackedFolder | None:
        config = checkpoint.config.get("quantization_config")
        if not isinstance(config, dict) or config.get("quant_method") != "trimoe":
            return None
        name = config.get("packed")
        if name is None:
            return None
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(
                expected=f"the name of a file beside config.json for `packed` in {checkpoint.path}",
                got=repr(name)[:80],
                hint=_PACK_AGAIN,
            )
        return cls(checkpoint.path / name)

    def specs_for(self, packing: Packing) -> dict[int, LayerSpec]:
        """The layers with the activations asked for; InputError where another format is."""
        specs = {}
        for index, spec in self.specs.items():
            asked = replace(
                spec, weights=packing.resolved(spec.weights).weights, group=packing.group or spec.group
            )
            if asked != spec:
                raise InputError(
                    expected=f"the format of the packed experts, {spec.format_name}",
                    got=asked.format_name,
                    hint=f"weights='auto', or {_PACK_AGAIN}",
                )
            specs[index] = replace(spec, activations=packing.activations)
        return specs

    def map(self, specs: Mapping[int, LayerSpec]) -> dict[int, ExpertLayer]:
        """The layers, mapped; FailureError where the system cannot, InputError where some are damaged."""
        with _open(self.path) as file:
            self._refuse(self._file.damaged(file.fileno()))
            try:
                return self._file.map(file, specs)
            except (OSError, ValueError) as error:
                raise FailureError(
                    expected=f"{self.path} to be mappable",
                    got=str(error),
                    hint="another file system, or more address space (ulimit -v)",
                ) from error

    def verify(self, advance: Callable[[int], None] = lambda nbytes: None) -> None:
        """Compares every byte with its checksum; InputError where a layer is damaged.

        advance: called with the bytes that were just read.
        """
        with _open(self.path) as file:
            self._refuse(self._file.damaged_anywhere(file.fileno(), advance))

    def _refuse(self, damaged: list[int]) -> None:
        if damaged:
            raise self._not_whole(f"damaged experts in layer {damaged[0]}")

    def _not_whole(self, got: str) -> InputError:
        return InputError(
            expected=f"packed experts in {self.path}, as they were written",
            got=got,
            hint=f"copying the folder again, or {_PACK_AGAIN}",
        )


def problem_in_folder(folder: Path, advance: Callable[[int], None]) -> str:
    """Why the packed experts of a model folder are not as they were written; "" where every byte is.

    advance: as for `verify`.
    """
    try:
        PackedFolder(folder / PACKED_FILE).verify(advance)
    except InputError as error:
        return error.got
    return ""


def _open(path: Path) -> BinaryIO:
    hint = f"copying the whole folder, or {_PACK_AGAIN}"
    return open_input(path, f"packed experts in {path}, as config.json says", hint)


def _specs_of(found: PackedFile, path: Path) -> dict[int, LayerSpec]:
    layout = found.header.get("layout")
    if layout != _cpu.LAYOUT_VERSION:
        raise InputError(
            expected=f"packed experts of layout {_cpu.LAYOUT_VERSION}, that of this trimoe, in {path}",
            got=f"layout {layout}",
            hint=_PACK_AGAIN,
        )
    try:
        specs = {int(index): LayerSpec(**fields) for index, fields in found.header["layers"].items()}
        sizes = {index: spec.layer_bytes for index, spec in specs.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            expected=f"a whole header in {path}", got=repr(error)[:80], hint=_PACK_AGAIN
        ) from None
    if sizes != found.layer_bytes:
        raise InputError(
            expected=f"layers of {sizes} bytes in {path}", got=str(found.layer_bytes), hint=_PACK_AGAIN
        )
    if not sizes:
        raise InputError(expected=f"at least one layer in {path}", got="none", hint=_PACK_AGAIN)
    return specs
