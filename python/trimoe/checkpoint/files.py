"""Which files a checkpoint is made of: those that transformers loads, or would load."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimoe.checkpoint.foreign_formats import format_of_file, format_of_folder
from trimoe.checkpoint.json_file import read_json_object
from trimoe.errors import InputError
from trimoe.input_file import kind_of

__all__ = ["DOWNLOAD_AGAIN", "CheckpointFiles", "check_folder", "chosen_files", "find_files"]

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SUFFIX = ".safetensors"
_NO_PART = ("consolidated", "adapter_model")  # of the same model in its original format; of another one
_SHARD = re.compile(r"-[0-9]+-of-[0-9]+")
DOWNLOAD_AGAIN = "downloading the checkpoint again"


@dataclass(frozen=True)
class CheckpointFiles:
    """One safetensors file or several shards.

    Attributes:
        folder: where they lie.
        names: their names.
        index: tensor to file, as an index says; None where there is none, or where it was read by others.
        index_name: the index's file name, for messages.
        is_loose: they have names that transformers does not look for, and no index.
    """

    folder: Path
    names: tuple[str, ...]
    index: Mapping[str, str] | None = None
    index_name: str = _INDEX
    is_loose: bool = False

    @property
    def family(self) -> str:
        """What the names have in common: it tells a folder's sets of weights apart, however many shards."""
        return _SHARD.sub("", self.names[0])

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(self.folder / name for name in self.names)


def find_files(folder: Path, config: Mapping[str, Any], variant: str | None = None) -> CheckpointFiles:
    """The files that transformers would take in a folder; or all `*.safetensors`, where it would take none.

    Args:
        folder: the checkpoint's folder.
        config: its config.json, which may name the file or the index (`transformers_weights`).
        variant: the infix of the files' names, as in model.VARIANT.safetensors.

    Raises:
        InputError: there are no such files, or the index is unreadable or names something else.
    """
    check_folder(folder)
    named = config.get("transformers_weights")
    if named is not None:
        return _named_files(named, folder)
    single, index = (_with_variant(name, variant) for name in (_SINGLE, _INDEX))
    if (folder / single).exists():
        return CheckpointFiles(folder, (single,))
    if (folder / index).exists():
        return _indexed_files(folder, index)
    names = sorted(path.name for path in folder.glob(f"*{_SUFFIX}") if not path.name.startswith(_NO_PART))
    if variant or not names:
        foreign = None if variant else format_of_folder(folder)
        raise InputError(
            expected=f"{single} or {index} in {folder}",
            got=foreign.name if foreign else "no safetensors file of such a name",
            hint=foreign.hint if foreign else "a checkpoint that was saved by transformers (save_pretrained)",
        )
    return CheckpointFiles(folder, tuple(names), is_loose=True)


def chosen_files(paths: Sequence[str]) -> CheckpointFiles:
    """The files that transformers chose; InputError where one is in another format."""
    files = [Path(path) for path in paths]
    for file in files:
        if file.suffix != _SUFFIX or file.parent != files[0].parent:
            raise InputError(
                expected=f"weights in safetensors files of one folder, {files[0].parent}",
                got=str(file),
                hint="a checkpoint that was saved as safetensors (save_pretrained writes it)",
            )
    return CheckpointFiles(files[0].parent, tuple(sorted(file.name for file in files)))


def _with_variant(name: str, variant: str | None) -> str:
    """transformers' name of a variant's file: the infix stands before the last suffix."""
    if not variant:
        return name
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{variant}.{suffix}"


def _named_files(name: Any, folder: Path) -> CheckpointFiles:
    """What config.json names: a file, or an index of several."""
    is_index = str(name).endswith(f"{_SUFFIX}.index.json")
    if not _is_plain_name(name) or not (is_index or name.endswith(_SUFFIX)):
        raise InputError(
            expected=f"a safetensors file or its index as transformers_weights in {folder}/config.json",
            got=repr(name)[:80],
            hint="the config.json that came with the weights",
        )
    return _indexed_files(folder, name) if is_index else CheckpointFiles(folder, (name,))


def _indexed_files(folder: Path, name: str) -> CheckpointFiles:
    path = folder / name
    weight_map = read_json_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(expected=f"a weight_map in {path}", got="none, or an empty one", hint=DOWNLOAD_AGAIN)
    for tensor, shard in weight_map.items():
        if not _is_plain_name(shard):
            raise InputError(
                expected=f"the file name of a shard for {tensor!r} in {path}",
                got=repr(shard)[:80],
                hint=DOWNLOAD_AGAIN,
            )
    return CheckpointFiles(folder, tuple(sorted(set(weight_map.values()))), weight_map, name)


def _is_plain_name(name: Any) -> bool:
    """Whether it names a file of the folder: neither config.json nor an index may reach outside of it."""
    return isinstance(name, str) and bool(name.strip(".")) and not set(name) & {"/", "\0"}


def check_folder(path: Path) -> None:
    """InputError where `path` is no folder that can be read."""
    problem = ""
    try:
        if not path.exists():
            problem = "no such folder"
        elif not path.is_dir():
            problem = kind_of(path.stat().st_mode)
        else:
            _check_entries(path)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    if problem:
        hint = "checking the path and its permissions; a hub model must be downloaded first: hf download NAME"
        foreign = format_of_file(path) if problem == "a file" else None
        if foreign is not None:
            problem, hint = f"a file in another format: {foreign.name}", foreign.hint
        elif problem == "a file":
            hint = f"the folder that holds it: {path.parent}"
        raise InputError(expected=f"a checkpoint folder at {str(path)!r}", got=problem, hint=hint)


def _check_entries(folder: Path) -> None:
    """InputError for a pipe or a device: transformers would wait for it, or read it without end."""
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):  # a link to nothing is no harm until it is needed
            kind = kind_of(os.stat(folder / name).st_mode)
            if kind not in ("a file", "a folder"):
                raise InputError(
                    expected=f"only files and folders in {folder}", got=f"{kind}, {name}", hint="removing it"
                )
