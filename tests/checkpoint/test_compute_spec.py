"""How a layer is packed and computed becomes the layer's spec, value by value."""

from __future__ import annotations

from trimoe.checkpoint.compute_spec import ACTIVATIONS, ExpertMath, Packing
from trimoe.layer.expert_layer import LayerSpec


def test_every_name_of_an_activation_leads_to_one_that_is_computed() -> None:
    for activation in set(ACTIVATIONS.values()):
        assert ExpertMath(activation, gated=activation != "relu2").spec(2, 32, 32, Packing("bf16")).native
    assert ACTIVATIONS["swish"] == ACTIVATIONS["silu"] and ACTIVATIONS["gelu"] != ACTIVATIONS["gelu_new"]


def test_a_layer_s_spec_has_every_value_and_gives_its_packing_back() -> None:
    packing = Packing("int4", 64, "bf16")
    spec = ExpertMath("swiglu_oai", bias=True, alpha=1.5, limit=6.0).spec(5, 256, 128, packing)
    computed = {"activation": "swiglu_oai", "bias": True, "alpha": 1.5, "limit": 6.0}
    assert spec == LayerSpec(5, 256, 128, "int4", group=64, activations="bf16", **computed)
    assert Packing.of(spec) == packing


def test_only_auto_gives_way_to_the_checkpoint_s_format() -> None:
    assert Packing().resolved("fp8") == Packing("fp8")
    assert Packing("int8").resolved("fp8") == Packing("int8")
