"""`python -OO`: neither asserts nor docstrings. What is ours works; transformers does not, and we say so."""

from __future__ import annotations

import pytest

from support.shipped_model import SHIPPED
from support.subprocesses import run_python

pytestmark = pytest.mark.slow

# assert says nothing there, hence `must`.
HEADER = """
import sys, torch, trimoe
from trimoe.errors import InputError

def must(holds):
    if not holds:
        raise SystemExit("does not hold")

def told(call, *words):
    try:
        call()
    except Exception as error:
        return all(word in str(error) for word in words)
    return False

must(sys.flags.optimize == 2 and __doc__ is None and trimoe.__doc__ is None)
torch.manual_seed(0)
gate, up, down = torch.randn(4, 24, 32), torch.randn(4, 24, 32), torch.randn(4, 32, 24)
layer = trimoe.ExpertLayer.from_tensors(gate, up, down, weights="fp32")
call = torch.randn(9, 32), torch.randint(0, 4, (9, 2)), torch.rand(9, 2)
def exact():
    out = torch.zeros(9, 32)
    for token in range(9):
        for expert, weight in zip(call[1][token].tolist(), call[2][token]):
            h = torch.nn.functional.silu(gate[expert] @ call[0][token]) * (up[expert] @ call[0][token])
            out[token] += weight * (down[expert] @ h)
    return out

def near(out):
    torch.testing.assert_close(out, exact(), rtol=1e-4, atol=1e-3)

op = trimoe.moe_forward
"""

WORKS = {
    "op": "near(op(*call, layer.handle))",
    "compiled": "near(torch.compile(op, fullgraph=True, backend='aot_eager')(*call, layer.handle))",
    "experts op": """
parameters = [torch.cat([gate, up], dim=1), down]
near(torch.ops.trimoe.experts(*call, parameters, 'silu', True, 1.0, 7.0, False, True))
""",
    "bad calls": """
must(told(lambda: op(call[0].double(), *call[1:], layer.handle), 'got float64'))
must(told(lambda: op(call[0], None, call[2], layer.handle), 'topk_ids as a tensor; got None'))
must(told(lambda: trimoe.ExpertLayer.from_tensors(gate, up, None), 'down of shape'))
""",
    "derivative": """
x = call[0].clone().requires_grad_()
must(told(lambda: op(x, *call[1:], layer.handle).sum().backward(), 'expected inference'))
""",
    "command line": """
from trimoe.cli.main import main
must(main(['--version']) == 0 and main(['--help']) == 0)
""",
    "load": f"must(told(lambda: trimoe.load({str(SHIPPED)!r}), 'with docstrings', 'try python -O'))",
}


@pytest.mark.parametrize("what", WORKS)
def test_it_works_without_asserts_and_docstrings(what: str) -> None:
    assert run_python(f"{HEADER}\n{WORKS[what]}\nprint('done')", "-OO").endswith("done\n")
