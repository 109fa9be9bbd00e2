"""The arguments of `trimoe.load` that go on to transformers: what each may be, and what happens to it.

Every argument is one of four: the place of the files; a constant; handed on, because it changes neither
config nor tensors, or because the store follows the files that transformers chooses; or another value for
something that config.json says. Whatever else transformers may take, today or later, is refused by name.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trimoe.checkpoint.checkpoint import read_config
from trimoe.errors import InputError
from trimoe.hf.model_checks import check_device_map

__all__ = ["LoadArguments"]

# Without them transformers would reach for the network, unpickle, or run what lies in the folder.
_CONSTANT: Mapping[str, Any] = {
    "local_files_only": True, "use_safetensors": True, "weights_only": True,
}  # fmt: skip
_HANDED_ON = (
    "variant", "generation_config", "attn_implementation", "experts_implementation",
    "code_revision", "disable_mmap", "tqdm_class",
    "revision", "cache_dir", "force_download", "proxies", "token",  # of no effect on a folder
    "max_memory", "offload_folder", "offload_buffers", "low_cpu_mem_usage",  # nor these without a device map
)  # fmt: skip
_NO_OVERRIDES = ("quantization_config", "torch_dtype")  # of the config, yet no other value of it will do
_HINTS = {"torch_dtype": "dtype=, its new name", "state_dict": "a folder that holds all weights"}


@dataclass(frozen=True)
class LoadArguments:
    """The sorted arguments.

    Attributes:
        folder: where the files lie.
        config: a config of transformers, or None for that in `folder`.
        overrides: what the config is to say instead.
        trust_remote_code: whether the caller trusts Python code that lies beside the weights.
        handed_on: arguments for `from_pretrained`.
    """

    folder: Path
    config: Any
    overrides: Mapping[str, Any]
    trust_remote_code: bool
    handed_on: Mapping[str, Any]

    @classmethod
    def of(cls, folder: str | os.PathLike[str], dtype: Any, arguments: Mapping[str, Any]) -> LoadArguments:
        """Sorts them; InputError for a value that cannot be honoured. Names are left to `read_config`."""
        rest = dict(arguments)
        if dtype != "auto" and dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise InputError(
                expected="dtype 'auto', torch.float32, torch.bfloat16 or torch.float16",
                got=repr(dtype),
                hint="dtype='auto'",
            )
        check_device_map(rest.pop("device_map", None))
        subfolder = rest.pop("subfolder", None) or ""
        if not isinstance(subfolder, str):
            raise InputError(
                expected="the name of a subfolder", got=f"subfolder={subfolder!r}", hint="leaving it out"
            )
        for name, value in _CONSTANT.items():
            if rest.setdefault(name, value) != value:
                raise _refused(f"{name}={rest[name]!r}", f"leaving out {name}")
        handed_on = {name: rest.pop(name) for name in (*_CONSTANT, *_HANDED_ON) if name in rest}
        config, trust = rest.pop("config", None), rest.pop("trust_remote_code", False) is True
        return cls(Path(folder, subfolder), config, rest, trust, handed_on)

    @property
    def variant(self) -> str | None:
        """The infix of the files' names."""
        return self.handed_on.get("variant")

    def read_config(self) -> Any:
        """The config of transformers, with the overrides in it.

        Raises:
            InputError: config.json is missing or unreadable, or an argument is none that is known.
        """
        from transformers import AutoConfig, PreTrainedConfig

        if self.config is not None:
            if not isinstance(self.config, PreTrainedConfig):
                raise InputError(
                    expected="a config of transformers for config",
                    got=repr(self.config)[:80],
                    hint="config=AutoConfig.from_pretrained(FOLDER)",
                )
            _check_names(self.overrides, ())  # transformers would hand them to the model's class
            return copy.deepcopy(self.config)
        read_config(self.folder)  # which tells better than transformers what is wrong with the file
        trust = self.trust_remote_code
        config = AutoConfig.from_pretrained(self.folder, local_files_only=True, trust_remote_code=trust)
        if self.overrides:
            _check_names(self.overrides, {*config.to_dict(), *config.attribute_map})
            config = AutoConfig.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=trust, **self.overrides
            )
        for part in (config, *(getattr(config, name) for name in config.sub_configs)):
            _check_kernels(part, self.folder)
        return config


def _check_kernels(config: Any, folder: Path) -> None:
    """A name with a slash is a place to download code from; only the caller may ask for that."""
    for name in ("_attn_implementation", "_experts_implementation"):
        found = getattr(config, name, None)
        if "/" in str(found):
            raise InputError(
                expected=f"no code from elsewhere in {folder}/config.json",
                got=f"{name} {found!r}",
                hint="removing it; attention runs in torch",
            )


def _check_names(overrides: Iterable[str], known: Collection[str]) -> None:
    for name in overrides:
        if name not in known or name in _NO_OVERRIDES:
            raise _refused(name, _HINTS.get(name, f"leaving out {name}"))


def _refused(got: str, hint: str) -> InputError:
    return InputError(
        expected="arguments that trimoe.load leaves open, or that the model's config has", got=got, hint=hint
    )
