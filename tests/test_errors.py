"""Errors: one line each that any terminal shows, and hints that name the nearest choice."""

from __future__ import annotations

import pytest

from trimoe.errors import InputError, nearest

MODELS = ("deepseek-v2", "glm-4.5-air", "gpt-oss-120b", "kimi-k2", "mixtral-8x7b", "qwen3-30b-a3b")


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("gpt-oss-20b", "gpt-oss-120b"),
        ("Qwen3-30B", "qwen3-30b-a3b"),
        ("mixtral", "mixtral-8x7b"),
        ("glm", "glm-4.5-air"),
        ("", "deepseek-v2"),
        ("x" * 10**6, "mixtral-8x7b"),
    ],
)
def test_the_nearest_name_is_found(name: str, choice: str) -> None:
    assert nearest(name, MODELS) == choice


@pytest.mark.parametrize(
    ("expected", "got", "hint", "better"),
    [
        ("a mode out of host, exclusive, concurrent", "conc", "exclusive", "concurrent"),
        ("activations auto, int8 or bf16", "bf32", "auto", "bf16"),
        ("weights of fp32, bf16 or int8", "int3", "one of the three", "int8"),
        (
            "TRIMOE_CPU_ISA to name an entry",
            "avx51",
            "avx512_bf16, avx512, ref",
            "avx512, out of avx512_bf16, avx512, ref",
        ),
        # Not a name out of a list: the hint stays.
        ("an entry that runs here", "amx (CPUID lacks it)", "avx2, ref", "avx2, ref"),
        ("int4 groups of 32, 64 or 128", "48", "128", "128"),
        ("hidden of bf16, fp16 or fp32", "int64", "hidden.to(torch.bfloat16)", "hidden.to(torch.bfloat16)"),
        ("a number", "abc", "1", "1"),
    ],
)
def test_hints_of_the_native_core_are_put_in_python_s_terms(
    expected: str, got: str, hint: str, better: str
) -> None:
    error = InputError.from_native(ValueError(f"trimoe: expected {expected}; got {got}; try {hint}"))
    assert (error.expected, error.got, error.hint) == (expected, got, better)


def test_other_native_errors_are_told_as_they_are() -> None:
    error = InputError.from_native(ValueError("vector::reserve"))
    assert (error.got, error.hint) == ("vector::reserve", "`trimoe doctor`")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\t c\u2028d", "a b c d"),
        ("\x1b[2Jgone\a", "\\x1b[2Jgone\\x07"),
        ("\0", "\\x00"),
        ("\u202egpj", "\\u202egpj"),
        ("\ud800", "\\ud800"),
        ("Größe 大", "Größe 大"),
    ],
    ids=ascii,
)
def test_names_of_strangers_are_shown_not_obeyed(text: str, shown: str) -> None:
    """As a tensor's name in a checkpoint may be."""
    for part in ("expected", "got", "hint"):
        error = InputError(**{"expected": "e", "got": "g", "hint": "h", part: text})
        assert getattr(error, part) == shown and shown in str(error)
