"""Registers trimoe with transformers when, and only when, transformers is imported.

`import trimoe` installs a hook that runs after transformers' experts registry is imported, so that
`experts_implementation="trimoe"` and `quant_method: trimoe` work while `import trimoe` itself stays
cheap.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

__all__ = ["install_hook"]

_TARGET = "transformers.integrations.moe"


def _register() -> None:
    if sys.flags.optimize > 1:
        return  # transformers cannot build models with experts without docstrings, but may do for others
    from trimoe.models.experts import register as register_experts
    from trimoe.models.quantizer import register as register_quantizer

    register_experts()
    register_quantizer()


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the target module as usual, then runs the registration once it has executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _register()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install_hook() -> None:
    """Registers now if transformers' experts registry is imported, else as soon as it is."""
    if _TARGET in sys.modules:
        _register()
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
