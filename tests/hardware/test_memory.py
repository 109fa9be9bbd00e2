"""The memory ledger follows what the process really takes."""

from __future__ import annotations

import mmap

from trimoe.hardware.memory import MemoryLedger, peak_rss_bytes, reset_peak_rss, rss_bytes

SIZE = 64 << 20
SLACK = 16 << 20


def test_the_ledger_sees_a_peak_that_is_gone_again() -> None:
    ledger = MemoryLedger(predicted_bytes=SIZE)
    before = rss_bytes()
    block = mmap.mmap(-1, SIZE)
    block.write(b"x" * SIZE)
    during = rss_bytes()
    block.close()
    found = ledger.as_dict()
    assert during - before > SIZE - SLACK
    assert rss_bytes() < during - SIZE + SLACK
    assert found["peak_rss_bytes"] is not None and found["peak_rss_bytes"] >= during - SLACK
    assert found["predicted_peak_rss_bytes"] == ledger.baseline_rss_bytes + SIZE


def test_a_reset_forgets_the_old_peak_where_the_kernel_permits_it() -> None:
    block = mmap.mmap(-1, SIZE)
    block.write(b"x" * SIZE)
    block.close()
    peak = peak_rss_bytes()
    if reset_peak_rss():
        assert peak_rss_bytes() < peak - SIZE + SLACK
    else:
        assert peak_rss_bytes() == peak


def test_the_ledger_is_plain_data() -> None:
    found = MemoryLedger(predicted_bytes=7).as_dict()
    assert found["predicted_bytes"] == 7
    assert all(value is None or isinstance(value, int) for value in found.values())
