"""Code that runs in a process of its own: what may crash, hang, or depends on what was imported first."""

from __future__ import annotations

import os
import subprocess
import sys

TIMEOUT_S = 120  # for what may hang; nothing here takes a tenth of it


def run_python(code: str, *options: str, **env: str) -> str:
    """What a process prints that ends well; it sees the modules that this one sees."""
    result = subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env},
        timeout=TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, (result.returncode, result.stderr[-1000:])
    return result.stdout
