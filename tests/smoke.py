"""What a wheel must do in an environment that has nothing but it: run by `make smoke`, not by pytest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

import trimoe


def check_op() -> None:
    """The op on a random layer against plain torch."""
    torch.manual_seed(0)
    gate, up, down = torch.randn(4, 24, 32), torch.randn(4, 24, 32), torch.randn(4, 32, 24)
    layer = trimoe.ExpertLayer.from_tensors(gate, up, down, weights="fp32")
    hidden, ids, weights = torch.randn(9, 32), torch.randint(0, 4, (9, 2)), torch.rand(9, 2)
    expected = torch.zeros(9, 32)
    for token in range(9):
        for expert, weight in zip(ids[token].tolist(), weights[token], strict=True):
            h = F.silu(gate[expert] @ hidden[token]) * (up[expert] @ hidden[token])
            expected[token] += weight * (down[expert] @ h)
    with torch.inference_mode():
        torch.testing.assert_close(
            torch.ops.trimoe.moe_forward(hidden, ids, weights, layer.handle), expected, rtol=1e-4, atol=1e-3
        )


def check_command() -> None:
    """Text from the model inside the wheel, by the installed command."""
    command = [str(Path(sys.executable).with_name("trimoe")), "generate", "--max-new-tokens", "8", "--json"]
    report = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    if not (report["text"] and report["decode"]["tokens"] == 7):
        raise SystemExit(f"expected 8 new tokens; got {report}")


if __name__ == "__main__":
    check_op()
    check_command()
    print(f"smoke test passed: trimoe {trimoe.__version__}, torch {torch.__version__}")
