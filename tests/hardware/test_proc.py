"""Small readers for what the kernel writes as text."""

from __future__ import annotations

from trimoe.hardware.proc import kb_field_bytes, parse_cpu_list


def test_cpu_lists_of_the_kernel_are_read() -> None:
    assert parse_cpu_list("0-3,8,10-11\n") == (0, 1, 2, 3, 8, 10, 11)
    assert parse_cpu_list("") == ()


def test_kb_fields_match_whole_names_only() -> None:
    text = "Node 0 MemTotal: 2 kB\nMemFreeX: 9 kB\nHugePages_Free: x\n"
    assert kb_field_bytes(text, "MemTotal") == 2048
    assert kb_field_bytes(text, "MemFree") is None
    assert kb_field_bytes(text, "HugePages_Free") is None
    assert kb_field_bytes(None, "MemTotal") is None
