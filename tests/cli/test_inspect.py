"""`trimoe inspect`: figures that add up, for models that transformers saved, without reading weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DeepseekV3Config, GptOssConfig, Qwen3MoeConfig

from support.quantised import save_fp8, save_mxfp4
from support.tiny_models import WIDE, make_model
from trimoe.checkpoint.compute_spec import Packing
from trimoe.checkpoint.source_file import SourceFile
from trimoe.cli.inspect import inspect
from trimoe.cli.main import main
from trimoe.errors import InputError
from trimoe.hf.load import read_expert_math
from trimoe.store.pack import pack_to_folder

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_experts_per_tok": 2,
}
MLA = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}


def save(folder: Path, config: Any, dtype: torch.dtype = torch.bfloat16) -> Path:
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: Any) -> Path:
    config = Qwen3MoeConfig(**SMALL, head_dim=8, num_experts=5, moe_intermediate_size=24)
    return save(tmp_path_factory.mktemp("qwen"), config)


def report(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()  # what saving the model printed
    inspect(path, json_output=True)
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    value: dict[str, Any] = json.loads(out)
    return value


def test_figures_are_those_of_the_tensors(qwen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = report(qwen, capsys)
    tensors = load_file(qwen / "model.safetensors")
    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    one_expert = 3 * 24 * 32 * 2
    experts = sum(size for name, size in sizes.items() if ".experts." in name)
    attention = sum(size for name, size in sizes.items() if ".self_attn." in name)
    want = {
        "model_type": "qwen3_moe",
        "layers": 3,
        "moe_layers": [0, 1, 2],
        "hidden": 32,
        "inter": 24,
        "experts": 5,
        "topk": 2,
        "shared_experts": 0,
        "activation": "silu",
        "gated": True,
        "has_bias": False,
        "dtype": "BF16",
        "tensors": len(tensors),
        "shards": 1,
        "total_bytes": sum(sizes.values()),
        "dtype_bytes": {"BF16": sum(sizes.values())},
        "expert_bytes": one_expert,
        "packed_format": "bf16",
        "packed_expert_bytes": 2 * (64 * 32 + 32 * 32),
        "unsupported": None,
    }
    assert {key: got[key] for key in want} == want
    parts = got["part_bytes"]
    assert parts["experts"] == experts == 15 * one_expert
    assert parts["attention"] == attention
    assert parts["embeddings"] == 2 * 64 * 32 * 2
    assert sum(parts.values()) == got["total_bytes"]
    torch_bytes = got["total_bytes"] - experts
    cpu_bytes = 15 * got["packed_expert_bytes"]
    assert got["domain_bytes"] == {"cpu": cpu_bytes, "torch": torch_bytes, "gpu": None, "ndp": None}
    assert got["expert_share_pct"] == pytest.approx(100 * experts / got["total_bytes"])
    # One row of the input embedding, and two experts in each of three layers.
    assert got["active_bytes_per_token"] == torch_bytes - 63 * 32 * 2 + 6 * one_expert


def test_tied_embeddings_are_read_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"num_experts": 5, "moe_intermediate_size": 24, "tie_word_embeddings": True}
    got = report(save(tmp_path, Qwen3MoeConfig(**SMALL, head_dim=8, **more)), capsys)
    assert got["part_bytes"]["embeddings"] == 64 * 32 * 2
    assert got["active_bytes_per_token"] == got["total_bytes"] - 9 * got["expert_bytes"]


def test_shared_experts_and_dense_and_prediction_layers_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    routed = {"n_routed_experts": 4, "moe_intermediate_size": 24, "first_k_dense_replace": 1, "n_group": 1}
    save(tmp_path, DeepseekV3Config(**SMALL, **MLA, **routed, topk_group=1))
    before = report(tmp_path, capsys)
    assert before["moe_layers"] == [1, 2]
    assert before["shared_experts"] == 1
    assert before["part_bytes"]["shared_experts"] == 2 * 3 * 24 * 32 * 2
    # The layer behind the last one predicts ahead: it is on disk, but neither loaded nor read.
    tensors = load_file(tmp_path / "model.safetensors")
    prediction = {
        name.replace("layers.2.", "layers.3."): t.clone()
        for name, t in tensors.items()
        if "layers.2." in name
    }
    save_file({**tensors, **prediction}, tmp_path / "model.safetensors")
    after = report(tmp_path, capsys)
    assert after["part_bytes"]["unused"] == sum(tensor.nbytes for tensor in prediction.values())
    for key in ("moe_layers", "domain_bytes", "active_bytes_per_token", "expert_bytes"):
        assert after[key] == before[key]


def test_biases_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = report(save(tmp_path, GptOssConfig(**SMALL, head_dim=8, num_local_experts=3)), capsys)
    assert (got["activation"], got["has_bias"]) == ("swiglu_oai", True)
    assert got["expert_bytes"] == 2 * (3 * 40 * 32 + 80 + 32)
    assert got["packed_expert_bytes"] == 2 * (96 * 32 + 32 * 64) + 4 * (96 + 32)


@pytest.mark.parametrize(("dtype", "fmt"), [(torch.float32, "fp32"), (torch.float16, "fp32")])
def test_packed_format(tmp_path: Path, dtype: torch.dtype, fmt: str, capsys: Any) -> None:
    config = Qwen3MoeConfig(**SMALL, head_dim=8, num_experts=5, moe_intermediate_size=24)
    assert report(save(tmp_path, config, dtype), capsys)["packed_format"] == fmt


def test_a_format_that_cannot_be_packed_is_still_shown(
    qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(qwen / "model.safetensors")
    for name in [name for name in tensors if ".experts." in name]:
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((qwen / "config.json").read_bytes())
    got = report(tmp_path, capsys)
    assert "F8_E4M3" in got["unsupported"]
    assert (got["packed_format"], got["packed_expert_bytes"], got["domain_bytes"]["cpu"]) == (
        None,
        None,
        None,
    )
    assert got["expert_bytes"] == 3 * 24 * 32
    assert got["dtype_bytes"]["F8_E4M3"] == 15 * 3 * 24 * 32
    inspect(tmp_path)
    assert "cannot be packed yet" in capsys.readouterr().out


@pytest.mark.parametrize("architecture", ["deepseek_v3", "qwen3_moe", "gpt_oss"])
def test_quantised_checkpoints_are_told_by_their_format(
    architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_quantised = save_mxfp4 if architecture == "gpt_oss" else save_fp8
    save_quantised(make_model(architecture, torch.bfloat16, **WIDE[architecture]), tmp_path)
    fmt, dtype = ("mxfp4", "MXFP4") if architecture == "gpt_oss" else ("fp8", "F8_E4M3")
    got = report(tmp_path, capsys)
    assert (got["quant_method"], got["dtype"], got["packed_format"]) == (fmt, dtype, fmt)
    assert got["unsupported"] is None
    tensors = load_file(tmp_path / "model.safetensors")
    assert got["total_bytes"] == sum(tensor.nbytes for tensor in tensors.values())
    experts = {
        name: t.nbytes for name, t in tensors.items() if ".experts." in name and "layers.3" not in name
    }
    assert got["part_bytes"]["experts"] == sum(experts.values())  # scales and biases too
    assert any("scale" in name for name in experts)
    inspect(tmp_path)
    out = capsys.readouterr().out
    assert f", {fmt}\n" in out and f"experts as {fmt}" in out


def test_a_folder_that_was_packed(qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = report(qwen, capsys)
    packed = pack_to_folder(qwen, read_expert_math(qwen), Packing("int4", 64), tmp_path / "out")
    got = report(tmp_path / "out", capsys)
    same = ("model_type", "layers", "moe_layers", "hidden", "inter", "experts", "topk", "activation", "gated")
    assert {key: got[key] for key in same} == {key: before[key] for key in same}
    assert (got["quant_method"], got["dtype"], got["packed_format"]) == ("trimoe", "int4 g64", "int4 g64")
    assert got["part_bytes"]["experts"] == got["domain_bytes"]["cpu"] == packed.packed_bytes
    assert got["domain_bytes"]["torch"] == before["domain_bytes"]["torch"]
    assert got["total_bytes"] == sum(got["part_bytes"].values()) == sum(got["dtype_bytes"].values())


def test_people_see_the_shape_and_the_sizes(qwen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(qwen)
    out, err = capsys.readouterr()
    assert err == ""
    for word in (
        "qwen3_moe",
        "5 per layer, top 2",
        "hidden 32, inner 24",
        "routed experts",
        "BF16",
        "absent",
    ):
        assert word in out
    assert "\x1b" not in out


def test_no_weight_is_read(
    qwen: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(SourceFile, "read_into", refuse)
    monkeypatch.setattr(SourceFile, "advise_willneed", refuse)
    assert report(qwen, capsys)["experts"] == 5


def test_dense_model_is_refused(qwen: Path, tmp_path: Path) -> None:
    tensors = load_file(qwen / "model.safetensors")
    dense = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    save_file(dense, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "num_hidden_layers": 3}')
    with pytest.raises(InputError, match="Mixture-of-Experts"):
        inspect(tmp_path)


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_bad_input_is_one_line(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tmp_path / "none"), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("trimoe: error: expected a checkpoint folder")
    assert err.count("\n") == 1


def test_the_command_prints_one_object_and_has_help(qwen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--json", str(qwen)]) == 0
    assert json.loads(capsys.readouterr().out)["experts"] == 5
    assert main(["inspect", "--help"]) == 0
    assert "trimoe inspect ~/models" in capsys.readouterr().out
