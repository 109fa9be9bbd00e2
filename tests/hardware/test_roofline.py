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


def test_a_real_measurement_is_plausible() -> None:
    found = measure_roofline(threads=1, repeats=2, seconds=0.01)
    assert 0.1 < found.bandwidth_gbps < 10_000
    assert set(found.gflops) == {"fp32", "bf16", "int8", "int4", "fp8", "mxfp4"}
    assert all(0.01 < gflops < 100_000 for gflops in found.gflops.values())
