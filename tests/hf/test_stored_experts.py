"""What stands where the experts of a loaded model were: copied, saved, exported."""

from __future__ import annotations

import copy
import gc
import io
import pickle

import pytest
import torch

import trimoe
from support.shipped_model import SHIPPED
from trimoe.errors import InputError
from trimoe.hf.stored_experts import StoredExperts

IDS = torch.tensor([[1, 2, 3, 4, 5]])


def _stored(model: torch.nn.Module) -> list[StoredExperts]:
    return [module for module in model.modules() if isinstance(module, StoredExperts)]


@pytest.mark.slow
def test_a_deep_copy_shares_the_layers_and_outlives_the_model() -> None:
    model = trimoe.load(SHIPPED)
    with torch.inference_mode():
        expected = model(IDS).logits
        twin = copy.deepcopy(model)
        pairs = list(zip(_stored(model), _stored(twin), strict=True))
        assert len(pairs) == 4 and all(a is not b and a.layer is b.layer for a, b in pairs)
        assert twin.get_input_embeddings().weight is not model.get_input_embeddings().weight
        del model, pairs
        gc.collect()
        assert torch.equal(twin(IDS).logits, expected)


@pytest.mark.parametrize("save", [pickle.dumps, lambda model: torch.save(model, io.BytesIO())])
def test_a_pickle_says_what_to_do(save: object) -> None:
    model = trimoe.load(SHIPPED)
    with pytest.raises(InputError, match=r"got an ExpertLayer to pickle, .*trimoe.load\(folder\)") as error:
        save(model)  # type: ignore[operator]
    assert "\n" not in str(error.value)
    torch.save(model.state_dict(), io.BytesIO())  # everything but the experts


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
def test_a_loaded_model_is_exported(strict: bool) -> None:
    """For use in this process: see tests/layer/test_op_processes.py for another one."""
    model = trimoe.load(SHIPPED)
    experts = _stored(model)[0]
    spec = experts.layer.spec
    call = torch.randn(5, spec.hidden), torch.randint(0, spec.experts, (5, 4)), torch.rand(5, 4)
    program = torch.export.export(experts, call, strict=strict)
    assert torch.equal(program.module()(*call), experts(*call))
    with torch.no_grad():
        whole = torch.export.export(model, (IDS,), {"use_cache": False}, strict=False)
        torch.testing.assert_close(
            whole.module()(IDS, use_cache=False).logits, model(IDS, use_cache=False).logits
        )
