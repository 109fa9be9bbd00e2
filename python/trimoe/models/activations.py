"""How the experts of transformers' models are computed, as a layer spec."""

from __future__ import annotations

from typing import Any

from trimoe.errors import InputError
from trimoe.models.expert_math import ExpertMath

__all__ = ["expert_math"]

# transformers' activation names (ACT2FN) -> the core's
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu2": "relu2",
}
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
    name = _activation_name(module)
    if name not in _ACTIVATIONS:
        raise _unsupported(kind, f"the activation {name!r}")
    return ExpertMath(_ACTIVATIONS[name], module.has_gate, module.has_bias)


def _activation_name(module: Any) -> str:
    """The ACT2FN name that made the module's activation, read off the function itself."""
    from transformers.activations import ACT2FN

    for name in _ACTIVATIONS:
        candidate = ACT2FN[name]
        same_type = type(candidate) is type(module.act_fn)
        if same_type and getattr(candidate, "act", None) == getattr(module.act_fn, "act", None):
            return name
    return type(module.act_fn).__name__


def _unsupported(kind: type, what: str) -> InputError:
    supported = ", ".join(sorted({*_ACTIVATIONS, "gpt-oss's clamped SwiGLU"}))
    return InputError(
        expected=f"experts that trimoe computes ({supported})",
        got=f"{kind.__name__} with {what}",
        hint="experts_implementation='grouped_mm' for this model",
    )
