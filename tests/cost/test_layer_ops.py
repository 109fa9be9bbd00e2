"""Operations and bytes of layers, against figures worked out by hand and pairs counted one by one."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cost.layer_ops import head_op, hidden_bytes, kv_bytes, layer_ops
from trimoe.model_shape import ModelShape


@functools.cache
def shape(name: str) -> ModelShape:
    return load_model_shape(name)


def test_mixtral_at_decode_is_what_one_counts_by_hand() -> None:
    """32 heads of 128, 8 of keys and values; 5 requests with 100 tokens each in their caches."""
    found = layer_ops(shape("mixtral-8x7b"), 5, 1, 100, moe=True)
    qkv, out = 4096 * 4096 + 4096 * 8 * 256, 4096 * 4096 + 4096 * 8
    assert (found.qkv.flops, found.qkv.weight_bytes) == (2 * 5 * qkv, 2 * qkv)
    assert found.attention.flops == 5 * 100 * 32 * (2 * 128 + 2 * 128)
    assert found.attention.weight_bytes == 0
    assert found.attention.kv_bytes == 5 * 100 * 8 * 256 * 2
    assert (found.out.flops, found.out.weight_bytes) == (2 * 5 * out, 2 * out)
    assert found.new_kv_bytes == 5 * 8 * 256 * 2


def test_mixtral_at_prefill_is_what_one_counts_by_hand() -> None:
    """3 prompts of 7 tokens: 28 pairs each, and every key is read once."""
    found = layer_ops(shape("mixtral-8x7b"), 3, 7, 7, moe=True)
    assert found.attention.flops == 3 * 28 * 32 * 512
    assert found.attention.kv_bytes == 3 * 7 * 8 * 256 * 2
    assert found.qkv.flops == 2 * 21 * (4096 * 4096 + 4096 * 8 * 256)
    assert found.new_kv_bytes == 21 * 8 * 256 * 2


def test_deepseek_v2_at_decode_attends_to_latents() -> None:
    """128 heads; a latent of 512 and a rotary part of 64 in the cache."""
    found = layer_ops(shape("deepseek-v2"), 4, 1, 50, moe=True)
    q, kv = 5120 * 1536 + 1536 * 128 * 192, 5120 * 576 + 512 * 128 * (128 + 128)
    assert found.qkv.weight_bytes == 2 * (q + kv)
    assert found.attention.flops == 4 * 50 * 128 * 2 * (512 + 64 + 512)
    assert found.attention.kv_bytes == 4 * 50 * 576 * 2
    shared, router = 3 * 5120 * 2 * 1536, 5120 * 160
    assert found.out.weight_bytes == 2 * (128 * 128 * 5120 + shared + router)
    assert found.new_kv_bytes == 4 * 576 * 2


def test_deepseek_v2_at_prefill_attends_to_keys_and_values() -> None:
    found = layer_ops(shape("deepseek-v2"), 2, 6, 6, moe=False)
    assert found.attention.flops == 2 * 21 * 128 * 2 * (192 + 128)
    assert found.attention.kv_bytes == 2 * 6 * 576 * 2
    assert found.out.weight_bytes == 2 * (128 * 128 * 5120 + 3 * 5120 * 12288)  # the first layer is dense


def seen(new_tokens: int, context: int, window: int) -> tuple[int, int]:
    """Pairs of a query and a key, and keys of any query: every one looked at."""
    keys, pairs = set(), 0
    for query in range(context - new_tokens, context):
        for key in range(query + 1):
            if not window or query - key < window:
                pairs += 1
                keys.add(key)
    return pairs, len(keys)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(0, 300), st.integers(1, 3))
def test_sliding_windows_are_counted_pair_by_pair(new_tokens: int, before: int, requests: int) -> None:
    """gpt-oss: every second layer sees 128 tokens, the query's own among them."""
    model, context = shape("gpt-oss-120b"), before + new_tokens
    assert (model.attention.window, model.attention.window_layers, model.moe.layers) == (128, 18, 36)
    found = layer_ops(model, requests, new_tokens, context, moe=True)
    (slide_pairs, slide_keys), (full_pairs, full_keys) = (seen(new_tokens, context, one) for one in (128, 0))
    assert found.attention.flops == pytest.approx(requests * 64 * 4 * 64 * (slide_pairs + full_pairs) / 2)
    assert found.attention.kv_bytes == pytest.approx(requests * 8 * 2 * 64 * 2 * (slide_keys + full_keys) / 2)


def test_a_prompt_in_one_piece_is_all_its_tokens_one_by_one() -> None:
    """Attention's operations are the same, where it is the same attention (no latents)."""
    for name in ("mixtral-8x7b", "gpt-oss-120b"):
        whole = layer_ops(shape(name), 2, 200, 200, moe=True)
        steps = [layer_ops(shape(name), 2, 1, context, moe=True) for context in range(1, 201)]
        assert whole.attention.flops == pytest.approx(sum(one.attention.flops for one in steps))
        assert whole.qkv.flops == pytest.approx(sum(one.qkv.flops for one in steps))
        assert whole.new_kv_bytes == pytest.approx(sum(one.new_kv_bytes for one in steps))


def test_a_mean_micro_batch_counts_in_proportion() -> None:
    half, one = (layer_ops(shape("mixtral-8x7b"), count, 1, 64, moe=True) for count in (2.5, 5))
    assert half.qkv.flops * 2 == one.qkv.flops and half.qkv.weight_bytes == one.qkv.weight_bytes
    assert half.attention.kv_bytes * 2 == one.attention.kv_bytes


def test_the_cache_is_that_of_all_layers() -> None:
    assert kv_bytes(shape("mixtral-8x7b"), 3, 1000) == 3 * 1000 * 32 * 8 * 256 * 2
    assert kv_bytes(shape("deepseek-v2"), 2, 10) == 2 * 10 * 60 * 576 * 2
    # What a window has left behind is not kept.
    assert kv_bytes(shape("gpt-oss-120b"), 1, 1000) == (18 * 128 + 18 * 1000) * 8 * 128 * 2
    assert kv_bytes(shape("gpt-oss-120b"), 1, 100) == 36 * 100 * 8 * 128 * 2


def test_the_head_and_hidden_states_are_what_one_counts_by_hand() -> None:
    op = head_op(shape("mixtral-8x7b"), 6)
    assert (op.flops, op.weight_bytes, op.kv_bytes) == (2 * 6 * 32000 * 4096, 2 * 32000 * 4096, 0)
    assert hidden_bytes(shape("deepseek-v2"), 7) == 7 * 5120 * 2
