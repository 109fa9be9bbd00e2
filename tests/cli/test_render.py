"""What people and programs see."""

from __future__ import annotations

import json

import pytest

from trimoe.cli import render


def test_a_piped_table_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 60 + "end"
    render.print_table(
        "Title", ("name", "n"), [("[red]a[/red]", 1), (":smile:", 23), (long, 4)], right=("n",)
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Title"
    assert lines[1].split() == ["name", "n"]
    assert lines[2].split() == ["[red]a[/red]", "1"]
    assert lines[3].split() == [":smile:", "23"]
    assert lines[4].split()[-2:] == ["end", "4"]
    assert len({len(line) for line in lines[1:]}) == 1, "numbers are not flush right"
    assert all(ord(letter) < 128 for line in lines for letter in line)


def test_facts_and_lines_keep_what_they_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_facts("Facts", {"path": "/a/[b]"})
    render.print_line("[/nothing] to close")
    assert capsys.readouterr().out == "Facts\n  path  /a/[b]\n[/nothing] to close\n"


def test_json_is_one_object_and_refuses_nan(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_json({"a_gbps": 1.5, "name": "é"})
    assert json.loads(capsys.readouterr().out) == {"a_gbps": 1.5, "name": "é"}
    with pytest.raises(ValueError):
        render.print_json({"a": float("nan")})
