"""First contact: what is there after `import trimoe`, before torch or after it, or without the library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import trimoe
from support.subprocesses import run_python

pytestmark = pytest.mark.slow

OP = "print(torch.ops.trimoe.moe_forward.default._schema.name)"


@pytest.mark.parametrize("order", ["trimoe, torch", "torch, trimoe", "trimoe, transformers, torch"])
def test_the_op_is_there_in_either_order(order: str) -> None:
    assert run_python(f"import {order}; {OP}") == "trimoe::moe_forward\n"


@pytest.mark.parametrize("order", ["trimoe, torch, transformers", "transformers, trimoe"])
def test_transformers_knows_the_implementation_in_either_order(order: str) -> None:
    code = (
        f"import {order}\n"
        "from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS\n"
        "from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING\n"
        "from transformers import PreTrainedModel\n"
        "print('trimoe' in ALL_EXPERTS_FUNCTIONS, 'trimoe' in AUTO_QUANTIZER_MAPPING)\n"
        "print(hasattr(PreTrainedModel.get_correct_experts_implementation, '__wrapped__'))\n"
    )
    assert run_python(code) == "True True\nTrue\n"


def test_importing_is_cheap() -> None:
    code = "import sys, trimoe; dir(trimoe); print('torch' in sys.modules, 'transformers' in sys.modules)"
    assert run_python(code) == "False False\n"


@pytest.mark.parametrize("order", ["trimoe, torch", "torch, trimoe"])
@pytest.mark.parametrize(("content", "told"), [(None, "none in"), ("no library", "file too short")])
def test_without_the_library_torch_is_imported_all_the_same(
    order: str, content: str | None, told: str, tmp_path: Path
) -> None:
    package = tmp_path / "trimoe"
    package.mkdir()
    for path in Path(trimoe.__path__[0]).iterdir():
        if path.name != "_ops.so":
            (package / path.name).symlink_to(path)
    if content is not None:
        (package / "_ops.so").write_text(content)
    code = (
        f"import sys, warnings; sys.path.insert(0, {str(tmp_path)!r})\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        f"    import {order}\n"
        "told = [str(one.message) for one in caught if 'trimoe' in str(one.message)]\n"
        "print(torch.ones(2).sum().item(), *told)\n"
    )
    (line,) = run_python(code).splitlines()
    assert line.startswith("2.0 trimoe could not add itself to torch: expected ") and told in line


def test_what_the_package_shows() -> None:
    public = {"ExpertLayer", "LayerSpec", "TrimoeConfig", "__version__", "load", "moe_forward"}
    assert set(trimoe.__all__) == public <= set(dir(trimoe))
    assert not {"Any", "annotations", "import_module", "TYPE_CHECKING"} & set(dir(trimoe))
    shown = run_python("import trimoe, pydoc; print(pydoc.render_doc(trimoe, renderer=pydoc.plaintext))")
    for words in (
        "Mixture-of-Experts",
        "class ExpertLayer",
        "from_tensors(",
        "load(path",
        "moe_forward(hidden",
    ):
        assert words in shown, words


def test_the_module_is_the_command_line() -> None:
    command = [sys.executable, "-m", "trimoe", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown == f"trimoe {trimoe.__version__}\n"
