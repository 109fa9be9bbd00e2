"""Fetch Debian packages with the machine's own apt and unpack them without installing anything."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path


def fetch(names: tuple[str, ...], folder: Path) -> tuple[dict[str, str], Path]:
    """Download `names` into `folder` (a package that is there already is kept) and unpack them together.

    Returns the version of each package and the folder they were unpacked to. Raises SystemExit with one line
    when the machine has no apt or apt cannot get a package.
    """
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise SystemExit(f"train_tiny: expected {tool} on the PATH; got none; try a Debian container")
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(_real_name(name) for name in names)
    root = folder / f"{names[0]}.unpacked"
    versions = {}
    for name in names:
        archive = _archive(name, folder)
        versions[name] = _output(["dpkg-deb", "-f", str(archive), "Version"]).strip()
        _output(["dpkg-deb", "-x", str(archive), str(root)])
    return versions, root


def _archive(name: str, folder: Path) -> Path:
    found = sorted(folder.glob(f"{name}_*.deb"))
    if not found:
        # apt would warn that its sandbox user cannot write here; the archive is signed either way.
        command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        found = sorted(folder.glob(f"{name}_*.deb"))
        if not found:
            reason = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise SystemExit(f"train_tiny: expected Debian package {name}; got {reason}; try apt-get update")
    return found[-1]


def _real_name(name: str) -> str:
    """Follow libpython3-<part>, which only names the current version's package, to that package."""
    if not name.startswith("libpython3-"):
        return name
    version = re.search(r"libpython(3\.\d+)-stdlib", _output(["apt-cache", "depends", "libpython3-stdlib"]))
    if version is None:
        raise SystemExit(
            "train_tiny: expected libpython3-stdlib in apt's lists; got none; try apt-get update"
        )
    return name.replace("libpython3-", f"libpython{version[1]}-")


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise SystemExit(f"train_tiny: expected {command[0]} to work; got {reason}; try it by hand")
    return done.stdout
