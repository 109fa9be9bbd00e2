"""Every argument that may change which tensors or which config a model gets: right logits, or one error.

Right means those of transformers without trimoe, given the same argument. The folder holds five sets of
weights, so that an expert from another set than the rest shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import trimoe
from support.tiny_models import CONFIGS, make_model, token_ids
from trimoe.errors import InputError

SCALES = {"model": 1.0, "v2": 1.3, "sharded": 0.7, "sub": 0.8, "bin": 0.9}
SETS: list[dict[str, Any]] = [{}, {"variant": "v2"}, {"variant": "sharded"}, {"subfolder": "sub"}]


def scaled_model(factor: float) -> Any:
    model = make_model("qwen3_moe", torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(factor)
    return model


def write_folder(folder: Path) -> Path:
    """Weights in the default place, two variants, a subfolder, and a pickle."""
    scaled_model(SCALES["model"]).save_pretrained(folder)
    scaled_model(SCALES["v2"]).save_pretrained(folder, variant="v2")
    scaled_model(SCALES["sharded"]).save_pretrained(folder, variant="sharded", max_shard_size="200KB")
    scaled_model(SCALES["sub"]).save_pretrained(folder / "sub")
    torch.save(scaled_model(SCALES["bin"]).state_dict(), folder / "pytorch_model.bin")
    assert (folder / "model.safetensors.index.sharded.json").exists()
    other = transformers.AutoConfig.from_pretrained(folder)
    other.update({"num_experts_per_tok": 3, "num_hidden_layers": 2})
    other.save_pretrained(folder / "other")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("arguments"))


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(token_ids()).logits
    return result


def plain(folder: Path, arguments: dict[str, Any]) -> Any:
    """As transformers alone loads it."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **{"dtype": "auto", **arguments})


def with_config(folder: Path, arguments: dict[str, Any]) -> Any:
    """Through transformers, with our quantization config."""
    config = trimoe.TrimoeConfig()
    return plain(folder, {**arguments, "quantization_config": config})


def with_load(folder: Path, arguments: dict[str, Any]) -> Any:
    return trimoe.load(folder, **arguments)


WAYS = [with_load, with_config]
Arguments = Callable[[Path], dict[str, Any]]

RIGHT: dict[str, Arguments] = {
    "nothing": lambda _: {},
    "variant": lambda _: {"variant": "v2"},
    "sharded variant": lambda _: {"variant": "sharded"},
    "use_safetensors": lambda _: {"use_safetensors": True},
    "subfolder": lambda _: {"subfolder": "sub"},
    "revision": lambda _: {"revision": "v3"},
    "config, an object": lambda folder: {
        "config": transformers.AutoConfig.from_pretrained(folder / "other", num_hidden_layers=1)
    },
    "weights_only": lambda _: {"weights_only": True},
    "dtype": lambda _: {"dtype": torch.float32},
    "offload_folder": lambda folder: {"offload_folder": str(folder / "off"), "max_memory": {"cpu": "1GB"}},
    "fewer experts per token": lambda _: {"num_experts_per_tok": 1},
    "fewer layers": lambda _: {"num_hidden_layers": 2},
    "another activation": lambda _: {"hidden_act": "gelu"},
    "another attention": lambda _: {"attn_implementation": "eager"},
    "another experts": lambda _: {"experts_implementation": "eager"},
    "disable_mmap": lambda _: {"disable_mmap": True},
    "generation_config": lambda _: {"generation_config": transformers.GenerationConfig()},
    "cache_dir": lambda folder: {"cache_dir": str(folder / "hub"), "force_download": True, "token": "x"},
    "trust_remote_code": lambda _: {"trust_remote_code": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RIGHT)
def test_the_logits_are_those_of_transformers(folder: Path, way: Callable[..., Any], name: str) -> None:
    expected = logits(plain(folder, RIGHT[name](folder)))
    torch.testing.assert_close(logits(way(folder, RIGHT[name](folder))), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_sets_of_weights_differ(folder: Path) -> None:
    """Else the test above could not fail."""
    of_sets = [*SETS, {"use_safetensors": False}]
    results = [logits(plain(folder, arguments)) for arguments in of_sets]
    for index, one in enumerate(results):
        assert all((one - other).abs().max() > 0.01 for other in results[:index])


def distributed_config() -> Any:
    """What transformers makes of `tp_plan`, `tp_size` and `distributed_config`."""
    config = CONFIGS["qwen3_moe"]()
    config.distributed_config = transformers.distributed.DistributedConfig(tp_size=2)
    return config


REFUSED_BY_BOTH: dict[str, tuple[dict[str, Any], str]] = {
    "a pickle": ({"use_safetensors": False}, "safetensors"),
    "unpickling": ({"weights_only": False}, "weights_only"),
    "names": ({"key_mapping": {r"layers\.1\.": "layers.7.", r"layers\.0\.": "layers.1."}}, "key_mapping"),
    "too many experts per token": ({"num_experts_per_tok": 99}, "1 to 8 .*got 99"),
    "no expert per token": ({"num_experts_per_tok": 0}, "1 to 8 .*got 0"),
    "another number of experts": ({"num_experts": 4}, "4 experts"),
    "several processes": ({"config": distributed_config()}, "one process"),
}
REFUSED_BY_LOAD: dict[str, tuple[dict[str, Any], str]] = {
    "gguf_file": ({"gguf_file": "x.gguf"}, "gguf_file"),
    "state_dict": ({"state_dict": {}}, "state_dict"),
    "tp_plan": ({"tp_plan": "auto"}, "tp_plan"),
    "tp_size": ({"tp_size": 2}, "tp_size"),
    "distributed_config": ({"distributed_config": object()}, "distributed_config"),
    "device_mesh": ({"device_mesh": object()}, "device_mesh"),
    "torch_dtype": ({"torch_dtype": torch.float16}, "torch_dtype.*dtype="),
    "adapter_kwargs": ({"adapter_kwargs": {"revision": "x"}}, "adapter_kwargs"),
    "adapter_name": ({"adapter_name": "x"}, "adapter_name"),
    "fusion_config": ({"fusion_config": {"patch_embeddings": True}}, "fusion_config"),
    "use_kernels": ({"use_kernels": True}, "use_kernels"),
    "device_map": ({"device_map": "auto"}, "device_map"),
    "a device": ({"device_map": 0}, "device_map"),
    "attention that is not there": ({"attn_implementation": "abacus"}, "try leaving out attn_implementation"),
    "a config that is none": ({"config": "other"}, "a config of transformers"),
    "an argument that there is not": ({"foo_bar": 3}, "foo_bar"),
    "an override beside a config": (
        {"config": transformers.Qwen3MoeConfig(), "num_experts_per_tok": 1}, "num_experts_per_tok",
    ),
    "a quantization": ({"quantization_config": None}, "quantization_config"),
    "a variant that there is not": ({"variant": "v9"}, "model.v9.safetensors"),
    "a subfolder that there is not": ({"subfolder": "none"}, "none"),
    "a subfolder that is no name": ({"subfolder": 7}, "subfolder"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REFUSED_BY_BOTH)
def test_refused(folder: Path, way: Callable[..., Any], name: str) -> None:
    arguments, message = REFUSED_BY_BOTH[name]
    with pytest.raises(InputError, match=message):
        way(folder, arguments)


@pytest.mark.parametrize("name", REFUSED_BY_LOAD)
def test_refused_by_load(folder: Path, name: str) -> None:
    arguments, message = REFUSED_BY_LOAD[name]
    with pytest.raises(InputError, match=message):
        trimoe.load(folder, **arguments)


def test_the_cpu_as_a_device_map_is_what_there_is(folder: Path) -> None:
    """transformers would want accelerate for it."""
    expected = logits(trimoe.load(folder))
    for device_map in ("cpu", {"": "cpu"}, torch.device("cpu"), None):
        assert torch.equal(logits(trimoe.load(folder, device_map=device_map)), expected)


def test_the_cache_of_one_set_of_files_is_not_that_of_another(folder: Path, private_cache: Path) -> None:
    """Neither mapped for it nor removed for it."""
    for from_cache in (False, True):
        for arguments in SETS:
            assert trimoe.load(folder, **arguments).trimoe_store.from_cache == from_cache, arguments
    assert len(list(private_cache.glob("*.experts"))) == len(SETS)


@pytest.mark.slow
def test_the_files_that_config_json_names(tmp_path: Path) -> None:
    """`transformers_weights`: a file or an index of any name."""
    write_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("model.v2.safetensors", "model.safetensors.index.sharded.json"):
        renamed = name if name.endswith(".safetensors") else "sharded.safetensors.index.json"
        (tmp_path / name).rename(tmp_path / renamed)
        (tmp_path / "config.json").write_text(json.dumps({**config, "transformers_weights": renamed}))
        expected = logits(plain(tmp_path, {}))
        for way in WAYS:
            torch.testing.assert_close(logits(way(tmp_path, {})), expected, atol=1e-5, rtol=0)
    (tmp_path / "config.json").write_text(json.dumps({**config, "transformers_weights": "../x.safetensors"}))
    with pytest.raises(InputError, match="transformers_weights"):
        trimoe.load(tmp_path)


def test_an_adapter_in_the_folder_is_told(tmp_path: Path) -> None:
    """transformers would add it to the model where peft is installed, and not where it is not."""
    scaled_model(1.0).save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    for way in WAYS:
        with pytest.raises(InputError, match=r"adapter_config\.json.*merge"):
            way(tmp_path, {})


def test_a_state_dict_instead_of_files_needs_a_folder_of_experts(folder: Path) -> None:
    """Nothing to take experts from, unless a folder is named for them."""
    whole = scaled_model(1.0)
    arguments = {"config": whole.config, "state_dict": whole.state_dict()}
    load = transformers.Qwen3MoeForCausalLM.from_pretrained
    with pytest.raises(InputError, match=r"TrimoeConfig\(checkpoint=FOLDER\)"):
        load(None, **arguments, quantization_config=trimoe.TrimoeConfig())
    model = load(None, **arguments, quantization_config=trimoe.TrimoeConfig(checkpoint=str(folder)))
    torch.testing.assert_close(logits(model), logits(plain(folder, {})), atol=1e-5, rtol=0)


def test_tensors_of_another_layer_are_not_taken_for_this_one(folder: Path) -> None:
    """A mapping that transformers can load: the experts of layers 0 and 1 change places."""
    swap = {r"layers\.0\.": "layers.x.", r"layers\.1\.": "layers.0.", r"layers\.x\.": "layers.1."}
    assert (logits(plain(folder, {"key_mapping": swap})) - logits(plain(folder, {}))).abs().max() > 0.01
    for way in WAYS:
        with pytest.raises(InputError, match="key_mapping"):
            way(folder, {"key_mapping": swap})
