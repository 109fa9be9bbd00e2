"""The shipped model with and without somebody who decides, for tests of both."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from support import deciders
from support.deciders import check_plain, passes
from trimoe.hf.stored_experts import stored_experts


@pytest.fixture(scope="module")
def model() -> Any:
    return deciders.load()


@pytest.fixture(scope="module")
def plain(model: Any) -> torch.Tensor:
    """What it says with nobody deciding."""
    return passes(model)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """On a machine that others use too, threads that wait for each other take long for so small a model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def left_as_it_was(model: Any) -> Iterator[None]:
    yield
    if any(module.runner for module in stored_experts(model)):
        gc.collect()  # of a test that failed
    check_plain(model)
