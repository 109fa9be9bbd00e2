"""How the experts of transformers' models are computed, as a layer spec."""

from __future__ import annotations

from inspect import isfunction
from typing import Any

from trimoe.checkpoint.compute_spec import ACTIVATIONS, ExpertMath
from trimoe.errors import InputError

__all__ = ["expert_math"]

# Experts classes that override `_apply_gate` with gpt-oss's clamped SwiGLU; attributes of alpha and limit.
_CLAMPED_SWIGLU = {
    "GptOssExperts": ("alpha", "limit"),
    "OpenAIPrivacyFilterExperts": ("alpha", "limit"),
    "MiniMaxM3VLExperts": ("swiglu_alpha", "swiglu_limit"),
}


def expert_math(module: Any) -> ExpertMath:
    """Reads an experts module of transformers (its class and flags).

    Raises InputError for what the core does not compute: it never guesses and never falls back.
    """
    from transformers.integrations.moe import _default_apply_gate

    kind = type(module)
    if getattr(module, "has_post_expert_norm", False):  # transformers before 5.20 has no such experts
        raise _unsupported(kind, "a norm after each expert")
    if kind.__name__ in _CLAMPED_SWIGLU:
        alpha, limit = (float(getattr(module, name)) for name in _CLAMPED_SWIGLU[kind.__name__])
        return ExpertMath("swiglu_oai", True, module.has_bias, alpha, limit)
    if module.has_gate and getattr(kind, "_apply_gate", None) is not _default_apply_gate:
        raise _unsupported(kind, "its own way to apply the gate")
    function = module.act_fn
    name = _native_names().get(function if isfunction(function) else type(function))
    if name is None:
        raise _unsupported(kind, f"the activation {getattr(function, '__name__', type(function).__name__)}")
    return ExpertMath(name, module.has_gate, module.has_bias)


def _native_names() -> dict[Any, str]:
    """transformers' class of an activation, or torch's function, to ours.

    A class computes one function, however it is asked to.
    """
    from torch.nn import functional
    from transformers.activations import ACT2FN

    classes = {type(ACT2FN[name]): native for name, native in ACTIVATIONS.items()}
    return {functional.silu: "silu", **classes}


def _unsupported(kind: type, what: str) -> InputError:
    supported = ", ".join(sorted({*ACTIVATIONS, "gpt-oss's clamped SwiGLU"}))
    return InputError(
        expected=f"experts that trimoe computes ({supported})",
        got=f"{kind.__name__} with {what}",
        hint="experts_implementation='grouped_mm' for this model",
    )
