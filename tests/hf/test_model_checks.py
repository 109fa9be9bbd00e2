"""What does not fit between a model, its config and its weights is one line that says what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trimoe.errors import InputError
from trimoe.hf.model_checks import (
    check_device_map,
    check_one_process,
    check_routers,
    check_shape,
    check_shapes,
    check_topk,
)
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec


@pytest.mark.parametrize("device_map", [None, "cpu", {"": "cpu"}, {"a": torch.device("cpu")}])
def test_a_model_on_the_cpu_passes(device_map: Any) -> None:
    check_device_map(device_map)


@pytest.mark.parametrize("device_map", ["auto", "cuda", {"a": "cpu", "b": 0}, torch.device("meta")])
def test_a_model_anywhere_else_is_refused(device_map: Any) -> None:
    with pytest.raises(InputError, match="a model on the CPU; got device_map="):
        check_device_map(device_map)


def test_plans_for_several_processes_are_refused() -> None:
    check_one_process(SimpleNamespace(distributed_config=None))
    with pytest.raises(InputError, match="a model in one process"):
        check_one_process(SimpleNamespace(distributed_config={"tp": 2}))


@pytest.mark.parametrize("topk", [0, 5])
def test_a_token_has_no_more_experts_than_there_are(topk: int) -> None:
    check_topk({"num_experts": 4, "num_experts_per_tok": 4})
    check_topk({"num_experts": 4})
    with pytest.raises(InputError, match=f"1 to 4 experts per token .*; got {topk}"):
        check_topk({"num_experts": 4, "num_experts_per_tok": topk})


@pytest.mark.parametrize("shape", [(2, 16, 32), (2, 32, 16)])
def test_stacks_in_either_order_are_of_the_layer_s_shape(shape: tuple[int, ...]) -> None:
    layer = ExpertLayer(LayerSpec(2, 32, 16))
    check_shape("a", SimpleNamespace(down_proj=torch.empty(shape)), layer)
    with pytest.raises(InputError, match=r"a.down_proj of shape \(3, 16, 32\)"):
        check_shape("a", SimpleNamespace(down_proj=torch.empty(3, 16, 32)), layer)


def test_a_tensor_of_another_shape_than_the_config_s_is_named() -> None:
    model = torch.nn.Linear(3, 2)
    shapes = {"weight": torch.Size((2, 3)), "bias": torch.Size((2,))}
    check_shapes(model, shapes)
    with pytest.raises(InputError, match=r"bias of shape \(4,\).*got 1 of another shape, \(2,\)"):
        check_shapes(model, {**shapes, "bias": torch.Size((4,))})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_router_that_is_not_finite_is_named(bad: float) -> None:
    model = torch.nn.ModuleDict({"gate": torch.nn.Linear(3, 2), "other": torch.nn.Linear(3, 2)})
    model["other"].weight.data[0, 0] = bad
    check_routers(model)
    model["gate"].weight.data[0, :2] = bad
    with pytest.raises(InputError, match=r"router weights in gate.weight; got 2 of 6 values NaN or infinite"):
        check_routers(model)
