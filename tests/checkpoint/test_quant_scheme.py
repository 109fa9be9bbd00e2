"""Which scheme a checkpoint is quantised in, and that one which is not read is named as people do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trimoe.checkpoint.quant_scheme import (
    UnsupportedDtypeError,
    check_fp8,
    check_mxfp4,
    check_scheme,
    quant_config,
    quant_method,
)

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, None),
        ({"quantization_config": FP8}, "fp8"),
        ({"text_config": {"hidden_size": 1, "quantization_config": FP8}}, "fp8"),
        ({"quantization_config": {"quant_method": "trimoe", "source": FP8}}, "fp8"),
        ({"quantization_config": {"quant_method": "trimoe"}}, None),
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"bits": 3}}, "unknown"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "mlx"),
        ({"quantization": {"group_size": 64}}, None),
    ],
)
def test_the_scheme_is_found_wherever_the_config_names_it(config: dict[str, Any], method: str | None) -> None:
    assert quant_method(config) == method
    assert bool(quant_config(config)) == (method is not None)


@pytest.mark.parametrize("scheme", [{}, FP8, {"quant_method": "mxfp4"}])
def test_schemes_that_are_read_pass(scheme: dict[str, Any], tmp_path: Path) -> None:
    check_scheme({"quantization_config": scheme}, tmp_path)


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ({"quant_method": "awq"}, "a checkpoint in AWQ"),
        (
            {"quant_method": "compressed-tensors", "format": "pack-quantized"},
            "llm-compressor. pack-quantized",
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, r"ModelOpt \(NVFP4 or FP8\) NVFP4"),
        ({"quant_method": "of tomorrow"}, "a checkpoint in of tomorrow"),
    ],
)
def test_other_schemes_are_named_as_people_do(scheme: dict[str, Any], name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedDtypeError, match=name):
        check_scheme({"quantization_config": scheme}, tmp_path)


@pytest.mark.parametrize(("file", "name"), [("quantize_config.json", "GPTQ"), ("quant_config.json", "AWQ")])
def test_a_file_that_lies_beside_tells_the_scheme(file: str, name: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("{}")
    with pytest.raises(UnsupportedDtypeError, match=rf"a checkpoint in {name} .*told by {file}"):
        check_scheme({}, tmp_path)


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"weight_block_size": [64, 128]}, r"weight_block_size \[64, 128\]"),
        ({"weight_block_size": None}, "weight_block_size None"),
        ({"activation_scheme": "static"}, "activation_scheme 'static'"),
        ({"quant_method": "fbgemm_fp8"}, "quant_method fbgemm_fp8"),
    ],
)
def test_one_scheme_of_fp8_is_read(change: dict[str, Any], got: str) -> None:
    check_fp8({"quantization_config": {**FP8, "activation_scheme": "dynamic"}}, "w")
    with pytest.raises(UnsupportedDtypeError, match=f"w of dtype F8_E4M3 with {got}"):
        check_fp8({"quantization_config": {**FP8, **change}}, "w")


def test_blocks_of_bytes_belong_to_mxfp4() -> None:
    check_mxfp4({"quantization_config": {"quant_method": "mxfp4"}}, "w")
    with pytest.raises(UnsupportedDtypeError, match="w of dtype U8 with quant_method None"):
        check_mxfp4({}, "w")
