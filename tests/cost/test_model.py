"""Costs of experts against closed forms, and the published figures of the design."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.loads import parts_of
from trimoe.arrays import Floats
from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cost import CostModel, Task, schedule
from trimoe.domains import CPU, FIRST_DIMM, GPU, SPLIT, STRIPED
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile, profile_names
from trimoe.ndp import expert_time, relayout_time

STREAM_GBPS = 35.16  # of one channel of DDR5-4800 with refresh, as the emulator and its references have it


@functools.cache
def costs(profile: str = "h100-8470-ndp16", model: str = "deepseek-v2", weights: str = "bf16") -> CostModel:
    return CostModel(load_profile(profile), load_model_shape(model), weights)


@functools.cache
def published() -> CostModel:
    """TriMoE's machine with host channels at the DRAM's own rate, copies of no set-up."""
    values = {"memory.efficiency": STREAM_GBPS / 38.4, "pcie.setup_ns": 0}
    profile = load_profile("h100-8470-ndp16").with_values(values, "as the design's table")
    return CostModel(profile, load_model_shape("deepseek-v2"))


def test_the_page_s_example_runs() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "cost.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, "docs/cost.md", "exec", dont_inherit=True), {})


def test_one_expert_takes_what_was_published() -> None:
    """47.19 MB: 0.336 ms on a DIMM, 1.342 ms over one channel, 0.168 ms over eight, 0.737 ms over PCIe."""
    model = published()
    assert model.expert_bytes == 2 * 3 * 5120 * 1536
    assert model.expert_ns(FIRST_DIMM + 3, 1, 3) / 1e6 == pytest.approx(0.336, abs=0.001)
    assert model.expert_ns(CPU, 1, 3) / 1e6 == pytest.approx(1.342, abs=0.001)
    assert model.expert_ns(CPU, 1) / 1e6 == pytest.approx(0.168, abs=0.001)
    assert model.expert_ns(GPU, 1) / 1e6 == pytest.approx(0.737, abs=0.001)
    assert model.expert_ns(GPU, 1, 3) / 1e6 == pytest.approx(1.342, abs=0.001)


def test_an_h100_has_30_percent_of_its_peak_at_256_tokens() -> None:
    model = costs()
    flops = 256 * 2 * model.shape.expert_elements
    assert flops / model.expert_ns(GPU, 256, resident=True) / 1e3 == pytest.approx(0.3 * 756)


def test_compute_takes_over_from_memory() -> None:
    model = costs()
    bandwidth_ns = model.expert_bytes / (8 * 38.4 * 0.716)
    rate = model.profile.cpu.peak_tflops["bf16"] * 0.285 * 1e3
    compute_ns = 2 * model.shape.expert_elements * (500 + 16) / rate
    assert model.expert_ns(CPU, 1) == pytest.approx(bandwidth_ns)
    assert model.expert_ns(CPU, 500) == pytest.approx(compute_ns)
    assert model.expert_ns(CPU, 0) == model.expert_ns(FIRST_DIMM, 0) == model.expert_ns(GPU, 0) == 0


def busy(model: CostModel, load: Floats) -> dict[str, float]:
    return {model.resources.names[resource]: ns for resource, ns in parts_of(load)}


def test_what_a_miss_on_the_gpu_occupies() -> None:
    model = costs()
    found = busy(model, model.expert_load(GPU, 200, 5))
    assert set(found) == {"gpu", "h2d", "channel2", "dimm5"}
    assert found["channel2"] == pytest.approx(model.expert_bytes / (38.4 * 0.716))
    assert found["h2d"] == pytest.approx(found["channel2"] + 10_000), "the engine waits for the channel"
    # The emulator: while the host reads at its rate of one rank, the core loses about as much time as that.
    assert found["dimm5"] == pytest.approx(model.expert_bytes / STREAM_GBPS, rel=0.1)
    striped = busy(model, model.expert_load(GPU, 200))
    assert len(striped) == 2 + 8 + 16
    assert striped["channel2"] == pytest.approx(found["channel2"] / 8)
    assert striped["dimm5"] == pytest.approx(found["dimm5"] / 16)
    assert striped["h2d"] == pytest.approx(model.expert_bytes / 64 + 10_000)
    assert set(busy(model, model.expert_load(GPU, 200, resident=True))) == {"gpu"}


def test_dimms_come_from_the_emulator() -> None:
    model = costs(model="qwen3-30b-a3b")
    for tokens in (1, 7, 16):
        told = expert_time(2048, 768, tokens)
        found = busy(model, model.expert_load(FIRST_DIMM + 2, tokens, 2))
        assert found["dimm2"] == told.total_ns
        assert found["channel1"] == told.command_ns + told.broadcast_ns + told.result_ns
    model = costs()
    striped = expert_time(5120, 1536, 12, layout="striped")
    assert striped.passes == 2
    found = busy(model, model.expert_load(FIRST_DIMM + 2, 12))
    assert found["dimm2"] == striped.total_ns
    assert found["link"] == pytest.approx(striped.passes * striped.link_bytes / 25)
    # The other fifteen read their sixteenth in every pass.
    one = expert_time(5120, 1536, 1)
    assert found["dimm9"] == pytest.approx(striped.passes * (one.gate_up_ns + one.down_ns) / 16)
    assert len(found) == 16 + 2


@pytest.mark.parametrize("tokens", [24, 50, 100])
def test_many_tokens_on_a_dimm_are_near_what_the_emulator_says(tokens: int) -> None:
    model = costs(model="qwen3-30b-a3b")
    told = expert_time(2048, 768, tokens).total_ns
    assert model.expert_ns(FIRST_DIMM, tokens, 0) == pytest.approx(told, rel=0.05)


def test_a_figure_of_the_profile_reaches_the_emulator() -> None:
    slow = load_profile("h100-8470-ndp16").with_values({"ndp.tflops": 0.25, "ndp.ranks": 2}, "a sweep")
    model = CostModel(slow, load_model_shape("qwen3-30b-a3b"))
    assert model.expert_ns(FIRST_DIMM, 3, 0) == expert_time(2048, 768, 3, tflops=0.25, ranks=2).total_ns


def test_moves_over_the_link_and_by_the_host() -> None:
    model = costs(model="qwen3-30b-a3b")
    relayout, migrate = relayout_time(2048, 768), relayout_time(2048, 768, migrate=True)
    spread, moved = model.move_load(3, STRIPED), model.move_load(3, 4)
    assert spread[model.resources.link] == relayout.link_ns
    assert moved[model.resources.link] == migrate.link_ns
    assert spread[model.resources.dimm(3)] > spread[model.resources.dimm(4)] > 0
    assert not spread[model.resources.channels].any(), "channels stay free"
    assert not model.move_load(3, 3).any()
    plain = costs("h100-8452y", "qwen3-30b-a3b")
    hosted = plain.move_load(3, STRIPED)
    channel_ns = plain.expert_bytes / (38.4 * 0.716)
    assert hosted[plain.resources.channel(3)] == pytest.approx(channel_ns * (1 + 1 / 8))
    assert hosted[plain.resources.channel(0)] == pytest.approx(channel_ns / 8)


def test_contention_falls_out_of_occupancy() -> None:
    """A fetch from DIMM 5 and the core of DIMM 5 take turns; the core of DIMM 6 does not notice."""
    model = costs()
    fetch = Task("fetch", model.fetch_load(5))
    own, other = (Task("", model.expert_load(FIRST_DIMM + dimm, 4, dimm)) for dimm in (5, 6))
    found = schedule([fetch, own, other], len(model.resources))
    lost_ns = fetch.load[model.resources.dimm(5)]
    assert found.end_ns[1] == pytest.approx(lost_ns + own.duration_ns)
    assert found.end_ns[0] == pytest.approx(fetch.duration_ns)
    shared_channel_ns = fetch.load[model.resources.channel(2)]
    assert found.end_ns[2] <= max(other.duration_ns, shared_channel_ns + other.duration_ns * 0.1)


def test_cores_and_copies_share_the_channels() -> None:
    """On plain memory ten reads of all channels take ten times one, whoever reads."""
    model = costs("h100-8452y", "mixtral-8x7b")
    cpu, copy = Task("", model.expert_load(CPU, 1)), Task("", model.fetch_load())
    found = schedule([cpu, copy] * 5, len(model.resources))
    each_ns = model.expert_bytes / (8 * 38.4 * 0.716)
    assert found.busy_ns[model.resources.channel(0)] == pytest.approx(10 * each_ns)
    assert found.makespan_ns == pytest.approx(max(10 * each_ns, 5 * (model.expert_bytes / 64 + 10_000)))


def test_dense_work_by_roofline() -> None:
    model = costs("a100-8452y", "mixtral-8x7b")
    gpu_ns = model.dense_load(GPU, flops=1e12, n_bytes=1e6)[model.resources.gpu]
    assert gpu_ns == pytest.approx(1e12 / (312 * 0.6 * 1e3))
    gpu_ns = model.dense_load(GPU, flops=1e6, n_bytes=1e9)[model.resources.gpu]
    assert gpu_ns == pytest.approx(1e9 / 1935)
    load = model.dense_load(CPU, flops=1e6, n_bytes=1e9)
    cpu_ns, memory_ns = load[model.resources.cpu], load[model.resources.channel(0)]
    assert cpu_ns == pytest.approx(1e9 / (8 * 38.4 * 0.716)) == memory_ns


def test_batches_read_the_weights_again_and_fetch_them_once() -> None:
    model = costs()
    whole, fetch = model.expert_load(GPU, 10, 5, batches=4), model.fetch_load(5)
    each = model.expert_load(GPU, 3, resident=True)  # the largest of 4 batches
    assert whole.tolist() == (4 * each + fetch).tolist()
    assert model.expert_ns(CPU, 2, batches=4) == 2 * model.expert_ns(CPU, 1), "no more batches than tokens"


def test_a_load_is_worked_out_once_and_written_by_nobody() -> None:
    model = costs()
    for load_of in (
        lambda: model.expert_load(CPU, 7, 3),
        lambda: model.expert_load(SPLIT, 7),
        lambda: model.fetch_load(3),
        lambda: model.move_load(3, STRIPED),
    ):
        assert load_of() is load_of()
        with pytest.raises(ValueError, match="read-only"):
            load_of()[0] = 1.0
    # What the GPU need not fetch is the same load for all who do not fetch.
    assert model.expert_load(CPU, 7, 3, resident=True) is model.expert_load(CPU, 7, 3)
    assert model.expert_ns(CPU, 7, 3) == model.expert_load(CPU, 7, 3).max()
    assert model.fetch_ns(3) == model.fetch_load(3).max()


TOKENS = st.integers(1, 80)


@settings(max_examples=60, deadline=None)
@given(TOKENS, TOKENS, st.sampled_from(["cpu", "hit", "miss", "ndp", "striped ndp"]), st.integers(-1, 15))
def test_more_tokens_never_take_less(a: int, b: int, where: str, layout: int) -> None:
    model = costs(model="qwen3-30b-a3b")

    def ns(tokens: int) -> float:
        if where == "ndp":
            return model.expert_ns(FIRST_DIMM + max(layout, 0), tokens, max(layout, 0))
        if where == "striped ndp":
            return model.expert_ns(FIRST_DIMM, tokens)
        return model.expert_ns(CPU if where == "cpu" else GPU, tokens, layout, resident=where == "hit")

    assert ns(min(a, b)) <= ns(max(a, b))


@given(st.floats(0, 1e12), st.floats(0, 1e12), st.sampled_from(["h2d", "d2h"]), st.integers(-1, 15))
def test_more_bytes_never_take_less(a: float, b: float, direction: str, layout: int) -> None:
    model = costs()
    low, high = (model.transfer_load(direction, one, layout) for one in sorted((a, b)))
    assert low.max() <= high.max()


@pytest.mark.parametrize("profile", profile_names())
@pytest.mark.parametrize("weights", ["bf16", "int4"])
def test_every_profile_costs_something_plausible(profile: str, weights: str) -> None:
    """No domain is beyond its own peaks: of compute, and of the memory that weights come from."""
    model = costs(profile, "qwen3-30b-a3b", weights)
    for domain in model.domains[:3]:
        ns = model.expert_ns(domain, 8, domain - FIRST_DIMM if domain >= FIRST_DIMM else STRIPED)
        memory = model.profile.memory
        gbps = {CPU: memory.channels * memory.stream_gbps, GPU: 64.0}.get(domain, 4 * 38.5)
        assert model.expert_bytes / gbps <= ns * 1.001
        assert ns < 1e9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: costs("t4", "mixtral-8x7b").expert_ns(FIRST_DIMM, 1, 0), "domain 2"),
        (lambda: costs().expert_ns(FIRST_DIMM + 1, 1, 0), "layout 0"),
        (lambda: costs("t4", "mixtral-8x7b").expert_load(SPLIT, 1), "domain -2"),
        (lambda: costs().expert_ns(CPU, -1), "-1 tokens"),
        (lambda: costs().expert_ns(CPU, 1, 16), "layout 16"),
        (lambda: costs().transfer_load("up", 1.0), "up, 1 bytes"),
        (lambda: costs().transfer_load("h2d", float("nan")), "nan bytes"),
        (lambda: costs().dense_load(FIRST_DIMM, 1.0, 1.0), "domain 2"),
        (lambda: costs(weights="fp8"), "int8 for fp8"),
        (lambda: costs(weights="int3"), "int3"),
    ],
)
def test_what_cannot_be_is_named(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=message):
        call()
