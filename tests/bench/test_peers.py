"""The comparison's harness with made-up workers: no peer is needed."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

from peers import driver  # noqa: E402
from peers.cases import CASES  # noqa: E402
from peers.data import Weights, hidden_states, int4_groups, int8_rows, reference, routing  # noqa: E402
from peers.driver import Plan, measure  # noqa: E402
from peers.limits import Limits  # noqa: E402
from peers.peer import PEERS, peers_for  # noqa: E402
from peers.process import Worker, WorkerError  # noqa: E402
from peers.report import load, markdown, verdict  # noqa: E402

# argv: milliseconds per call, and what to do at the second request.
WORKER = """
import json, os, sys, time
ms, habit = float(sys.argv[1]), sys.argv[2]
facts = {"isa": "x", "bytes_per_weight": 2.0, "copies": 1, "errors": {sys.argv[3]: 0.01}, "setup_s": 0.0}
print(json.dumps({"ready": facts} if habit != "absent" else {"failed": "not here"}), flush=True)
for count, line in enumerate(sys.stdin):
    if habit == "dies" and count == 1: print("the reason", file=sys.stderr); os._exit(3)
    if habit == "hangs" and count == 1: time.sleep(600)
    if habit == "refuses": print(json.dumps({"failed": "cannot"}), flush=True); continue
    n = json.loads(line)["repeats"] - 1
    print(json.dumps({"times_ms": [ms] * n, "experts": [8] * n}), flush=True)
"""
HABITS: dict[str, tuple[float, str]] = {
    "trimoe_bf16": (2.0, "works"),
    "sgl_bf16": (4.0, "works"),
    "vllm_amx": (3.0, "dies"),
    "zen_bf16": (3.0, "hangs"),
    "ggml_bf16": (40.0, "works"),
    "kt_bf16": (1.0, "absent"),
    "torch_packed": (1.0, "refuses"),
}


class FakeProbe:
    def __init__(self, library: Path, threads: int) -> None:
        self.threads = threads

    def sample(self, limits: Limits) -> None:
        limits.read_gbps.append(50.0)
        limits.peak_gops.setdefault("bf16_dot", []).append(1000.0)


def state(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return None


def command(name: str, *_: Any) -> list[str]:
    ms, habit = HABITS[name]
    return [sys.executable, "-c", WORKER, str(ms), habit, name]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The driver with made-up workers and limits; the pids of the workers it starts."""
    pids: list[int] = []

    class Recorded(Worker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            pids.append(self._process.pid)

    monkeypatch.setattr(driver, "Worker", Recorded)
    monkeypatch.setattr(driver, "Probe", FakeProbe)
    monkeypatch.setattr(driver, "_command", command)
    monkeypatch.setattr(driver, "_needed_bytes", lambda *_: 0)
    monkeypatch.setattr(driver, "_ANSWER_S", 0.5)
    return pids


PLAN = Plan(["A"], ["bf16"], [1, 4], ["uniform"], tuple(HABITS), rounds=3, calls=2, turn_s=0.1)


def test_a_peer_that_dies_hangs_or_refuses_is_told_and_the_run_goes_on(
    harness: list[int], tmp_path: Path
) -> None:
    told: list[str] = []
    first, second = measure(PLAN, tmp_path, told.append)
    rows = {row["peer"]: row for row in first["rows"]}
    assert len(rows["trimoe_bf16"]["times_ms"]) == len(rows["sgl_bf16"]["times_ms"]) == 6
    assert len(rows["ggml_bf16"]["times_ms"]) == 2, "ten times the best: one turn"
    assert rows["vllm_amx"]["failed"] == "ended with 3: the reason"
    assert rows["zen_bf16"]["failed"].startswith("no answer in")
    assert rows["torch_packed"]["failed"] == "cannot"
    assert {row["peer"] for row in second["rows"]} == set(HABITS) - {"vllm_amx", "zen_bf16", "kt_bf16"}
    assert any("kt_bf16: left out, not here" in text for text in told)
    assert any("vllm_amx: ended with 3" in text for text in told)
    assert len(first["limits"]["read_gbps"]) == 4, "before each round and after the last"
    assert [state(pid) for pid in harness] == [None] * 7


def test_workers_are_stopped_between_turns_and_gone_after_an_interrupt(
    harness: list[int], tmp_path: Path
) -> None:
    cells = measure(Plan(["A"], ["bf16"], [1, 4], ["uniform"], ("sgl_bf16",)), tmp_path, lambda _: None)
    next(cells)
    deadline = time.monotonic() + 5
    while state(harness[0]) != "T" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert state(harness[0]) == "T"
    with pytest.raises(KeyboardInterrupt):
        cells.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert state(harness[0]) is None


@pytest.mark.slow
def test_a_real_worker_of_an_absent_peer_says_why(tmp_path: Path) -> None:
    script = [sys.executable, str(BENCH / "peers" / "worker.py"), "no_such_peer", "A", "1"]
    worker = Worker(script, tmp_path / "log", {})
    assert "KeyError" in worker.ready(120)["failed"]
    with pytest.raises(WorkerError, match="ended with 0"):
        worker.ask({}, 5)


def cell(ours_ms: float, peer_ms: float, *, peer_error: float = 0.003, tokens: int = 1) -> dict[str, Any]:
    row = {"isa": "x", "bytes_per_weight": 2.0, "copies": 1, "experts": [8, 8, 8], "failed": None}
    rows = [
        {**row, "peer": name, "path": name, "ours": ours, "error": error, "times_ms": [ms, ms, 9 * ms]}
        for name, ours, error, ms in (("t", True, 0.002, ours_ms), ("p", False, peer_error, peer_ms))
    ]
    limits = {"read_gbps": [1.0, 50.0, 99.0], "peak_gops": {"bf16_dot": [900.0], "bf16_amx": [1000.0]}}
    return dict(case="A", format="bf16", tokens=tokens, routing="zipf", limits=limits, rows=rows)


def test_verdicts_by_ratio_and_by_roofline() -> None:
    # 8 experts of 3 * 2048 * 768 weights in bf16 are 75.5 MB: 1.51 ms at 50 GB/s.
    one = verdict(cell(2.0, 2.4))
    assert one is not None and one.ratio == pytest.approx(2.0 / 2.4)
    assert one.roofline == pytest.approx(75.497472e6 / 50e9 / 2e-3) and not one.met
    assert verdict(cell(2.0, 2.5)).met  # type: ignore[union-attr]
    assert verdict(cell(1.75, 1.7)).met  # type: ignore[union-attr]
    # 512 tokens: 38.7 GFLOP at 1000 GFLOP/s count, not the bytes.
    assert verdict(cell(50.0, 1.0, tokens=512)).roofline == pytest.approx(0.773, abs=1e-3)  # type: ignore[union-attr]


def test_a_wrong_peer_is_not_compared_with() -> None:
    one = verdict(cell(2.0, 0.1, peer_error=0.5))
    assert one is not None and one.best_peer is None and one.ratio is None and not one.met
    assert verdict({**cell(2.0, 1.0), "rows": []}) is None


def test_the_table_has_the_later_measurement_of_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (cell(9.0, 1.0), cell(2.0, 4.0))))
    cells = load([path])
    assert len(cells) == 1, "the later measurement of a cell counts"
    text = markdown(filter(None, map(verdict, cells)))
    assert "| zipf | 1 | 2.00 ±" in text and "| **4.00** | 0.50 | 75% | 50 | yes |" in text
    assert text.endswith("1 of 1 cells met.\n")


def test_names_of_peers() -> None:
    for weight_format in ("bf16", "int8", "int4"):
        names = peers_for(weight_format)
        assert names[0] == f"trimoe_{weight_format}" and len(names) > 3
        assert all(PEERS[name].format == weight_format for name in names)


def test_routings_are_legal_and_cold() -> None:
    case = CASES["A"]
    for kind in ("uniform", "zipf"):
        ids, weights = routing(case, 64, kind, 3)
        assert all(len(set(row)) == case.topk for row in ids.tolist())
        assert weights.sum(1).allclose(weights.new_ones(64))
        assert ids.equal(routing(case, 64, kind, 3)[0]) and not ids.equal(routing(case, 64, kind, 4)[0])
    following = [set(routing(case, 1, "uniform", repeat)[0][0].tolist()) for repeat in range(16)]
    assert len(set.union(*following)) == 128, "no expert twice in 16 repeats"


def test_quantised_weights_decode_to_the_weights() -> None:
    matrix = Weights(CASES["A"]).expert(5)[1]
    codes, scale = int8_rows(matrix)
    assert ((codes * scale[:, None] - matrix).abs().amax(1) <= scale * 0.51).all()
    codes, scale = int4_groups(matrix, 128)
    wide = scale.float().repeat_interleave(128, dim=1)
    assert ((codes * wide - matrix).abs() <= wide * 0.54).all()


@pytest.mark.slow
def test_the_reference_is_linear_in_the_router_weights() -> None:
    case = CASES["A"]
    source, hidden = Weights(case), hidden_states(case, 2, 0)
    ids, weights = routing(case, 2, "uniform", 0)
    both = reference(source, hidden, ids, weights)
    parts = [reference(source, hidden, ids[:, k : k + 1], weights[:, k : k + 1]) for k in range(case.topk)]
    assert both.shape == (2, case.hidden) and both.norm() > 0
    assert both.allclose(sum(parts), atol=1e-5)  # type: ignore[arg-type]


def test_the_command_line_refuses_what_it_does_not_know() -> None:
    from typer.testing import CliRunner

    from compare_peers import app

    result = CliRunner().invoke(app, ["run", "x", "--home", "/tmp", "--formats", "int3"])
    assert result.exit_code == 2 and "int3" in result.output
