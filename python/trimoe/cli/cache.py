"""`trimoe cache`: the packed experts that are kept on disk."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimoe.cli.options import JsonOption
from trimoe.cli.render import human_bytes, print_json, print_line, print_table, progress
from trimoe.errors import FailureError, InputError
from trimoe.hardware.folders import cache_folder

if TYPE_CHECKING:
    from trimoe.store.cached_files import CachedFile

__all__ = ["cache_app"]

cache_app = typer.Typer(no_args_is_help=True, help="List, check and remove packed experts kept on disk.")

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@cache_app.command("list")
def list_files(json_output: JsonOption = False) -> None:
    """Show what the packed cache holds.

    Of each file the model and format, its size, when it was used last, and the checkpoint.

    \b
    Examples:
      trimoe cache list
      trimoe cache list --json
    """
    from trimoe.store.cached_files import cached_files

    folder = cache_folder()
    files = cached_files(folder)
    total_bytes = sum(one.nbytes for one in files)
    if json_output:
        listed = [one.as_dict() for one in files]
        print_json({"folder": str(folder), "total_bytes": total_bytes, "files": listed})
        return
    if not files:
        print_line(f"No packed experts in {folder}")
        return
    rows = [
        (
            one.name,
            human_bytes(one.nbytes),
            datetime.fromtimestamp(one.used_s).strftime("%Y-%m-%d %H:%M"),
            one.problem or one.checkpoint or "unknown",
        )
        for one in files
    ]
    print_table(f"Packed experts in {folder}", ("name", "size", "last used", "of"), rows, right=("size",))
    print_line(f"{human_bytes(total_bytes)} in all; `trimoe cache rm NAME` removes one")


@cache_app.command()
def rm(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names as `trimoe cache list` shows them, or checkpoint folders.",
            metavar="NAME...",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all packed experts.")] = False,
    older_than: Annotated[
        str | None, typer.Option(help="Remove files that were not used for this long: 12h, 30d, 8w.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Remove packed experts from the cache.

    There is no confirmation. Running models are not disturbed; the next start of a model packs its experts
    again. Other files in the folder stay.

    \b
    Examples:
      trimoe cache rm Qwen3-30B-A3B:int4-g64
      trimoe cache rm --older-than 30d
      trimoe cache rm --all
    """
    from trimoe.store.cached_files import cached_files, choose, remove_files

    if bool(names) + everything + (older_than is not None) != 1:
        raise InputError(
            expected="one of NAME..., --all and --older-than",
            got="none of them" if not (names or everything or older_than) else "several",
            hint="`trimoe cache list` for the names",
        )
    folder = cache_folder()
    files = cached_files(folder)
    if names:
        files = choose(files, names)
    elif older_than is not None:
        before_s = time.time() - _seconds(older_than)
        files = [one for one in files if one.used_s < before_s]
    removed = remove_files(folder, files)
    freed_bytes = sum(one.nbytes for one in removed)
    if json_output:
        print_json({"removed": [one.name for one in removed], "freed_bytes": freed_bytes})
    else:
        for one in removed:
            print_line(f"removed {one.name}, {human_bytes(one.nbytes)}")
        print_line(f"{human_bytes(freed_bytes)} freed" if removed else "nothing to remove")
    left = [one.name for one in files if one not in removed]
    if left:
        raise FailureError(
            expected=f"to remove {len(files)} files",
            got=f"some of root's, or that changed meanwhile: {', '.join(left)}",
            hint=f"looking at them (ls -l {folder})",
        )


@cache_app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names as `trimoe cache list` shows them, checkpoint folders, or folders that `trimoe pack` "
            "wrote; the whole cache if left out.",
            metavar="NAME...",
            show_default=False,
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Compare every byte of packed experts with its checksum.

    Each start of a model compares only some of them.

    \b
    Examples:
      trimoe cache verify
      trimoe cache verify Qwen3-30B-A3B:int4-g64
      trimoe cache verify /models/Qwen3-30B-A3B-int8
    """
    from trimoe.store.cached_files import cached_files, choose, problem_in
    from trimoe.store.packed_folder import PACKED_FILE, problem_in_folder

    folders = [Path(name) for name in names or () if (Path(name) / PACKED_FILE).exists()]
    words = [name for name in names or () if Path(name) not in folders]
    files = cached_files(cache_folder()) if words or not names else []
    files = choose(files, words) if words else files
    sizes = {str(one): (one / PACKED_FILE).stat().st_size for one in folders}
    sizes |= {one.name: one.nbytes for one in files}
    with progress("checking", sum(sizes.values()), enabled=not json_output) as advance:
        problems = {str(one): problem_in_folder(one, advance) for one in folders}
        problems |= {one.name: problem_in(one.path, advance) for one in files}
    if json_output:
        rows = [{"name": name, "nbytes": sizes[name], "problem": found} for name, found in problems.items()]
        print_json({"whole": not any(problems.values()), "files": rows})
    elif not problems:
        print_line(f"No packed experts in {cache_folder()}")
    else:
        table = [(name, human_bytes(sizes[name]), found or "whole") for name, found in problems.items()]
        print_table("Checked", ("name", "size", "found"), table, right=("size",))
    bad = [name for name, found in problems.items() if found]
    if bad:
        raise FailureError(
            expected=f"whole files, {len(problems)} of them",
            got=f"{len(bad)} that are not: {', '.join(bad)}",
            hint=_mend(bad[0], files),
        )


@cache_app.command("path")
def show_path(json_output: JsonOption = False) -> None:
    """Show where the packed cache lies.

    In TRIMOE_CACHE, else in XDG_CACHE_HOME/trimoe, else in ~/.cache/trimoe.

    \b
    Examples:
      trimoe cache path
      TRIMOE_CACHE=/fast/trimoe trimoe cache path
    """
    folder = cache_folder()
    if json_output:
        print_json({"path": str(folder)})
    else:
        print_line(str(folder))


def _mend(name: str, files: list[CachedFile]) -> str:
    if name in [one.name for one in files]:
        return f"`trimoe cache rm {name}`: the next start packs again"
    return "copying the folder again, or `trimoe pack` again"


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    if found is None:
        raise InputError(expected="--older-than as a number and m, h, d or w", got=text, hint="30d")
    return int(found[1]) * _SECONDS[found[2]]
