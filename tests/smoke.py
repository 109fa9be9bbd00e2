"""What a wheel must do in an environment that has nothing but it: run by `make smoke`, not by pytest.

`smoke.py op WHEEL` where transformers is not installed, `smoke.py model` where it is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("trimoe"))


def expect(holds: bool, got: object) -> None:
    """Ends with what came instead; an assert would be gone under python -O."""
    if not holds:
        raise SystemExit(f"smoke test failed: got {got}")


def check_tag(wheel: str) -> str:
    """The Linux that the wheel needs; it may lean on nothing beyond that but torch."""
    command = [sys.executable, "-m", "auditwheel", "show", "--json", wheel]
    report = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    expect(set(report["external_libs"]) == {"libtorch_cpu.so"}, report["external_libs"])
    expect(report["sym_tag"].startswith("manylinux_"), report["sym_tag"])
    return str(report["sym_tag"])


def check_op() -> None:
    """The op on a random layer against plain torch."""
    import torch
    import torch.nn.functional as F

    import trimoe

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


def check_without_transformers() -> None:
    """A command that needs no model works, and one that does says what is missing."""
    done = subprocess.run([COMMAND, "doctor", "--json", "--no-measure"], capture_output=True, text=True)
    expect(done.returncode == 0 and bool(json.loads(done.stdout)), done)
    done = subprocess.run([COMMAND, "generate"], capture_output=True, text=True)
    expect(done.returncode != 0 and "trimoe[hf]" in done.stderr and done.stderr.count("\n") == 1, done)


def check_model() -> None:
    """Text from the model inside the wheel, by the installed command."""
    command = [COMMAND, "generate", "--max-new-tokens", "8", "--json"]
    report = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    expect(bool(report["text"]) and report["decode"]["tokens"] == 7, report)


def main() -> None:
    """The checks that the words of the command line name."""
    if sys.argv[1] == "op":
        tag = check_tag(sys.argv[2])
        check_op()
        check_without_transformers()
        print(f"smoke test passed: the op alone; the wheel deserves the tag {tag} (beside torch)")
    else:
        check_model()
        print("smoke test passed: text from the shipped model")


if __name__ == "__main__":
    main()
