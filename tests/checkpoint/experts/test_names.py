"""Names of routed experts' tensors are taken apart, and no other tensor's is taken for one."""

from __future__ import annotations

import pytest

from trimoe.checkpoint.experts.names import PARTNERS, ExpertTensorName, parse_expert_name

PREFIX = "model.layers.3.mlp.experts"


@pytest.mark.parametrize(
    ("name", "want"),
    [
        (f"{PREFIX}.7.gate_proj.weight", (PREFIX, 3, 7, "gate", "weight")),
        (f"{PREFIX}.7.up_proj.bias", (PREFIX, 3, 7, "up", "bias")),
        (f"{PREFIX}.7.down_proj.weight_scale_inv", (PREFIX, 3, 7, "down", "scale")),
        (f"{PREFIX}.0.w1.weight", (PREFIX, 3, 0, "gate", "weight")),
        (f"{PREFIX}.0.w3.weight", (PREFIX, 3, 0, "up", "weight")),
        (f"{PREFIX}.0.w2.weight", (PREFIX, 3, 0, "down", "weight")),
        (f"{PREFIX}.gate_up_proj", (PREFIX, 3, None, "gate_up", "weight")),
        (f"{PREFIX}.gate_up_proj_bias", (PREFIX, 3, None, "gate_up", "bias")),
        (f"{PREFIX}.down_proj_blocks", (PREFIX, 3, None, "down", "weight")),
        (f"{PREFIX}.down_proj_scales", (PREFIX, 3, None, "down", "scale")),
        ("model.blocks.12.experts.fc1.weight", ("model.blocks.12.experts", 12, None, "gate_up", "weight")),
        (
            "layers.0.block_sparse_moe.output_linear.weight",
            ("layers.0.block_sparse_moe", 0, None, "down", "weight"),
        ),
        (f"{PREFIX}.7.g_idx", (PREFIX, 3, 7, "", "")),
        (f"{PREFIX}.gate_up_proj_g_idx", (PREFIX, 3, None, "", "")),
    ],
)
def test_a_name_is_taken_apart(name: str, want: tuple[str, int, int | None, str, str]) -> None:
    assert parse_expert_name(name) == ExpertTensorName(*want)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.3.mlp.shared_experts.up_proj.weight",
        "model.layers.3.mlp.gate.weight",
        f"{PREFIX}.e_score_correction_bias",
        "mtp.layers.0.mlp.experts.0.up_proj.weight",
        "model.experts.0.up_proj.weight",
        "model.layers.0.block_sparse_moe.router.layer.weight",
        f"{PREFIX}.7.{'x' * 300}",
        "",
    ],
)
def test_other_tensors_are_no_experts(name: str) -> None:
    assert parse_expert_name(name) is None


def test_partners_are_partners_both_ways() -> None:
    assert PARTNERS and all(PARTNERS[other] == one for one, other in PARTNERS.items())
