"""The roofline: medians of what the native probes return, and a real measurement that is plausible."""

from __future__ import annotations

import pytest

from trimoe.errors import FailureError, InputError
from trimoe.hardware import cpu, roofline
from trimoe.hardware.roofline import Roofline, measure_roofline, probe_size_bytes

from .fake_cpu import FakeCpu


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCpu:
    one = FakeCpu()
    monkeypatch.setattr(cpu, "native", lambda: one)
    monkeypatch.setattr(roofline, "native", lambda: one)
    return one


def test_medians_not_means_or_extremes(fake: FakeCpu) -> None:
    found = measure_roofline(threads=3, repeats=7, seconds=0.25)
    assert found.bandwidth_gbps == 11.0
    assert found.gflops == {"fp32": 50.0, "bf16": 100.0}
    assert found.as_dict()["bandwidth_max_gbps"] == 30.0
    assert [call[-2:] for call in fake.calls] == [(7, 3), (7, 3), (7, 3)]
    assert [call[2] for call in fake.calls[1:]] == [0.25, 0.25]
    assert fake.calls[0][1] == found.probe_bytes


def test_rounds_go_on_until_the_samples_agree(fake: FakeCpu, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter([[0.4, 0.5, 9.0], [8.0, 9.5, 10.0], [3.0, 3.1, 3.2]])
    asked: list[int] = []

    def bandwidth(size: int, repeats: int, threads: int) -> list[float]:
        asked.append(size)
        return next(rounds)

    monkeypatch.setattr(fake, "probe_bandwidth_gbps", bandwidth)
    monkeypatch.setattr(fake, "probe_gflops", lambda *_: [50.0, 50.0, 49.0])
    found = measure_roofline(weights=["bf16"], rounds=3)
    assert (len(asked), found.rounds, found.bandwidth_samples_gbps) == (2, 2, (8.0, 9.5, 10.0))
    assert found.is_steady and found.unrest_pct == pytest.approx(5)


def test_samples_that_never_agree_are_told(fake: FakeCpu, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter([[0.4, 0.4, 0.4], [0.5, 0.6, 9.0], [0.3, 0.3, 0.3]])
    monkeypatch.setattr(fake, "probe_bandwidth_gbps", lambda *_: next(rounds))
    found = measure_roofline(weights=["bf16"], rounds=3)
    assert (found.bandwidth_gbps, found.rounds) == (0.6, 3)
    assert not found.is_steady and found.unrest_pct == pytest.approx(100 * (1 - 0.6 / 9))
    told = found.as_dict()
    assert (told["rounds"], told["unrest_pct"]) == (3, found.unrest_pct)


def test_a_slow_first_round_does_not_count(fake: FakeCpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow all the time, its samples agree with each other."""
    rounds = iter([[0.4, 0.4, 0.4], [25.0, 25.0, 24.0]])
    monkeypatch.setattr(fake, "probe_bandwidth_gbps", lambda *_: next(rounds))
    monkeypatch.setattr(fake, "probe_gflops", lambda *_: [50.0])
    found = measure_roofline(weights=["bf16"], rounds=3)
    assert (found.bandwidth_gbps, found.is_steady) == (25.0, True)


def test_only_the_formats_asked_for_are_measured(fake: FakeCpu) -> None:
    assert set(measure_roofline(weights=["bf16"]).gflops) == {"bf16"}
    assert [call[1] for call in fake.calls if call[0] == "gflops"] == ["bf16"]


def test_bad_arguments_are_named(fake: FakeCpu) -> None:
    with pytest.raises(InputError, match="0"):
        measure_roofline(threads=0)
    with pytest.raises(InputError, match=r"fp32, bf16.*int3"):
        measure_roofline(weights=["int3"])
    assert fake.calls == []


def test_too_little_memory_is_a_failure(fake: FakeCpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> list[float]:
        raise MemoryError

    monkeypatch.setattr(fake, "probe_bandwidth_gbps", fail)
    with pytest.raises(FailureError, match="--no-measure"):
        measure_roofline()


def test_the_bound_is_the_slower_of_memory_and_arithmetic() -> None:
    one = Roofline("avx2", 1, 1, (10.0,), {"bf16": (100.0,)})
    assert one.bound_ns(bytes_moved=1e9, flops=1e9, weights="bf16") == pytest.approx(1e8)
    assert one.bound_ns(bytes_moved=1e9, flops=1e11, weights="bf16") == pytest.approx(1e9)


def test_the_probe_outgrows_the_cache_but_not_the_memory() -> None:
    assert probe_size_bytes(None, 1 << 40) == 256 << 20
    assert probe_size_bytes(300 << 20, 1 << 40) == 600 << 20
    assert probe_size_bytes(8 << 30, 1 << 40) == 2 << 30
    assert probe_size_bytes(300 << 20, 400 << 20) == 100 << 20


@pytest.mark.slow
def test_a_real_measurement_is_plausible() -> None:
    found = measure_roofline(threads=1, repeats=2, seconds=0.01)
    assert 0.1 < found.bandwidth_gbps < 10_000
    assert set(found.gflops) == {"fp32", "bf16", "int8", "int4", "fp8", "mxfp4"}
    assert all(0.01 < gflops < 100_000 for gflops in found.gflops.values())
