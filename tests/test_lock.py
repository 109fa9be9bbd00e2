"""The lock holds one version of every package, in pyproject.toml's ranges, for every Python there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from locked import complaints, read_lock
from test_repo_shape import toml

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
PROJECT = toml((ROOT / "pyproject.toml").read_text())


def environment(python: str, machine: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": machine,
    }


def locked_for(python: str, machine: str) -> dict[str, list[str]]:
    """Name -> the versions that hold there."""
    found: dict[str, list[str]] = {}
    for line in read_lock("packages.txt") + read_lock("torch.txt"):
        if not line.marker or line.marker.evaluate(environment(python, machine)):
            (exact,) = line.specifier
            assert exact.operator == "==" and "*" not in exact.version, line
            found.setdefault(canonicalize_name(line.name), []).append(exact.version)
    return found


def asked() -> Iterator[Requirement]:
    """Everything that pyproject.toml names."""
    yield from map(Requirement, PROJECT["build-system"]["requires"] + PROJECT["project"]["dependencies"])
    for extra in PROJECT["project"]["optional-dependencies"].values():
        yield from (Requirement(line) for line in extra if not line.startswith("trimoe["))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", PYTHONS)
def test_each_package_has_one_version_in_its_range(python: str, machine: str) -> None:
    locked = locked_for(python, machine)
    assert all(len(versions) == 1 for versions in locked.values())
    for requirement in asked():
        if requirement.marker and not requirement.marker.evaluate(environment(python, machine)):
            continue
        version = locked[canonicalize_name(requirement.name)][0]
        assert requirement.specifier.contains(version), f"{requirement} on Python {python}"


def test_what_is_tested_alone_is_locked_too() -> None:
    """make installs these beside what pyproject.toml names."""
    assert {"pip", "cmake", "ninja"} <= locked_for("3.11", "x86_64").keys()


def test_another_version_and_an_unknown_package_are_found() -> None:
    locked = [
        Requirement("left-pad==1.0"),
        Requirement("torch==2.0"),
        Requirement("old==1 ; python_version < '3'"),
    ]
    installed = {"left-pad": "1.1", "torch": "2.0+cpu", "old": "1", "new": "2"}
    assert list(complaints(locked, installed)) == [
        "expected left-pad==1.0; got 1.1",
        "new 2 is not in the lock",
        "old 1 is not in the lock",
    ]
