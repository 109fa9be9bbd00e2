"""Adds trimoe to torch and transformers when, and only when, those are imported, before or after it.

So `import trimoe` itself stays cheap, and yet makes `torch.ops.trimoe.moe_forward`,
`experts_implementation="trimoe"` and `quant_method: trimoe` work.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importlib.abc alone takes longer than all the rest of `import trimoe`
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["install_hooks"]


def _load_op() -> None:
    from trimoe.layer.op import load_op

    load_op()


def _register() -> None:
    if sys.flags.optimize > 1:
        return  # transformers cannot build models with experts without docstrings, but may do for others
    from trimoe.hf.in_module import register as register_experts
    from trimoe.hf.quantizer import register as register_quantizer

    register_experts()
    register_quantizer()


def _refuse_other_experts() -> None:
    from trimoe.hf.in_module import refuse_other_experts

    refuse_other_experts()


# Module -> what to do once it has been executed.
_AFTER: dict[str, Callable[[], None]] = {
    "torch": _load_op,
    "transformers.integrations.moe": _register,
    "transformers.modeling_utils": _refuse_other_experts,
}


def _run(name: str) -> None:
    """Others import that module for reasons of their own: it must not fail because of us."""
    try:
        _AFTER[name]()
    except Exception as error:
        import warnings

        line = " ".join(f"trimoe could not add itself to {name}: {error}".split())
        warnings.warn(line, RuntimeWarning, stacklevel=2)


class _AfterImport:
    """Finds modules of the table as others do, and has their rows run after them."""

    def __init__(self) -> None:
        self._looking = threading.local()  # for what; the others are asked then

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _AFTER or getattr(self._looking, "name", None) == name:
            return None
        import importlib.util

        self._looking.name = name
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking.name = None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _run(name)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install_hooks() -> None:
    """Runs the rows of modules that are imported already, the others as soon as they are."""
    for name in _AFTER.keys() & sys.modules.keys():
        _run(name)
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
