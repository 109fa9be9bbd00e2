"""Runs models and layers on the domains of this machine and says how it went.

`attach(model, policy, work)` has a policy say where a model's experts run; it loads torch on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimoe.runtime.attached import Attached as Attached
    from trimoe.runtime.attached import attach as attach

__all__ = ["Attached", "attach"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from trimoe.runtime import attached

        return getattr(attached, name)
    raise AttributeError(f"module 'trimoe.runtime' has no attribute {name!r}")
