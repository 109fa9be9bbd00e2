"""One implementation in a process of its own: packs its weights, then answers requests. JSON lines both ways.

    python worker.py NAME CASE THREADS

First line out: {"ready": {...}} or {"failed": "..."}. Then, for each request
{"path", "tokens", "routing", "first", "repeats", "seconds"}, one line {"times_ms": [...], "experts": [...]},
{"failed": "..."}, or {"times_ms": []} where the path cannot do so many tokens.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peers.cases import Case
    from peers.peer import Peer

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def _told(error: Exception) -> str:
    """In one line: torch adds pages."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"


def _protocol() -> Any:
    """Standard output for answers alone: what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def _errors(peer: Peer, case: Case, source: Any, paths: tuple[str, ...]) -> dict[str, float | None]:
    """Relative error of each path; every expert of every copy is run, as some pack at their first call."""
    import torch

    from peers.data import hidden_states, reference, relative_error

    tokens = max(16, -(-case.experts // case.topk))
    hidden = hidden_states(case, tokens, 0)
    ids = (torch.arange(tokens * case.topk) % case.experts).view(tokens, case.topk)
    weights = torch.full((tokens, case.topk), 1 / case.topk)
    exact = reference(source, hidden, ids, weights)
    errors: dict[str, float | None] = {}
    for path in paths:
        call = peer.call(path, hidden, ids, weights)
        errors[path] = call and max(relative_error(call(copy), exact) for copy in range(peer.copies))
    return errors


def _answer(peer: Peer, case: Case, request: dict[str, Any]) -> dict[str, Any]:
    """Runs so many repeats, fewer where the seconds are over, but two at least; the first is not reported."""
    from peers.data import hidden_states, routing

    calls, experts = [], []
    for repeat in range(request["first"], request["first"] + request["repeats"]):
        ids, weights = routing(case, request["tokens"], request["routing"], repeat)
        call = peer.call(request["path"], hidden_states(case, len(ids), repeat), ids, weights)
        if call is None:
            return {"times_ms": [], "experts": []}
        calls.append((repeat % peer.copies, call))
        experts.append(int(ids.unique().numel()))
    times_ms: list[float] = []
    begin = time.perf_counter()
    for copy, call in calls:
        start = time.perf_counter_ns()
        call(copy)
        times_ms.append((time.perf_counter_ns() - start) * 1e-6)
        if len(times_ms) > 1 and time.perf_counter() - begin > request["seconds"]:
            break
    return {"times_ms": times_ms[1:], "experts": experts[1 : len(times_ms)]}


def _serve(name: str, case_name: str, threads: int, answers: Any) -> None:
    import torch

    from peers.cases import CASES
    from peers.data import Weights
    from peers.peer import PEERS, paths_of

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    spec, case, start = PEERS[name], CASES[case_name], time.perf_counter()
    source = Weights(case)
    build = importlib.import_module(f"peers.{spec.module}").build
    peer: Peer = build(case, source, spec.kind, spec.threads or threads)
    ready = {
        "isa": peer.isa,
        "bytes_per_weight": peer.bytes_per_weight,
        "copies": peer.copies,
        "errors": _errors(peer, case, source, paths_of(name)),
        "setup_s": time.perf_counter() - start,
    }
    del source
    print(json.dumps({"ready": ready}), file=answers)
    for line in sys.stdin:
        try:
            answer = _answer(peer, case, json.loads(line))
        except Exception as error:  # the next request may be one it can do
            answer = {"failed": _told(error)}
        print(json.dumps(answer), file=answers)


def main(name: str, case: str, threads: str) -> None:
    # Ctrl-C is the driver's affair, and nobody is left behind when the driver is killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    answers = _protocol()
    try:
        _serve(name, case, int(threads), answers)
    except Exception as error:
        print(json.dumps({"failed": _told(error)}), file=answers)
    answers.flush()
    os._exit(0)  # thread pools of some peers do not end by themselves


if __name__ == "__main__":
    # The folder above is the package's home; this one has modules named like what they import.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    main(*sys.argv[1:])
