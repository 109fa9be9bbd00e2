"""`trimoe generate`: text from a model, as it comes, then what it took."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trimoe.cli.completion import of
from trimoe.cli.decisions import (
    Decisions,
    PolicyOption,
    RoutingOption,
    RunHardwareOption,
    TimelineOption,
    print_decisions,
    read_routing,
)
from trimoe.cli.formats import ACTIVATIONS_OPTION, FORMAT_OPTION, GROUP_OPTION, SHIPPED_MODEL, check_format
from trimoe.cli.options import (
    CacheOption,
    CandidatesOption,
    JsonOption,
    MaxNewTokensOption,
    MeasureOption,
    ModelFolderArgument,
    NdpDimmsOption,
    SeedOption,
    SetOption,
    TemperatureOption,
    check_choice,
)
from trimoe.cli.render import human_bytes, human_ns, print_facts, print_json, print_line, print_table
from trimoe.hardware.machine import usable_threads
from trimoe.hardware.memory import MemoryLedger

if TYPE_CHECKING:
    from trimoe.checkpoint.checkpoint import Checkpoint
    from trimoe.checkpoint.compute_spec import Packing
    from trimoe.generate.generation import Generation, Phase

__all__ = ["generate", "load_model", "use_threads"]


def generate(
    model: ModelFolderArgument = SHIPPED_MODEL,
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "And the LORD said unto Moses,",
    max_new_tokens: MaxNewTokensOption = 128,
    temperature: TemperatureOption = 0.8,
    top_k: CandidatesOption = 50,
    seed: SeedOption = 0,
    dtype: Annotated[
        str,
        typer.Option(
            help="Type of all weights except the experts': auto (the checkpoint's), float32 or bfloat16.",
            autocompletion=of("auto", "float32", "bfloat16"),
        ),
    ] = "auto",
    fmt: Annotated[str, FORMAT_OPTION] = "auto",
    group: Annotated[int, GROUP_OPTION] = 0,
    activations: Annotated[str, ACTIVATIONS_OPTION] = "auto",
    cache: CacheOption = True,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Check every byte of cached packed experts, not only some blocks.",
        ),
    ] = False,
    measure: MeasureOption = True,
    ndp_dimms: NdpDimmsOption = 0,
    ndp_arithmetic: Annotated[
        str,
        typer.Option(
            help="Arithmetic of emulated DIMMs: host (the CPU's, same bits as without) or core (emulated).",
            autocompletion=of("host", "core"),
        ),
    ] = "host",
    policy: PolicyOption = None,
    hardware: RunHardwareOption = None,
    settings: SetOption = None,
    routing: RoutingOption = None,
    timeline: TimelineOption = None,
    json_output: JsonOption = False,
) -> None:
    """Continue a prompt; report speed, domains and memory.

    \b
    Examples:
      trimoe generate
      trimoe generate --prompt "And it came to pass" --temperature 0 --json
      trimoe generate /models/Qwen3-30B-A3B --max-new-tokens 32
      trimoe generate /models/Qwen3-30B-A3B --format int4 --group 64
      trimoe generate --ndp-dimms 16
      trimoe generate --policy hybrimoe --hardware h100-8470-ndp16 --temperature 0
      trimoe generate --policy trimoe --ndp-dimms 16 --profile run.perfetto
    """
    check_choice("--dtype", dtype, ("auto", "float32", "bfloat16"))
    check_choice("--ndp-arithmetic", ndp_arithmetic, ("host", "core"))
    from trimoe.checkpoint.compute_spec import Packing

    packing = Packing(fmt, group, activations)
    check_format(packing)
    from trimoe.checkpoint.checkpoint import Checkpoint
    from trimoe.measure.memory_forecast import predict_memory

    with Checkpoint(model) as checkpoint:  # opened and checked once, for all that follows
        decider = (policy, hardware, settings, ndp_dimms, ndp_arithmetic, timeline)
        decisions = Decisions.read(checkpoint, packing, max_new_tokens, *decider)
        trace = read_routing(routing, model)
        prediction = predict_memory(checkpoint, packing, dtype)
        from trimoe.hardware.roofline import measure_roofline

        threads = use_threads()
        # Before the ledger opens: the probe needs memory too.
        roofline = measure_roofline(threads=threads, weights=prediction.peak_formats) if measure else None
        loaded, tokenizer, ledger = load_model(
            checkpoint, dtype, packing, cache, prediction.total_bytes, quiet=json_output, verify=verify
        )
    from trimoe.generate.generation import Sampling
    from trimoe.generate.generation import generate as run
    from trimoe.runtime.trace_router import TraceRouter

    attached = None
    router = TraceRouter(loaded, trace) if trace is not None else None
    if decisions is not None:
        tokens = len(tokenizer(prompt)["input_ids"])
        attached = decisions.attach(loaded, tokens, max_new_tokens, router)
    say = (lambda text: None) if json_output else _say
    sampling = Sampling(max_new_tokens, temperature, top_k, seed)
    with router or nullcontext():
        result = run(loaded, tokenizer, prompt, sampling, roofline, say, attached)
    if decisions is not None and attached is not None:
        decisions.write(attached)
    memory = {"weights": prediction.as_dict(), "rss": ledger.as_dict()}
    load = _load_facts(loaded.trimoe_store)
    if json_output:
        facts = {"load": load, "memory": memory, "roofline": roofline.as_dict() if roofline else None}
        print_json(_as_dict(prompt, result) | facts)
        return
    print_line("\n")
    _print_report(result, load, memory)


def _as_dict(prompt: str, result: Generation) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "text": result.text,
        "prefill": result.prefill.as_dict(),
        "decode": result.decode.as_dict(),
    }


def _load_facts(store: Any) -> dict[str, Any]:
    return {
        "format": next(iter(store.layers.values())).spec.format_name,
        "source_bytes": store.source_bytes,
        "packed_bytes": store.packed_bytes,
        "from_cache": store.from_cache,
        "duration_ns": store.load_ns,
        "gbps": store.source_bytes / store.load_ns,
    }


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def use_threads() -> int:
    """Threads that torch computes with: the user's choice if there is one, else the usable cores."""
    import torch

    if not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys():
        torch.set_num_threads(usable_threads())
    return torch.get_num_threads()


def load_model(
    checkpoint: Checkpoint,
    dtype: str,
    packing: Packing,
    cache: bool,
    predicted_bytes: int,
    *,
    quiet: bool,
    verify: bool = False,
) -> tuple[Any, Any, MemoryLedger]:
    """The model and tokenizer of a checkpoint, and the memory they may take; InputError as `trimoe.load`.

    verify: compare every byte of what was packed before with its checksum.
    """
    import torch

    import trimoe.hf.needs_transformers  # noqa: F401

    # isort: split
    from transformers.utils import logging

    from trimoe.hf.load import load, read_expert_math
    from trimoe.hf.tokenizer import check_generation_config, load_tokenizer
    from trimoe.store.pack import verify_packed

    logging.set_verbosity_error()
    if quiet or not sys.stderr.isatty():
        logging.disable_progress_bar()
    ledger = MemoryLedger(predicted_bytes)
    tokenizer = load_tokenizer(checkpoint.path)
    check_generation_config(checkpoint.path)
    if verify:
        verify_packed(checkpoint, read_expert_math(checkpoint), packing)
    torch_dtype: torch.dtype | Literal["auto"] = "auto" if dtype == "auto" else getattr(torch, dtype)
    model = load(checkpoint, dtype=torch_dtype, cache=cache, **asdict(packing))
    return model, tokenizer, ledger


def _print_report(result: Generation, load: dict[str, Any], memory: dict[str, Any]) -> None:
    origin = "mapped, packed before" if load["from_cache"] else f"packed at {load['gbps']:.2f} GB/s"
    print_facts(
        "Speed",
        {
            "experts": f"{human_bytes(load['packed_bytes'])} of {load['format']} {origin} "
            f"in {human_ns(load['duration_ns'])}",
            "prefill": _speed(result.prefill),
            "decode": _speed(result.decode),
        },
    )
    print_line()
    if result.prefill.policy is None:
        _print_domains(result)
    else:
        print_decisions(result)
    print_line()
    weights, rss = memory["weights"], memory["rss"]
    print_facts(
        "Memory of this process",
        {
            "experts, packed": human_bytes(weights["packed_expert_bytes"]),
            "other weights": human_bytes(weights["other_weight_bytes"]),
            "peak, predicted": f"{human_bytes(rss['predicted_peak_rss_bytes'])} "
            f"({human_bytes(rss['baseline_rss_bytes'])} before loading)",
            "peak, actual": human_bytes(rss["peak_rss_bytes"]),
        },
    )


def _print_domains(result: Generation) -> None:
    rows = [
        (phase, domain.domain, *_domain_cells(domain))
        for phase, part in (("prefill", result.prefill), ("decode", result.decode))
        for domain in part.domains
    ]
    columns = ("phase", "domain", "experts used", "tokens x experts", "busy", "of roofline")
    notes = [
        "busy: in the experts' kernels; of roofline: of the speed that memory and arithmetic permit; "
        "GPU and NDP, cores on the DIMMs: --hardware or --ndp-dimms"
    ]
    print_table("Domains", columns, rows, right=columns[2:], notes=notes)
    shares = [domain.roofline_pct or 0 for part in (result.prefill, result.decode) for domain in part.domains]
    if max(shares) > 100:
        print_line("  over 100 %: the weights came from the caches, the roofline is that of memory")


def _speed(phase: Phase) -> str:
    rate = "-" if phase.tokens_per_s is None else f"{phase.tokens_per_s:.1f} tokens/s"
    return f"{rate} ({phase.tokens} tokens in {human_ns(phase.duration_ns)})"


def _domain_cells(domain: Any) -> tuple[str, ...]:
    if not domain.present:
        return ("absent", "-", "-", "-")
    share = "-" if domain.roofline_pct is None else f"{domain.roofline_pct:.0f} %"
    used = f"{domain.experts_used} of {domain.experts}"
    return (used, str(domain.rows), human_ns(domain.busy_ns), share)
