"""Opens the expert store of a checkpoint in a process of its own, stopping where a test wants to look.

Usage: python fill_cache.py CHECKPOINT [pack|write|flush]. Prints "there" when the named step has begun and
waits for a line on stdin; at the end prints one JSON object. Needs no torch.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.compute_spec import ExpertMath
from trimoe.checkpoint.experts.tensors import find_moe_layers
from trimoe.hardware.memory import peak_rss_bytes
from trimoe.store import expert_store as store_module
from trimoe.store.expert_store import ExpertStore


def open_store(path: str, **options: Any) -> ExpertStore:
    """The store of a checkpoint whose experts are gated SwiGLU without biases, as in most models."""
    with Checkpoint(path) as checkpoint:
        math = {index: ExpertMath() for index in find_moe_layers(checkpoint)}
    return ExpertStore.open(path, math, **options)


def contents(store: ExpertStore) -> str:
    """A digest of every packed byte."""
    digest = hashlib.sha256()
    for index in sorted(store.layers):
        digest.update(store.layers[index].memory)
    return digest.hexdigest()


def _stopping(function: Callable[..., Any], at_call: int) -> Callable[..., Any]:
    """The function; its call number `at_call` (from 0) waits for a line before it does its work."""
    calls = itertools.count()  # packing calls from several threads

    def wrapper(*arguments: Any) -> Any:
        if next(calls) == at_call:
            print("there", flush=True)
            sys.stdin.readline()
        return function(*arguments)

    return wrapper


def main() -> None:
    """See the module's docstring."""
    path, step = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    if step == "pack":
        store_module._pack_one = _stopping(store_module._pack_one, 3)
    elif step == "write":
        os.pwrite = _stopping(os.pwrite, 3)  # magic, header and the first layer are in the file
    elif step == "flush":
        os.fsync = _stopping(os.fsync, 0)
    store = open_store(path)
    report = {
        "from_cache": store.from_cache,
        "packed_bytes": store.packed_bytes,
        "load_ns": store.load_ns,
        "peak_rss_bytes": peak_rss_bytes(),  # before `contents` touches every page
        "torch_imported": "torch" in sys.modules,
    }
    print(json.dumps({**report, "contents": contents(store)}), flush=True)


if __name__ == "__main__":
    main()
