"""`trimoe pack`: experts packed ahead of time, into the packed cache or a model folder of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimoe.cli.formats import FORMAT_OPTION, GROUP_OPTION, check_format
from trimoe.cli.options import CheckpointArgument, JsonOption, output_option
from trimoe.cli.render import human_bytes, human_ns, print_facts, print_json, progress
from trimoe.errors import FailureError

__all__ = ["pack"]


def pack(
    model: CheckpointArgument,
    fmt: Annotated[str, FORMAT_OPTION] = "auto",
    group: Annotated[int, GROUP_OPTION] = 0,
    output: Annotated[
        Path | None,
        output_option(
            "New folder for the whole model with its experts packed; the packed cache is filled if left out."
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read everything back and compare it with its checksums.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Convert a checkpoint's experts ahead of the next start.

    Without --output they go into the packed cache, where `trimoe generate MODEL` and `trimoe.load(MODEL)`
    with the same format find them. With --output, a self-contained folder is written that both take in place
    of MODEL. If interrupted or out of space, nothing is left behind.

    \b
    Examples:
      trimoe pack /models/Qwen3-30B-A3B --format int4 --group 64
      trimoe pack /models/gpt-oss-20b
      trimoe pack /models/Qwen3-30B-A3B --format int8 --output /models/Qwen3-30B-A3B-int8
    """
    from trimoe.checkpoint.checkpoint import Checkpoint
    from trimoe.checkpoint.compute_spec import Packing
    from trimoe.store.pack import pack_to_cache, pack_to_folder, packable_bytes, verify_packed

    packing = Packing(fmt, group)
    check_format(packing)
    with Checkpoint(model) as checkpoint:
        source_bytes = packable_bytes(checkpoint, packing)  # a bad one is told before torch is imported
        from trimoe.hf.load import read_expert_math

        math = read_expert_math(checkpoint)
        with progress("packing experts", source_bytes, enabled=not json_output) as advance:
            if output is None:
                report = pack_to_cache(checkpoint, math, packing, lambda done, _: advance(done))
            else:
                report = pack_to_folder(checkpoint, math, packing, output, lambda done, _: advance(done))
        if verify:
            with progress("checking", report.packed_bytes, enabled=not json_output) as advance:
                if not verify_packed(output or checkpoint, math, packing, advance):
                    raise FailureError(
                        expected=f"whole experts in {report.path}",
                        got="damaged ones, which were removed",
                        hint="packing again, and looking at the disk (dmesg)",
                    )
    if json_output:
        print_json(report.as_dict())
        return
    speed = f", {report.source_bytes / report.duration_ns:.2f} GB/s"
    print_facts(
        f"Experts of {model} as {report.packed_format}",
        {
            "read": human_bytes(report.source_bytes),
            "packed": f"{human_bytes(report.packed_bytes)} "
            f"({report.packed_bytes / report.source_bytes:.2f} of that)",
            "in": "no time, they were there"
            if report.already_there
            else human_ns(report.duration_ns) + speed,
            "lie in": report.path,
        },
    )
