"""Rebuild trimoe-tiny, the model that ships with trimoe, from nothing: text, tokenizer, weights, figures.

Example:
    python examples/train_tiny.py --out python/trimoe/hf/tiny

Needs a Debian machine (its apt fetches the text; nothing is installed), torch, transformers, and a C++
compiler for torch.compile. Ctrl-C ends the training early and still measures and saves. The schedule follows
the clock, so a faster or idler machine sees more text; text, tokenizer, initial weights and the order of the
text depend only on the seed and the packages' versions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from tiny import corpus, licence, measure, packages, tokens, training
from tiny.experts import blocked_experts

VOCAB_SIZE = 2048
CONTEXT = 256
# Trained on 256; longer windows cost a few per cent in bits per byte, so twice or four times that is allowed.
MAX_POSITIONS = 1024
CHECKPOINT_SECONDS = 120.0
DEFAULT_MINUTES = 34.0


def main() -> None:
    """Parse the command line, train, measure, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument(
        "--minutes", type=float, default=DEFAULT_MINUTES, help="of training (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and order of the text (default 0)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all CPUs)")
    parser.add_argument("--packages", type=Path, help="folder that keeps the packages (default: temporary)")
    parser.add_argument("--no-compile", action="store_true", help="do not use torch.compile (slower steps)")
    options = parser.parse_args()
    if options.minutes <= 0:
        sys.exit(
            f"train_tiny: expected --minutes above 0; got {options.minutes}; try --minutes {DEFAULT_MINUTES}"
        )
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    console = Console(stderr=True)
    start = time.monotonic()
    parts = gather(options.packages, console)
    tokenizer = tokens.train_tokenizer((t for part in parts for t in part.train), VOCAB_SIZE, MAX_POSITIONS)
    row = tokens.encode(tokenizer, [text for part in parts for text in part.train])
    model = new_model(tokenizer)
    weights_millions = model.num_parameters() / 1e6
    console.print(f"{len(row) / 1e6:.2f} million tokens to train on; {weights_millions:.2f} million weights")
    recipe = training.Recipe(seconds=60 * options.minutes, seed=options.seed, context=CONTEXT)
    done = fit(model, tokenizer, row, recipe, options, console)
    if not done.steps:
        sys.exit("train_tiny: expected at least one training step; got Ctrl-C before it; try again")
    figures = {
        "seed": options.seed,
        "threads": options.threads,
        "train_tokens_in_corpus": len(row),
        "recipe": asdict(recipe),
        "training": {**asdict(done), "tokens_per_s": round(done.tokens / max(done.seconds, 1e-9))},
        "versions": {"torch": torch.__version__, "transformers": sys.modules["transformers"].__version__},
    }
    save(model, tokenizer, options.out)
    figures |= evaluate(options.out, parts)
    figures["total_wall_s"] = round(time.monotonic() - start, 1)
    (options.out / "training.json").write_text(json.dumps(figures, indent=1) + "\n")
    (options.out / "LICENSE").write_text(licence.text(parts))
    bits = figures["held_out_bits_per_byte"]["all"]
    console.print(f"held-out bits per byte: {bits}")


def gather(folder: Path | None, console: Console) -> list[corpus.Part]:
    """Fetch, clean and split every source; keeps the packages in `folder` when there is one."""
    seen: set[bytes] = set()
    parts = []
    with tempfile.TemporaryDirectory() as temporary:
        for source in corpus.SOURCES:
            versions, root = packages.fetch(source.packages, (folder or Path(temporary)).absolute())
            part = corpus.split(source, versions, root, seen)
            sizes = [sum(len(text.encode()) for text in texts) / 1e6 for texts in (part.train, part.held_out)]
            console.print(f"{source.name}: {sizes[0]:.2f} MB to train on, {sizes[1]:.2f} MB held out")
            parts.append(part)
    return parts


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3MoeForCausalLM:
    """An untrained Qwen3-MoE whose bf16 weights take about 11 MB."""
    ALL_EXPERTS_FUNCTIONS.register("blocked", blocked_experts)
    config = Qwen3MoeConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=160,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=1,
        head_dim=32,
        num_experts=32,
        num_experts_per_tok=4,
        moe_intermediate_size=80,
        norm_topk_prob=True,
        tie_word_embeddings=True,
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # "eager" attention is a few plain products that torch.compile fuses; here it beats the flash kernel.
    model: Qwen3MoeForCausalLM = Qwen3MoeForCausalLM._from_config(
        config, experts_implementation="blocked", attn_implementation="eager"
    )
    return model


def fit(
    model: Qwen3MoeForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    row: Any,
    recipe: training.Recipe,
    options: argparse.Namespace,
    console: Console,
) -> training.Progress:
    """Train with a progress bar (plain lines when stderr is no terminal), saving every few minutes."""
    columns = (BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    saved_at = 0.0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("compiling", total=recipe.seconds)

        def report(now: training.Progress) -> None:
            nonlocal saved_at
            line = f"step {now.steps}, {now.tokens / 1e6:.2f} M tokens, loss {now.loss:.3f}"
            line += f", imbalance {now.balance:.2f}"
            bar.update(task, completed=now.seconds, description=line)
            if now.seconds - saved_at >= CHECKPOINT_SECONDS:
                saved_at = now.seconds
                save(model, tokenizer, options.out)
                if not console.is_terminal:
                    console.print(f"{now.seconds:.0f} s: {line}", highlight=False)

        return training.train(model, row, recipe, report, compiled=not options.no_compile)


def save(model: Qwen3MoeForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write weights (bf16, one tensor per expert) and tokenizer; files are replaced only by complete ones."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        copy = Qwen3MoeForCausalLM(model.config)
        copy.load_state_dict(model.state_dict())
        copy.to(torch.bfloat16).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for file in Path(temporary).iterdir():
            file.chmod(0o644)
            file.replace(out / file.name)


def evaluate(folder: Path, parts: list[corpus.Part]) -> dict[str, Any]:
    """Measure the saved model on each source's held-out text, beside the baselines."""
    # The saved bf16 weights computed in fp32: what ships, without the noise of one machine's bf16 kernels.
    model = Qwen3MoeForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    train_text = "".join(text for part in parts for text in part.train).encode()
    bits_per_byte: dict[str, dict[str, float]] = {}
    counts: dict[str, list[list[int]]] = {}
    all_text, all_bits = b"", 0.0
    for part in parts:
        text = "".join(part.held_out).encode()
        row = tokens.encode(tokenizer, part.held_out)
        bits, counts[part.source.name] = measure.held_out_bits(model, row, CONTEXT)
        bits_per_byte[part.source.name] = {"model": bits / len(text), **measure.baselines(train_text, text)}
        all_text, all_bits = all_text + text, all_bits + bits
    bits_per_byte["all"] = {"model": all_bits / len(all_text), **measure.baselines(train_text, all_text)}
    first, *others = counts
    return {
        "texts": [
            {
                "name": part.source.name,
                "packages": part.versions,
                "licence": part.source.licence,
                "train_bytes": sum(len(text.encode()) for text in part.train),
                "held_out_bytes": sum(len(text.encode()) for text in part.held_out),
            }
            for part in parts
        ],
        "held_out_bits_per_byte": {
            name: {key: round(value, 4) for key, value in bits.items()}
            for name, bits in bits_per_byte.items()
        },
        "routing": measure.routing(np.sum(list(counts.values()), axis=0).tolist()),
        "routing_counts_by_text": counts,
        "routing_distance": {
            f"{first} / {other}": measure.routing_distance(counts[first], counts[other]) for other in others
        },
        "weights_bytes": (folder / "model.safetensors").stat().st_size,
        "weights": model.num_parameters(),
    }


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("train_tiny: interrupted")
