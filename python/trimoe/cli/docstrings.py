"""Help comes from docstrings, which `python -OO` drops: then from the sources."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["restore_docstrings"]

_LOST = "(No help: Python runs with -OO, and the sources of trimoe are not there.)"


def restore_docstrings(app: Any) -> None:
    """Gives the callbacks of a typer app, and of the apps in it, the docstrings that they lack."""
    for one in (app.registered_callback, *app.registered_commands):
        if one is not None and one.callback.__doc__ is None:
            one.callback.__doc__ = _docstring(one.callback)
    for group in app.registered_groups:
        restore_docstrings(group.typer_instance)


def _docstring(function: Callable[..., Any]) -> str:
    import ast

    try:
        [definition] = ast.parse(inspect.getsource(function)).body
    except OSError:
        return _LOST
    return (isinstance(definition, ast.FunctionDef) and ast.get_docstring(definition)) or _LOST
