"""What config.json says about quantised weights, and which of the many schemes are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimoe.checkpoint.hf_config import text_config
from trimoe.errors import InputError

__all__ = [
    "FP8_BLOCK",
    "MXFP4_BLOCK",
    "UnsupportedDtypeError",
    "check_fp8",
    "check_mxfp4",
    "check_scheme",
    "quant_config",
    "quant_method",
    "unsupported",
]

FP8_BLOCK = (128, 128)  # outputs x inputs that share a scale; what the packed fp8 format keeps bit for bit
MXFP4_BLOCK = (1, 32)
_READ_METHODS = (None, "fp8", "mxfp4")
# What people call a scheme that is not read, by `quant_method`; some are told by a file that lies beside.
_NAMES: Mapping[str, str] = {
    "awq": "AWQ",
    "gptq": "GPTQ",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors (llm-compressor)",
    "exl2": "EXL2 (ExLlamaV2)",
    "exl3": "EXL3 (ExLlamaV3)",
    "modelopt": "ModelOpt (NVFP4 or FP8)",
    "mlx": "MLX",
    "auto-round": "AutoRound",
    "torchao": "torchao",
    "hqq": "HQQ",
    "quark": "Quark",
}
_MARKERS: Mapping[str, str] = {
    "hf_quant_config.json": "modelopt",
    "quant_config.json": "awq",
    "quantize_config.json": "gptq",
}
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
    if isinstance(found, dict) and found.get("quant_method") == "trimoe":
        found = found.get("source")
    if isinstance(found, dict):
        return found
    mlx = config.get("quantization")
    return {"quant_method": "mlx", **mlx} if isinstance(mlx, dict) and "bits" in mlx else {}


def quant_method(config: Mapping[str, Any]) -> str | None:
    """The scheme's name, such as "fp8", "mxfp4", "awq"; None where nothing is quantised."""
    found = quant_config(config)
    if not found:
        return None
    is_bitsandbytes = found.get("load_in_4bit") or found.get("load_in_8bit")
    return str(found.get("quant_method", "bitsandbytes" if is_bitsandbytes else "unknown"))


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


def check_scheme(config: Mapping[str, Any], folder: Path) -> None:
    """Checks that the checkpoint in `folder` is quantised not at all, or in a scheme that is read.

    Raises:
        UnsupportedDtypeError: naming the scheme as people do.
    """
    found, method = quant_config(config), quant_method(config)
    where = f"quant_method {method} in config.json"
    if method is None:
        marker = next((name for name in _MARKERS if (folder / name).exists()), None)
        method, where = (_MARKERS[marker], f"told by {marker}") if marker else (None, "")
    if method not in _READ_METHODS:
        detail = found.get("quant_algo") or found.get("format") or ""
        raise unsupported(f"a checkpoint in {_NAMES.get(method, method)} {detail} ({where})")
