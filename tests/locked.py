"""Whether this environment holds what the lock says: run by `make test`, whose environment alone has to."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = Path(__file__).parents[1] / "locks"


def read_lock(file: str) -> list[Requirement]:
    """Its lines, each `name==version ; marker`."""
    return [Requirement(line) for line in (LOCKS / file).read_text().splitlines()]


def complaints(locked: list[Requirement], installed: dict[str, str]) -> Iterator[str]:
    """What is installed and not locked, or in another version; a version may have a local part (+cpu)."""
    here = {
        canonicalize_name(line.name): line for line in locked if not line.marker or line.marker.evaluate()
    }
    for name, version in sorted(installed.items()):
        if name not in here:
            yield f"{name} {version} is not in the lock"
        elif not here[name].specifier.contains(version, prereleases=True):
            yield f"expected {here[name].name}{here[name].specifier}; got {version}"


def main() -> int:
    """Prints what differs; 1 if anything does."""
    own = {"trimoe"}
    own |= {canonicalize_name(line.name) for line in read_lock("torch.txt")}  # TORCH= picks another
    installed = {
        canonicalize_name(dist.metadata["Name"]): dist.version for dist in importlib.metadata.distributions()
    }
    found = list(complaints(read_lock("packages.txt"), {k: v for k, v in installed.items() if k not in own}))
    for line in found:
        print(f"locks/packages.txt: {line}; try make clean, or make lock")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
