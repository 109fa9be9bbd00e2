"""Sizes of attention, counted by hand; those of whole models: tests/checkpoint/test_model_shape.py."""

from __future__ import annotations

from trimoe.model_shape import Attention


def test_projections_are_what_one_counts_by_hand() -> None:
    gqa = Attention("gqa", hidden=8, heads=4, kv_heads=2, qk_dim=3, v_dim=3)
    assert (gqa.q_elements, gqa.kv_elements, gqa.out_elements) == (8 * 12, 8 * 12, 12 * 8)
    assert gqa.pair_flops() == gqa.pair_flops(absorbed=True) == 2 * 4 * 6
    mla = Attention("mla", 8, 4, 4, qk_dim=5, v_dim=3, q_rank=6, kv_rank=7, rope_dim=2)
    assert mla.q_elements == 8 * 6 + 6 * 4 * 5
    assert mla.kv_elements == 8 * (7 + 2) + 7 * 4 * (3 + 3)
    assert (mla.out_elements, mla.cache_elements) == (4 * 3 * 8, 9)
    assert mla.pair_flops() == 2 * 4 * (5 + 3)
    assert mla.pair_flops(absorbed=True) == 2 * 4 * ((7 + 2) + 7)
