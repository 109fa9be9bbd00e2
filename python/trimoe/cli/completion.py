"""Completions of option values, computed only when someone presses Tab."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable

__all__ = ["models", "of", "profiles", "systems"]


def of(*words: str) -> Callable[[str], list[str]]:
    """One of these words."""
    return lambda incomplete: _starting(incomplete, words)


def models(incomplete: str) -> list[str]:
    """Models whose sizes trimoe knows, and folders."""
    from trimoe.checkpoint.model_shape import model_names

    return [*_starting(incomplete, model_names()), *_paths(incomplete, "")]


def profiles(incomplete: str) -> list[str]:
    """Hardware profiles, and JSON files."""
    from trimoe.hardware.profile import CALIBRATED, profile_names

    return [*_starting(incomplete, (*profile_names(), CALIBRATED)), *_paths(incomplete, ".json")]


def systems(incomplete: str) -> list[str]:
    """Systems; behind a comma, one more."""
    from trimoe.policies import policy_names

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _starting(last, policy_names())]


def _starting(incomplete: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def _paths(incomplete: str, suffix: str) -> list[str]:
    """Folders, and files that end so."""
    found = sorted(glob.glob(f"{glob.escape(incomplete)}*"))
    return [
        path + "/" * os.path.isdir(path)
        for path in found
        if os.path.isdir(path) or (suffix and path.endswith(suffix))
    ]
