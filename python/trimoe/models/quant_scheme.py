"""What config.json says about quantised weights, and which of the many schemes are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimoe.errors import InputError
from trimoe.models.config_keys import text_config

__all__ = [
    "FP8_BLOCK",
    "MXFP4_BLOCK",
    "UnsupportedDtypeError",
    "check_fp8",
    "check_mxfp4",
    "quant_config",
    "quant_method",
    "unsupported",
]

FP8_BLOCK = (128, 128)  # outputs x inputs that share a scale; what the packed fp8 format keeps bit for bit
MXFP4_BLOCK = (1, 32)
_READ = "F32, BF16, F16, F8_E4M3 in blocks of 128 x 128 (quant_method fp8), MXFP4 (quant_method mxfp4)"


class UnsupportedDtypeError(InputError):
    """The weights are stored in a format that trimoe does not read."""


def unsupported(got: str) -> UnsupportedDtypeError:
    """The error for a format that is not read: what is, and what came."""
    return UnsupportedDtypeError(
        expected=f"weights in a format that trimoe reads ({_READ})",
        got=got,
        hint="a checkpoint of the model in BF16, or in one of these formats",
    )


def quant_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`quantization_config` as the files were quantised; empty where config.json has none.

    A folder that `trimoe pack` wrote keeps that of the original under "source".
    """
    found = config.get("quantization_config") or text_config(config).get("quantization_config")
    if not isinstance(found, dict):
        return {}
    if found.get("quant_method") != "trimoe":
        return found
    source = found.get("source")
    return source if isinstance(source, dict) else {}


def quant_method(config: Mapping[str, Any]) -> str | None:
    """The scheme's name, such as "fp8", "mxfp4", "awq"; None where nothing is quantised."""
    found = quant_config(config)
    return str(found.get("quant_method")) if found else None


def check_fp8(config: Mapping[str, Any], name: str) -> None:
    """Checks that the fp8 tensor `name` belongs to the one scheme of fp8 that is read.

    Raises:
        UnsupportedDtypeError: another scheme, other blocks, or activations with fixed scales.
    """
    found = quant_config(config)
    if quant_method(config) != "fp8":
        raise unsupported(f"{name} of dtype F8_E4M3 with quant_method {quant_method(config)} in config.json")
    block = found.get("weight_block_size")
    if block != list(FP8_BLOCK):
        raise unsupported(f"{name} of dtype F8_E4M3 with weight_block_size {block} in config.json")
    scheme = found.get("activation_scheme", "dynamic")
    if scheme != "dynamic":
        raise unsupported(f"{name} of dtype F8_E4M3 with activation_scheme {scheme!r} in config.json")


def check_mxfp4(config: Mapping[str, Any], name: str) -> None:
    """Checks that the blocks `name` belong to a checkpoint in mxfp4; UnsupportedDtypeError where not."""
    if quant_method(config) != "mxfp4":
        raise unsupported(f"{name} of dtype U8 with quant_method {quant_method(config)} in config.json")
