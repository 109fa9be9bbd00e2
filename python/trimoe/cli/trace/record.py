"""`trimoe trace record`: the routing of a model while it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimoe.cli.formats import ACTIVATIONS_OPTION, FORMAT_OPTION, GROUP_OPTION, SHIPPED_MODEL, check_format
from trimoe.cli.generate import load_model, use_threads
from trimoe.cli.options import (
    CacheOption,
    CandidatesOption,
    JsonOption,
    MaxNewTokensOption,
    ModelFolderArgument,
    SeedOption,
    TemperatureOption,
)
from trimoe.cli.render import print_json, progress_steps
from trimoe.cli.trace.options import OutputOption, print_written, trace_app, trace_facts
from trimoe.errors import InputError
from trimoe.input_file import read_lines


@trace_app.command()
def record(
    output: OutputOption,
    model: ModelFolderArgument = SHIPPED_MODEL,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Text to continue, repeat for more requests.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Text file with one prompt per line.")] = None,
    max_new_tokens: MaxNewTokensOption = 128,
    temperature: TemperatureOption = 0.8,
    top_k: CandidatesOption = 50,
    seed: SeedOption = 0,
    scores: Annotated[
        bool,
        typer.Option(
            help="Also keep the router's probability of every expert: most of the file, about 1.5 bytes for "
            "each expert, layer and token."
        ),
    ] = True,
    fmt: Annotated[str, FORMAT_OPTION] = "auto",
    group: Annotated[int, GROUP_OPTION] = 0,
    activations: Annotated[str, ACTIVATIONS_OPTION] = "auto",
    cache: CacheOption = True,
    json_output: JsonOption = False,
) -> None:
    """Record which experts a model's tokens choose.

    Runs a model on some prompts and writes the experts of each token in each layer. Requests run one after
    the other (request r with seed --seed + r) and are stored as one batch that began together: step 0 has
    all prompts, each later step one new token of every request. Ctrl-C leaves no file.

    \b
    Examples:
      trimoe trace record --output trace.parquet
      trimoe trace record --prompt "And God said" --prompt "import os" --output trace.parquet
      trimoe trace record /models/Qwen3-30B-A3B --prompts prompts.txt --no-scores --output qwen.parquet
    """
    from trimoe.checkpoint.compute_spec import Packing
    from trimoe.trace import check_output, write_trace

    check_output(output)
    texts = _texts(prompt, prompts)
    packing = Packing(fmt, group, activations)
    check_format(packing)
    from trimoe.checkpoint.checkpoint import Checkpoint
    from trimoe.measure.memory_forecast import predict_memory

    with Checkpoint(model) as checkpoint:
        predicted_bytes = predict_memory(checkpoint, packing, "auto").total_bytes
        use_threads()
        loaded, tokenizer, _ = load_model(
            checkpoint, "auto", packing, cache, predicted_bytes, quiet=json_output
        )
    from trimoe.generate.generation import Sampling
    from trimoe.generate.record import record_trace

    sampling = Sampling(max_new_tokens, temperature, top_k, seed)
    name = "trimoe-tiny" if model == SHIPPED_MODEL else None
    with progress_steps("recording", len(texts) * max_new_tokens, enabled=not json_output) as advance:
        trace = record_trace(loaded, tokenizer, texts, sampling, name=name, scores=scores, on_step=advance)
    file_bytes = write_trace(trace, output)
    if json_output:
        print_json({**trace_facts(trace), "output": str(output), "file_bytes": file_bytes})
    else:
        print_written(trace, output, file_bytes)


def _texts(prompt: list[str] | None, prompts: Path | None) -> list[str]:
    """The prompts of the options, the file's last; InputError for a file without any."""
    texts = list(prompt or [])
    if prompts is not None:
        texts += read_lines(prompts, hint="one prompt per line")
        if not texts:
            raise InputError(
                expected=f"prompts in {prompts}", got="an empty file", hint="one prompt per line"
            )
    return texts or ["And the LORD said unto Moses,"]
