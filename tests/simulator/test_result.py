"""A phase's figures are those of the machine's clock: shares of its time, scaled to all steps and rounds."""

from __future__ import annotations

import pytest

from support import simple_machine as simple
from support.tiny_policy import TinyPolicy, run
from trimoe.policies import Deployment, Workload

WORK = Workload(8, 40, 11)


def test_shares_are_of_the_whole_time() -> None:
    """Everything on the GPU: it is busy all the time, and nothing else ever is."""
    found = run(TinyPolicy(simple.cost(), Deployment(8, 8, expert_slots=4)), WORK, "decode").phases["decode"]
    assert found.utilisation["gpu"] == pytest.approx(1.0)
    assert {value for name, value in found.utilisation.items() if name != "gpu"} == {0.0}
    assert found.expert_utilisation["gpu"] == pytest.approx(1.0)
    assert found.gpu_hit_rate == 1.0 and found.moves_pct == 0.0
    assert found.bytes["experts_fetched"] == found.bytes["experts_prefetched"] == 0
    expert_ns = 12 * simple.expert_gpu_ns(8)
    assert sum(found.makespan_ns) == pytest.approx(expert_ns)
    assert found.expert_share == pytest.approx(expert_ns / found.step_ns)


def test_channels_and_dimms_are_means_under_one_name() -> None:
    found = run(TinyPolicy(simple.cost(), Deployment(8, 8)), WORK, "decode").phases["decode"]
    assert not any(name[-1].isdigit() for name in found.utilisation if name not in ("h2d", "d2h"))
    assert all(0 <= value <= 1 for value in found.utilisation.values())


def test_plain_data_has_the_mean_makespan() -> None:
    found = run(TinyPolicy(simple.cost(), Deployment(8, 8)), WORK, "decode").phases["decode"]
    plain = found.as_dict()
    assert plain["makespan_ns"] == list(found.makespan_ns)
    assert plain["mean_makespan_ns"] == pytest.approx(sum(found.makespan_ns) / len(found.makespan_ns))
    assert plain["deployment"]["batch"] == 8
