"""Which rate counts for which weights, and the curve between measured tables."""

from __future__ import annotations

import pytest

from trimoe.cost.rates import measured_curve, peak_tflops
from trimoe.errors import InputError
from trimoe.hardware.profile import CpuProfile, ExpertTable, GpuProfile


def table(hidden: int, ns: float, weights: str = "bf16", domain: str = "cpu") -> ExpertTable:
    return ExpertTable(domain, weights, hidden, 10, (1, 3), (ns, 2 * ns), "a test")


def test_tables_are_taken_by_format_domain_and_size() -> None:
    tables = (table(100, 1000.0), table(300, 2000.0), table(200, 7.0, "int8"), table(200, 9.0, domain="gpu"))

    def at(hidden: int, tokens: int = 1, weights: str = "bf16") -> float:
        curve = measured_curve(tables, "cpu", weights, hidden, 10)
        assert curve is not None
        return curve(tokens)

    assert [at(100), at(300), at(200), at(250)] == pytest.approx([1000, 2000, 1500, 1750])
    assert [at(50), at(600)] == pytest.approx([500, 4000]), "beyond the sizes in proportion"
    assert at(200, 2) == pytest.approx(2250)
    assert at(200, weights="int8") == 7
    assert measured_curve(tables, "cpu", "fp8", 200, 10) is None


def test_formats_fall_back_to_what_the_unit_has() -> None:
    cpu = CpuProfile("cpu", 4, {"fp32": 1.0, "int8": 4.0}, 1.0, 0.0)
    gpu = GpuProfile("gpu", {"fp16": 65.0, "int8": 130.0}, 1.0, 0.0, 1 << 34, 300.0)
    assert [peak_tflops(cpu, one) for one in ("bf16", "int4", "mxfp4")] == [1, 4, 1]
    assert [peak_tflops(gpu, one) for one in ("bf16", "int8", "int4", "fp8")] == [65, 130, 65, 65]
    only_int8 = CpuProfile("odd", 4, {"int8": 4.0}, 1.0, 0.0)
    with pytest.raises(InputError, match=r"odd.*bf16.*got peaks for int8"):
        peak_tflops(only_int8, "bf16")
