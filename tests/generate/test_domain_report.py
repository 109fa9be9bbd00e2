"""The report of a domain has the sums of its layers' counters, compared with the machine's limits."""

from __future__ import annotations

import pytest

from support.cases import Case, Problem, make_problem
from trimoe.generate.domain_report import absent, cpu_report
from trimoe.hardware.roofline import Roofline
from trimoe.layer.op import moe_forward

ROOFLINE = Roofline("ref", 1, 1 << 20, (2.0,), {"fp32": (3.0,)})


def layers() -> list[Problem]:
    problems = [make_problem(Case("report", tokens=7, experts=5, topk=2), "fp32", seed=one) for one in (0, 1)]
    for one in problems:
        moe_forward(one.hidden, one.ids, one.weights, one.layer.handle)
    return problems


def test_counters_of_all_layers_are_summed() -> None:
    problems = layers()
    found = cpu_report((one.layer for one in problems), None)
    stats = [one.layer.stats() for one in problems]
    assert (found.domain, found.present, found.roofline_pct) == ("CPU", True, None)
    assert (found.experts, found.tokens, found.rows) == (10, 14, 28)
    assert found.experts_used == sum(one.ids.unique().numel() for one in problems)
    for name in ("busy_ns", "weight_bytes", "flops"):
        assert getattr(found, name) == sum(one[name] for one in stats) > 0


def test_the_share_is_of_the_least_time_that_the_machine_needs() -> None:
    problems = layers()
    found = cpu_report((one.layer for one in problems), ROOFLINE)
    least_ns = sum(
        max(s["weight_bytes"] / 2.0, s["flops"] / 3.0) for s in (one.layer.stats() for one in problems)
    )
    assert found.roofline_pct == pytest.approx(100 * least_ns / found.busy_ns)


def test_layers_that_did_nothing_are_compared_with_nothing() -> None:
    problem = make_problem(Case("idle"), "fp32")
    assert cpu_report([problem.layer], ROOFLINE).roofline_pct is None


def test_an_absent_domain_has_no_figures() -> None:
    plain = absent("GPU").as_dict()
    assert (plain.pop("domain"), plain.pop("present"), plain.pop("roofline_pct")) == ("GPU", False, None)
    assert set(plain.values()) == {0}
