"""Text generation with the clock running: prefill and decode speed, domains, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import trimoe.hf.needs_transformers  # noqa: F401

# isort: split
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, TextStreamer

from trimoe.errors import FailureError, InputError
from trimoe.generate.domain_report import DomainReport, absent, cpu_report
from trimoe.hardware.roofline import Roofline
from trimoe.runtime.attached import Attached
from trimoe.runtime.policy_use import PolicyUse
from trimoe.runtime.telemetry import DomainUse

__all__ = ["Generation", "Sampling", "generate"]


_COLDEST = 1e-4  # scores divided by less overflow, and chance has long lost its part


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: temperature 0 takes the likeliest."""

    max_new_tokens: int = 64
    temperature: float = 0.8
    top_k: int = 50
    seed: int = 0


@dataclass(frozen=True)
class Phase:
    """Tokens and time of prefill or decode, and what the domains did in it.

    Where a policy decided: what it did, and the domains' `uses` instead.
    """

    tokens: int
    duration_ns: int
    domains: list[DomainReport]
    uses: list[DomainUse]
    policy: PolicyUse | None

    @property
    def tokens_per_s(self) -> float | None:
        """None where the phase had no tokens."""
        return self.tokens / self.duration_ns * 1e9 if self.tokens and self.duration_ns else None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "tokens": self.tokens,
            "duration_ns": self.duration_ns,
            "tokens_per_s": self.tokens_per_s,
            "domains": [one.as_dict() for one in (self.domains or self.uses)],
            "policy": self.policy.as_dict() if self.policy else None,
        }


@dataclass(frozen=True)
class Generation:
    """The text and how long it took. Prefill ends with the first new token; decode makes the others."""

    text: str
    prefill: Phase
    decode: Phase


class _Clock(TextStreamer):  # type: ignore[misc]
    """Hands on text as it comes and closes the prefill phase when the first token is there."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None], on_first: Callable[[], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._on_text, self._on_first = on_text, on_first
        self.pieces: list[str] = []
        self.new_tokens = 0
        self._seen_prompt = False

    def put(self, value: torch.Tensor) -> None:
        """Called with the prompt [1, T] first, then with each new token [1]."""
        if self._seen_prompt:
            self.new_tokens += value.numel()
            if self.new_tokens == 1:
                self._on_first()
        self._seen_prompt = True
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """A piece of text that later tokens cannot change."""
        self.pieces.append(text)
        self._on_text(text)


class _FiniteLogits(LogitsProcessor):  # type: ignore[misc]
    """Stops at the first NaN: sampling from it would print noise or crash far from the cause."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """[1, T], [1, vocabulary] -> the scores unchanged."""
        # The maximum hands on NaN; -inf is how other processors forbid a token, unless nothing is left.
        if not torch.isfinite(scores.amax(-1)).all():
            raise FailureError(
                expected="finite logits",
                got="NaN or infinity from the model",
                hint="`trimoe inspect` on the checkpoint, or --dtype float32",
            )
        return scores


def generate(
    model: Any,
    tokenizer: Any,
    prompt: str,
    sampling: Sampling,
    roofline: Roofline | None = None,
    on_text: Callable[[str], None] = lambda text: None,
    attached: Attached | None = None,
) -> Generation:
    """Continues `prompt`; `on_text` gets the prompt once it is accepted, then each piece that is final.

    model: from `trimoe.load`; attached: a policy that decides.
    Raises InputError for a prompt that the model cannot take and FailureError when the model yields NaN.
    """
    inputs = _tokenize(model, tokenizer, prompt)
    prompt_tokens = _check_prompt(inputs["input_ids"], model, sampling)
    on_text(prompt)
    layers = list(model.trimoe_store.layers.values())

    def reset() -> None:
        for layer in layers:
            layer.reset_stats()
        if attached is not None:
            attached.driver.reset()

    reset()
    reports: list[tuple[list[DomainReport], list[DomainUse], PolicyUse | None]] = []
    times_ns = [time.perf_counter_ns()]

    def close_phase() -> None:
        times_ns.append(time.perf_counter_ns())
        if attached is not None:
            attached.driver.finish()
            uses = [use for _, use in sorted(attached.telemetry.uses.items())]
            reports.append(([], uses, attached.driver.use))
            reset()
            return
        reports.append(([absent("GPU"), cpu_report(layers, roofline), absent("NDP")], [], None))
        reset()

    torch.manual_seed(sampling.seed)
    clock = _Clock(tokenizer, on_text, close_phase)
    config = _generation_config(model, tokenizer, sampling)
    with torch.inference_mode(), _only(model, config):
        model.generate(
            **inputs,
            generation_config=config,
            logits_processor=LogitsProcessorList([_FiniteLogits()]),
            streamer=clock,
        )
    close_phase()
    return Generation(
        "".join(clock.pieces),
        Phase(prompt_tokens, times_ns[1] - times_ns[0], *reports[0]),
        Phase(max(clock.new_tokens - 1, 0), times_ns[-1] - times_ns[1], *reports[-1]),
    )


def _generation_config(model: Any, tokenizer: Any, sampling: Sampling) -> GenerationConfig:
    """Our sampling and the model's special tokens; beams, penalties and the like stay out."""
    choice: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > _COLDEST:
        choice = {"do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k}
    own, pad = model.generation_config, tokenizer.pad_token_id
    return GenerationConfig(
        **choice,
        max_new_tokens=sampling.max_new_tokens,
        bos_token_id=own.bos_token_id,
        eos_token_id=tokenizer.eos_token_id if own.eos_token_id is None else own.eos_token_id,
        # One sequence needs no padding, but transformers warns without a token for it.
        pad_token_id=tokenizer.eos_token_id if pad is None else pad,
    )


@contextmanager
def _only(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Sets the model's own config aside: transformers would take from it whatever `config` leaves open."""
    own, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = own


def _tokenize(model: Any, tokenizer: Any, prompt: str) -> dict[str, torch.Tensor]:
    """What the model takes of what the tokenizer returns, such as token_type_ids, which few models have."""
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            expected="a prompt in UTF-8", got=ascii(prompt)[:80], hint="a terminal or a file in UTF-8"
        ) from error
    taken = signature(model.forward).parameters
    return {name: value for name, value in tokenizer(prompt, return_tensors="pt").items() if name in taken}


def _check_prompt(ids: torch.Tensor, model: Any, sampling: Sampling) -> int:
    """Tokens of the prompt [1, T]."""
    tokens, limit = ids.shape[1], getattr(model.config, "max_position_embeddings", None)
    if tokens == 0:
        raise InputError(
            expected="a prompt of at least one token", got="an empty prompt", hint="--prompt 'Once upon'"
        )
    if limit is not None and tokens + sampling.max_new_tokens > limit:
        raise InputError(
            expected=f"prompt and new tokens within the model's {limit} positions",
            got=f"{tokens} + {sampling.max_new_tokens}",
            hint=f"--max-new-tokens {max(1, limit - tokens)} or a shorter prompt",
        )
    rows = model.get_input_embeddings().num_embeddings
    if int(ids.max()) >= rows:
        raise InputError(
            expected=f"token ids below {rows}, the rows of the model's embedding",
            got=f"{int(ids.max())} from the tokenizer",
            hint="the tokenizer files that came with the weights",
        )
    return tokens
