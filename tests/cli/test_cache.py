"""`trimoe cache`: what is kept on disk, by readable names; nothing goes that was not named or is not ours."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from support.command_line import Outcome, run_here, run_without_torch
from support.shipped_model import SHIPPED
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.store.cache import PackedCache

DAY_S = 86_400
SPEC = {0: LayerSpec(1, 64, 64)}


def save(model: str, days: float = 0) -> Path:
    """Packed experts of a model, last used so many days ago."""
    cache = PackedCache(f"{model:0>32}", SPEC, origin=f"/models/{model}")
    cache.save({0: ExpertLayer(SPEC[0])})
    used_s = time.time() - days * DAY_S
    os.utime(cache.path, (used_s, used_s))
    return cache.path


def damage(path: Path, at: int = -1) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 255
    path.write_bytes(raw)


def ok(outcome: Outcome) -> str:
    assert (outcome.code, outcome.err) == (0, ""), outcome.err
    return outcome.out


def report(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(ok(run_here(["cache", *arguments, "--json"], capfd)))
    return value


@pytest.mark.slow
def test_the_list_says_what_is_there_without_torch(private_cache: Path, tmp_path: Path) -> None:
    """Without torch, and in a fraction of a second."""
    assert ok(run_without_torch(["cache", "list"], tmp_path)) == f"No packed experts in {private_cache}\n"
    path = save("Qwen3")
    out = ok(run_without_torch(["cache", "list"], tmp_path))
    for word in ("Qwen3:bf16", "28.7 kB", "/models/Qwen3", str(private_cache), time.strftime("%Y-%m-%d")):
        assert word in out
    found = json.loads(ok(run_without_torch(["cache", "list", "--json"], tmp_path)))
    assert found["folder"] == str(private_cache) and found["total_bytes"] == path.stat().st_size
    assert [(one["name"], one["path"]) for one in found["files"]] == [("Qwen3:bf16", str(path))]
    os.truncate(path, 100)
    assert "a truncated or changed file" in ok(run_without_torch(["cache", "list"], tmp_path))


def test_the_path_is_told_and_not_made(private_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ok(run_here(["cache", "path"], capfd)) == f"{private_cache}\n"
    assert report(capfd, "path") == {"path": str(private_cache)}
    assert not private_cache.exists()


@pytest.mark.slow
def test_what_is_named_is_removed_and_nothing_else(
    private_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for model, days in (("new", 1), ("old", 40), ("older", 400)):
        save(model, days)
    (private_cache / "mine.txt").write_text("mine")
    run_here(["cache", "rm", "new:bf15"], capfd).assert_one_line("got new:bf15; try new:bf16")
    run_here(["cache", "rm", "new:bf16", "nwe:bf16"], capfd).assert_one_line("got nwe:bf16; try new:bf16")
    assert len(list(private_cache.glob("*.experts"))) == 3
    assert report(capfd, "rm", "--older-than", "60d")["removed"] == ["older:bf16"]
    out = ok(run_here(["cache", "rm", "old:bf16"], capfd))
    assert "removed old:bf16, 28.7 kB" in out and "28.7 kB freed" in out
    assert ok(run_here(["cache", "rm", "--older-than", "8w"], capfd)) == "nothing to remove\n"
    found = report(capfd, "rm", "--all")
    assert (found["removed"], found["freed_bytes"]) == (["new:bf16"], 28_672)
    assert os.listdir(private_cache) == ["mine.txt"]
    assert report(capfd, "rm", "--all") == {"removed": [], "freed_bytes": 0}


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ([], "one of NAME..., --all and --older-than; got none"),
        (["x", "--all"], "got several"),
        (["--all", "--older-than", "3d"], "got several"),
        (["--older-than", "soon"], "a number and m, h, d or w; got soon; try 30d"),
        (["--older-than", "-1d"], "a number and m, h, d or w"),
        (["--older-than", ""], "a number and m, h, d or w"),
        (["--older-than", "9" * 30 + "d"], "a number and m, h, d or w"),
        (["x"], "the cache is empty"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], fragment: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run_here(["cache", "rm", *arguments], capfd).assert_one_line(fragment)


def test_rm_says_what_it_could_not_remove(
    private_cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save("theirs")
    monkeypatch.setattr("trimoe.store.cache.is_mine", lambda status: False)
    outcome = run_here(["cache", "rm", "--all"], capfd)
    assert outcome.code == 1 and outcome.out == "nothing to remove\n"
    assert "some of root's" in outcome.err and "theirs:bf16" in outcome.err and outcome.err.count("\n") == 1
    assert len(os.listdir(private_cache)) == 1


@pytest.mark.slow
def test_damaged_files_are_found(private_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "No packed experts" in ok(run_here(["cache", "verify"], capfd))
    whole, bad = save("whole"), save("bad")
    assert ok(run_here(["cache", "verify"], capfd)).count("whole") == 3  # a name, and what was found twice
    damage(bad)
    for arguments in ([], ["bad:bf16"], ["bad:bf16", "whole:bf16"]):
        outcome = run_here(["cache", "verify", *arguments], capfd)
        assert outcome.code == 1 and "damaged experts in layer 0" in outcome.out
        assert outcome.err.count("\n") == 1 and "try `trimoe cache rm bad:bf16`" in outcome.err
    outcome = run_here(["cache", "verify", "--json"], capfd)
    found = json.loads(outcome.out)
    assert not found["whole"] and outcome.code == 1
    assert {one["name"]: one["problem"] for one in found["files"]} == {
        "whole:bf16": "",
        "bad:bf16": "damaged experts in layer 0",
    }
    assert report(capfd, "verify", "whole:bf16")["whole"]
    run_here(["cache", "verify", "other"], capfd).assert_one_line("got other; try ")
    assert whole.exists() and bad.exists()


@pytest.mark.slow
def test_verify_of_a_packed_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    command = ["pack", str(SHIPPED), "--format", "int8", "--output", str(folder), "--verify", "--json"]
    ok(run_here(command, capfd))
    assert report(capfd, "verify", str(folder))["files"][0]["name"] == str(folder)
    path = folder / "experts.trimoe"
    damage(path, path.stat().st_size // 2)
    outcome = run_here(["cache", "verify", str(folder)], capfd)
    assert outcome.code == 1 and "damaged experts in layer" in outcome.out
    assert "copying the folder again, or `trimoe pack` again" in outcome.err


GREEDY = ["--no-measure", "--temperature", "0", "--max-new-tokens", "4", "--json"]


@pytest.mark.slow
def test_generate_and_pack_check_everything_if_asked(
    private_cache: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A byte that no start would look at: the samples are made to miss it."""
    monkeypatch.setattr("trimoe.store.packed_file.PackedFile.damaged", lambda *_: [])
    first = json.loads(ok(run_here(["generate", *GREEDY], capfd)))
    (path,) = private_cache.iterdir()
    damage(path, path.stat().st_size // 2)
    assert json.loads(ok(run_here(["generate", *GREEDY], capfd)))["load"]["from_cache"]
    mended = json.loads(ok(run_here(["generate", "--verify", *GREEDY], capfd)))
    assert (mended["text"], mended["load"]["from_cache"]) == (first["text"], False)
    assert "got damaged experts in layer" in caplog.text
    assert json.loads(ok(run_here(["generate", "--verify", *GREEDY], capfd)))["load"]["from_cache"]
    damage(path, path.stat().st_size // 2)
    outcome = run_here(["pack", str(SHIPPED), "--verify", "--json"], capfd)
    assert outcome.code == 1 and "damaged ones, which were removed; try packing again" in outcome.err
    assert not json.loads(ok(run_here(["pack", str(SHIPPED), "--verify", "--json"], capfd)))["already_there"]


@pytest.mark.parametrize("command", [["list"], ["rm", "--all"], ["verify"], ["path"]])
def test_no_cache_folder_is_one_line(
    command: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMOE_CACHE", "~no-such-user")
    run_here(["cache", *command], capfd).assert_one_line("the home of no user")


def test_a_folder_of_others_is_one_line(private_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    private_cache.mkdir()
    private_cache.chmod(0o777)
    for command in (["list"], ["rm", "--all"], ["verify"]):
        run_here(["cache", *command], capfd).assert_one_line("others may write to")
