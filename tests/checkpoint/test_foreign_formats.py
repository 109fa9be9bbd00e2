"""A path in any other format gets one line that names the format and says what to do, in every command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trimoe
from support.command_line import run_here
from support.shipped_model import copied_model, edit_config
from trimoe.errors import InputError

pytestmark = pytest.mark.slow

Change = Callable[[Path], None]
FILES = {
    "model-Q4_K_M.gguf": ("GGUF", "safetensors checkpoint, in BF16"),
    "pytorch_model.bin": ("pickled PyTorch weights", "save_pretrained(NEW)"),
    "pytorch_model.bin.index.json": ("pickled PyTorch weights", "save_pretrained(NEW)"),
    "weights.pt": ("pickled PyTorch weights", "save_pretrained(NEW)"),
    "consolidated.00.pth": ("makers' own format", "transformers' format"),
    "consolidated.safetensors": ("makers' own format", "transformers' format"),
    "__0_0.distcp": ("distributed checkpoint", "save_pretrained(NEW)"),
    "tf_model.h5": ("TensorFlow", "save_pretrained(NEW)"),
    "flax_model.msgpack": ("Flax", "save_pretrained(NEW)"),
    "model.onnx": ("ONNX", "safetensors checkpoint, in BF16"),
    "openvino_model.xml": ("OpenVINO", "safetensors checkpoint, in BF16"),
    "rank0.engine": ("TensorRT-LLM", "safetensors checkpoint, in BF16"),
    "mixtral.nemo": ("NeMo", "safetensors checkpoint, in BF16"),
    "adapter_config.json": ("PEFT adapter", "merging it"),
}


def config(**quantization: Any) -> Change:
    return lambda model: edit_config(model, quantization_config=quantization)


def beside(name: str) -> Change:
    return lambda model: (model / name).write_text("{}") and None


SCHEMES: dict[str, Change] = {
    "AWQ": config(quant_method="awq", bits=4),
    "AWQ ": beside("quant_config.json"),
    "GPTQ": config(quant_method="gptq", bits=4),
    "GPTQ ": beside("quantize_config.json"),
    "bitsandbytes": config(quant_method="bitsandbytes", load_in_4bit=True),
    "bitsandbytes ": config(load_in_8bit=True),
    "compressed-tensors (llm-compressor) nvfp4-pack": config(
        quant_method="compressed-tensors", format="nvfp4-pack-quantized"
    ),
    "EXL2": config(quant_method="exl2", bits=4.5),
    "ModelOpt (NVFP4 or FP8) NVFP4": config(quant_method="modelopt", quant_algo="NVFP4"),
    "ModelOpt (NVFP4 or FP8)": beside("hf_quant_config.json"),
    "MLX": lambda model: edit_config(model, quantization={"group_size": 64, "bits": 4}),
    "quip-of-tomorrow": config(quant_method="quip-of-tomorrow"),
}


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Path]:
    with copied_model(tmp_path) as folder:
        yield folder


def check_every_command(path: Path, capfd: pytest.CaptureFixture[str], *fragments: str) -> None:
    for words in (["inspect"], ["generate", "--no-measure"], ["pack"], ["bench", "error"]):
        run_here([*words, str(path)], capfd).assert_one_line(*fragments)
    with pytest.raises(InputError) as error:
        trimoe.load(path)
    for fragment in fragments:
        assert fragment in str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_format_is_named(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).touch()
    check_every_command(tmp_path / name, capfd, *FILES[name])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("has_config", [True, False])
def test_a_folder_of_another_format_is_named(
    name: str, has_config: bool, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (model / "model.safetensors").unlink()
    (model / name).touch()
    if not has_config:
        (model / "config.json").unlink()
    check_every_command(model, capfd, *FILES[name])


@pytest.mark.parametrize("name", SCHEMES)
def test_a_quantisation_that_is_not_read_is_named(
    name: str, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    SCHEMES[name](model)
    for words in (["generate", "--no-measure"], ["pack"]):
        run_here([*words, str(model)], capfd).assert_one_line(f"a checkpoint in {name.strip()}", "in BF16")
    with pytest.raises(InputError) as error:
        trimoe.load(model)
    assert f"a checkpoint in {name.strip()}" in str(error.value)
    outcome = run_here(["inspect", str(model), "--json"], capfd)  # shows it all the same
    assert outcome.code == 0 and name.strip() in json.loads(outcome.out)["unsupported"]


def test_safetensors_of_other_names(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """transformers finds none; what only looks at headers does."""
    (model / "model.safetensors").rename(model / "weights.safetensors")
    assert run_here(["inspect", str(model), "--json"], capfd).code == 0
    with pytest.raises(InputError, match=r"weights\.safetensors; try renaming"):
        trimoe.load(model)
