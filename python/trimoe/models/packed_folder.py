"""A model folder with packed experts in it, as `trimoe pack --output` writes: reading them.

Beside what every checkpoint has, its config.json says {"quantization_config": {"quant_method": "trimoe",
"packed": FILE, ...}}, the experts lie in FILE, and the safetensors hold everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

from trimoe import _cpu
from trimoe.errors import FailureError, InputError
from trimoe.expert_layer import ExpertLayer, LayerSpec
from trimoe.input_file import open_input
from trimoe.models.checkpoint import Checkpoint
from trimoe.models.expert_math import Packing
from trimoe.models.packed_file import PackedFile, read_header

__all__ = ["PACKED_FILE", "PackedFolder", "folder_header"]

PACKED_FILE = "experts.trimoe"
_PACK_AGAIN = "`trimoe pack` again, from the original checkpoint"


def folder_header(specs: Mapping[int, LayerSpec]) -> dict[str, Any]:
    """What the header of the packed file says: enough to use it without the original checkpoint."""
    return {
        "layout": _cpu.LAYOUT_VERSION,
        "layers": {str(index): asdict(spec.packing) for index, spec in sorted(specs.items())},
    }


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
        self.specs = _read_specs(path)
        self._file = PackedFile(folder_header(self.specs), self.specs)
        self.nbytes = self._file.file_bytes
        with _open(path) as file:
            if not self._file.is_in(file):
                raise InputError(
                    expected=f"{self.nbytes} bytes of packed experts in {path}",
                    got="a truncated or changed file",
                    hint=f"copying the folder again, or {_PACK_AGAIN}",
                )

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> PackedFolder | None:
        """The packed experts that belong to a checkpoint; None for an ordinary one."""
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
        """The layers, mapped; FailureError where the system cannot."""
        try:
            with _open(self.path) as file:
                return PackedFile(folder_header(specs), specs).map(file)
        except (OSError, ValueError) as error:
            raise FailureError(
                expected=f"{self.path} to be mappable",
                got=str(error),
                hint="another file system, or more address space (ulimit -v)",
            ) from error


def _open(path: Path) -> BinaryIO:
    hint = f"copying the whole folder, or {_PACK_AGAIN}"
    return open_input(path, f"packed experts in {path}, as config.json says", hint)


def _read_specs(path: Path) -> dict[int, LayerSpec]:
    with _open(path) as file:
        header = read_header(file)
    if header is None:
        raise InputError(expected=f"packed experts in {path}", got="another kind of file", hint=_PACK_AGAIN)
    if header.get("layout") != _cpu.LAYOUT_VERSION:
        raise InputError(
            expected=f"packed experts of layout {_cpu.LAYOUT_VERSION}, that of this trimoe, in {path}",
            got=f"layout {header.get('layout')}",
            hint=_PACK_AGAIN,
        )
    try:
        specs = {int(index): LayerSpec(**fields) for index, fields in header["layers"].items()}
        sizes = sum(spec.layer_bytes for spec in specs.values())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            expected=f"a whole header in {path}", got=repr(error)[:80], hint=_PACK_AGAIN
        ) from None
    if not sizes:
        raise InputError(expected=f"at least one layer in {path}", got="none", hint=_PACK_AGAIN)
    return specs
