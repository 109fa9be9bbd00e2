"""Refresh of one rank that host and NDP hand to each other: against a list of what was due."""

from __future__ import annotations

import random

import pytest

from trimoe._ndp import RefreshLedger
from trimoe.errors import InputError
from trimoe.ndp import specs

OWNERS = ("host", "ndp")


@pytest.mark.parametrize("first_due", [0, 1, 12_345])
@pytest.mark.parametrize("spec", specs(), ids=lambda one: one.name)
@pytest.mark.parametrize("seed", range(5))
def test_random_sequences_match_a_list_of_due_clocks(spec, first_due: int, seed: int) -> None:
    """Steps are tried whether the rules allow them or not; the ledger must refuse just what the list does."""
    draw = random.Random(seed)
    interval = spec.timing_clocks["nREFI"]
    ledger = RefreshLedger(spec.name, first_due)
    waiting: list[int] = []  # due clocks that nobody has served
    next_due = first_due or interval
    owner, clock, transfers, worst = "host", 0, 0, 0
    issued = dict.fromkeys(OWNERS, 0)
    refused = {"issue": 0, "transfer": 0}
    for step in range(1500):
        forgetful = step % 500 < 150  # then the debt falls again
        clock += draw.randrange(interval // 3 if forgetful else interval // 20)
        while next_due <= clock:
            waiting.append(next_due)
            next_due += interval
        who = draw.choice(OWNERS)
        if draw.random() < (0.1 if forgetful else 0.7):
            allowed, kind = who == owner and bool(waiting), "issue"
        else:
            allowed, kind = len(waiting) <= 8 or who == owner, "transfer"
        if not allowed:
            with pytest.raises(InputError, match=r"expected .*; got .*; try "):
                getattr(ledger, kind)(who, clock)
            refused[kind] += 1
        else:
            getattr(ledger, kind)(who, clock)
            if kind == "issue" or who != owner:
                worst = max(worst, len(waiting))
            if kind == "issue":
                issued[owner] += 1
                waiting.pop(0)
            else:
                transfers += who != owner
                owner = who
        assert ledger.owner == owner
        assert ledger.debt(clock) == len(waiting)
        assert ledger.next_due == (waiting[0] if waiting else next_due)
        assert {name: ledger.issued(name) for name in OWNERS} == issued
        assert (ledger.transfers, ledger.largest_debt) == (transfers, worst)
    assert transfers > 20 and min(issued.values()) > 20 and min(refused.values()) > 20


@pytest.mark.parametrize("seed", range(5))
def test_who_keeps_the_rule_forgets_no_refresh(seed: int) -> None:
    """Owners that refresh when eight are due, or now and then, and change at random."""
    draw = random.Random(seed)
    interval = specs()[0].timing_clocks["nREFI"]
    ledger = RefreshLedger(specs()[0].name)
    clock = 0
    for _ in range(2000):
        clock += draw.randrange(interval)
        while ledger.debt(clock) and (ledger.debt(clock) >= 8 or draw.random() < 0.2):
            ledger.issue(ledger.owner, clock)
        if draw.random() < 0.3:
            ledger.transfer("ndp" if ledger.owner == "host" else "host", clock)
        count = sum(ledger.issued(one) for one in OWNERS)
        assert clock // interval - 8 <= count <= clock // interval
    assert 1 < ledger.largest_debt <= 8 and ledger.transfers > 100


def test_only_the_owner_refreshes() -> None:
    ledger = RefreshLedger("4800B")
    with pytest.raises(InputError, match="by the owner of the rank; got ndp"):
        ledger.issue("ndp", 10_000)
    ledger.transfer("ndp", 10_000)
    with pytest.raises(InputError, match="by the owner of the rank; got host"):
        ledger.issue("host", 10_000)
    ledger.issue("ndp", 10_000)
    assert (ledger.issued("host"), ledger.issued("ndp")) == (0, 1)


def test_eight_may_be_handed_over_and_nine_not() -> None:
    interval = specs()[0].timing_clocks["nREFI"]
    ledger = RefreshLedger("4800B")
    ledger.transfer("ndp", 9 * interval - 1)
    assert ledger.debt(9 * interval - 1) == 8
    with pytest.raises(InputError, match="at most 8 refreshes behind; got 9"):
        ledger.transfer("host", 9 * interval)
    ledger.issue("ndp", 9 * interval)
    ledger.transfer("host", 9 * interval)
    assert (ledger.owner, ledger.debt(9 * interval), ledger.largest_debt) == ("host", 8, 9)


@pytest.mark.parametrize(
    "call",
    [
        lambda: RefreshLedger("6400"),
        lambda: RefreshLedger("4800B", -1),
        lambda: RefreshLedger("4800B").issue("dimm", 10_000),
        lambda: RefreshLedger("4800B").issue("host", 9_374),
        lambda: RefreshLedger("4800B").transfer("dimm", 0),
    ],
)
def test_bad_input_is_refused(call) -> None:
    with pytest.raises(InputError, match=r"expected .*; got .*; try "):
        call()


def test_clocks_never_go_back() -> None:
    ledger = RefreshLedger("4800B")
    ledger.transfer("ndp", 20_000)
    with pytest.raises(InputError, match="clocks in order"):
        ledger.issue("ndp", 19_999)
    assert ledger.issued("ndp") == 0
