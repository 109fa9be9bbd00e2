"""What torch's thread pool starts with, without importing torch."""

from __future__ import annotations

import pytest

from trimoe.hardware.torch_state import starting_threads


@pytest.mark.parametrize(
    ("environment", "arch", "expected"),
    [
        ({}, "x86_64", 4),
        ({"OMP_NUM_THREADS": "3"}, "x86_64", 3),
        ({"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "2"}, "x86_64", 2),
        ({"OMP_NUM_THREADS": "7,2"}, "x86_64", 4),
        ({"OMP_NUM_THREADS": "7"}, "aarch64", 7),
        ({"OMP_NUM_THREADS": "many"}, "x86_64", 4),
    ],
)
def test_torch_starts_with_the_threads_of_its_environment(
    environment: dict[str, str], arch: str, expected: int
) -> None:
    assert starting_threads(environment, cores=4, arch=arch)[0] == expected
