"""Files of the packed cache by readable names: told apart, checked, and removed when they are ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.others import be_user, give_to
from trimoe import _cpu
from trimoe.errors import InputError
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.store.cache import PackedCache
from trimoe.store.cached_files import cached_files, choose, problem_in, remove_files

BF16, INT4 = LayerSpec(1, 64, 64), LayerSpec(1, 64, 64, "int4", group=64)


def save(key: str, origin: str = "/models/Qwen3", spec: LayerSpec = BF16, used_s: int = 1000) -> Path:
    cache = PackedCache(key, {3: spec}, origin=origin)
    cache.save({3: ExpertLayer(spec)})
    os.utime(cache.path, (used_s, used_s))
    return cache.path


def names(folder: Path) -> list[str]:
    return [one.name for one in cached_files(folder)]


def test_names_tell_files_apart(private_cache: Path) -> None:
    assert cached_files(private_cache) == []
    save("a" * 32, used_s=1)
    save("b" * 32, spec=INT4, used_s=5)
    save("c" * 32, origin="/elsewhere/Qwen3", used_s=3)
    save("d" * 32, origin="/hub/models--openai--gpt-oss-20b/snapshots/0123", used_s=4)
    save("e" * 32, origin="", used_s=2)
    assert names(private_cache) == [
        "Qwen3:int4-g64",
        "gpt-oss-20b:bf16",
        "Qwen3:bf16@cccccccc",
        "unknown:bf16",
        "Qwen3:bf16@aaaaaaaa",
    ]
    first = cached_files(private_cache)[0]
    assert (first.checkpoint, first.format) == ("/models/Qwen3", "int4 g64")
    assert first.layout == _cpu.LAYOUT_VERSION
    assert (first.nbytes, first.used_s, first.problem) == (first.path.stat().st_size, 5, "")
    assert first.as_dict()["path"] == str(private_cache / f"{'b' * 32}.experts")


def test_what_cannot_be_used_says_why(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, short = save("a" * 32, origin="/a"), save("b" * 32, origin="/b")
    old.write_bytes(b"trimoe packed 1\n" + old.read_bytes()[16:])
    os.truncate(short, 5000)
    found = {one.path: (one.name, one.problem) for one in cached_files(private_cache)}
    assert found[old] == ("unknown:aaaaaaaa", "a file of another version of trimoe")
    assert found[short] == ("unknown:bbbbbbbb", "a truncated or changed file")
    path = save("c" * 32)
    monkeypatch.setattr(_cpu, "LAYOUT_VERSION", 1000)
    found = {one.path: (one.name, one.problem) for one in cached_files(private_cache)}
    assert found[path] == ("Qwen3:bf16", "layout 2, that of another version of trimoe")


def test_what_is_not_ours_is_not_listed(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("a" * 32)
    (private_cache / "foreign.experts").write_text("something else")
    (private_cache / "folder.experts").mkdir()
    os.mkfifo(private_cache / "pipe.experts")
    (private_cache / "link.experts").symlink_to("a" * 32 + ".experts")
    (private_cache / "this-machine.json").write_text("{}")
    theirs = save("b" * 32, origin="/b")
    give_to(monkeypatch, theirs)
    assert names(private_cache) == ["Qwen3:bf16"]


def test_a_folder_of_others_is_refused(private_cache: Path) -> None:
    save("a" * 32)
    private_cache.chmod(0o777)
    with pytest.raises(InputError, match="a folder that others may write to"):
        cached_files(private_cache)
    private_cache.chmod(0o700)


def test_files_are_chosen_by_name_and_format(
    private_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "Mixtral"
    model.mkdir()
    save("a" * 32, origin=str(model))
    save("b" * 32, origin=str(model), spec=INT4)
    save("c" * 32)
    files = cached_files(private_cache)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("Mixtral")
    for words, count in (
        (["Mixtral:bf16"], 1),
        (["Mixtral:bf16", "Qwen3:bf16", "Mixtral:bf16"], 2),
        (["c" * 32], 1),
        (["c" * 32 + ".experts"], 1),
        ([str(model)], 2),
        (["Mixtral"], 2),
        (["link/"], 2),
        ([], 0),
    ):
        assert len(choose(files, words)) == count
    for word, hint in (("MIXTRAL3:bf16", "Mixtral:bf16"), ("Qwen:bf16", "Qwen3:bf16")):
        with pytest.raises(InputError) as caught:
            choose(files, ["Qwen3:bf16", word])
        assert (caught.value.got, caught.value.hint) == (word, hint)
    with pytest.raises(InputError, match="the cache is empty"):
        choose([], ["x"])


def test_what_was_listed_is_removed_and_what_changed_meanwhile_is_not(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, kept, changed = save("a" * 32, "/a"), save("b" * 32, "/b"), save("c" * 32, "/c")
    (private_cache / "dead.part").write_bytes(b"trimoe packed 2\n")
    (private_cache / "mine.part").write_text("a thesis")
    held = PackedCache("a" * 32, {3: BF16}).load()
    files = {one.path: one for one in cached_files(private_cache)}
    changed.write_text("something else by now")
    removed = remove_files(private_cache, [files[gone], files[changed]])
    assert removed == [files[gone]] and held is not None and not any(held[3].memory)
    left = [kept.name, changed.name, "mine.part"]
    assert sorted(os.listdir(private_cache)) == sorted(left)
    assert remove_files(private_cache, [files[gone]]) == []  # it went meanwhile
    with monkeypatch.context() as other:
        be_user(other, os.geteuid() or 1000)
        give_to(other, kept, 0)  # root's file may be mapped by others, but is not theirs to remove
        assert remove_files(private_cache, [files[kept]]) == []
    assert sorted(os.listdir(private_cache)) == sorted(left)


def test_every_byte_is_checked(private_cache: Path) -> None:
    path, read = save("a" * 32), list[int]()
    assert problem_in(path, read.append) == "" and sum(read) == BF16.layer_bytes
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert problem_in(path, read.append) == "damaged experts in layer 3"
    path.write_text("x")
    assert problem_in(path, read.append) == "another kind of file"
    path.unlink()
    assert problem_in(path, read.append) == "No such file or directory"
