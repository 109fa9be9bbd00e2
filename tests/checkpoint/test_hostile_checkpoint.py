"""Checkpoints whose files ask for code to be run: no command runs it, even when somebody answers yes."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trimoe
from support.command_line import Outcome, run_here
from support.shipped_model import copied_model, edit_config
from trimoe.errors import InputError

PACKAGE = Path(trimoe.__path__[0])
MARK = "code-of-the-checkpoint-ran"
CODE = """
import os, pathlib
pathlib.Path(os.environ["TRIMOE_TEST_MARK"]).touch()
from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM
class Config(Qwen3MoeConfig):
    model_type = "evil_moe"
class Model(Qwen3MoeForCausalLM):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
def generate(model, *args, **kwargs):
    return model.generate(*args, **kwargs)
"""
AUTO_MAP = {
    "AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoProcessor": "evil.Tokenizer",
    "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
}  # fmt: skip


class Pickled:
    """Touches the mark when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path(os.environ["TRIMOE_TEST_MARK"]),)


def edit_json(path: Path, **changes: Any) -> None:
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**old, **changes}))


def unknown_model_type(model: Path) -> None:
    edit_config(model, model_type="evil_moe", auto_map=AUTO_MAP)


def known_model_type(model: Path) -> None:
    edit_config(model, auto_map=AUTO_MAP)


def unknown_tokenizer(model: Path) -> None:
    edit_json(model / "tokenizer_config.json", tokenizer_class="Evil", auto_map=AUTO_MAP)


def tokenizer_alone(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    unknown_tokenizer(model)


def processor(model: Path) -> None:
    for name in ("processor_config.json", "preprocessor_config.json"):
        edit_json(model / name, processor_class="Evil", auto_map=AUTO_MAP)


def custom_generate(model: Path) -> None:
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text(CODE)
    edit_json(model / "generation_config.json", custom_generate=str(model))


def chat_template(model: Path) -> None:
    mark = os.environ["TRIMOE_TEST_MARK"]
    escape = f"{{{{ cycler.__init__.__globals__.os.mknod('{mark}') }}}}"
    (model / "chat_template.jinja").write_text(escape)
    edit_json(model / "tokenizer_config.json", chat_template=escape)


def pickle_beside(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Pickled()))


def pickle_alone(model: Path) -> None:
    pickle_beside(model)
    (model / "model.safetensors").unlink()


def attention_from_a_hub(model: Path) -> None:
    edit_config(model, _attn_implementation="evil/kernels:run", attn_implementation="evil/kernels:run")


HOSTILE: dict[Callable[[Path], None], str] = {  # "": the model runs, as its code is not needed
    unknown_model_type: "contains custom code",
    known_model_type: "",
    unknown_tokenizer: "",
    tokenizer_alone: "a tokenizer in",
    processor: "",
    custom_generate: "",
    chat_template: "",
    pickle_beside: "",
    pickle_alone: "pytorch_model.bin",
    attention_from_a_hub: "evil/kernels",
}


@pytest.fixture(params=HOSTILE, ids=lambda harm: harm.__name__)
def hostile(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, str]]:
    """A checkpoint with that harm in it, somebody who always answers yes, and the word of its error."""
    monkeypatch.setenv("TRIMOE_TEST_MARK", str(tmp_path / MARK))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n" * 1000))
    with copied_model(tmp_path) as model:
        (model / "evil.py").write_text(CODE)
        request.param(model)
        yield model, HOSTILE[request.param]
    assert not (tmp_path / MARK).exists()


def check(outcome: Outcome, word: str) -> None:
    if word:
        outcome.assert_one_line(word)
    else:
        assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.slow
def test_generate_is_right_or_one_line(hostile: tuple[Path, str], capfd: pytest.CaptureFixture[str]) -> None:
    model, word = hostile
    arguments = ["generate", str(model), "--no-measure", "--max-new-tokens", "1", "--json"]
    check(run_here(arguments, capfd), word)


@pytest.mark.slow
def test_record_is_right_or_one_line(
    hostile: tuple[Path, str], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, word = hostile
    output = ["--output", str(tmp_path / "trace.parquet"), "--json"]
    check(run_here(["trace", "record", str(model), "--max-new-tokens", "1", *output], capfd), word)


def test_load_is_right_or_one_line(hostile: tuple[Path, str]) -> None:
    model, word = hostile
    if word and word != "a tokenizer in":
        with pytest.raises(InputError, match=word):
            trimoe.load(model)
    else:
        assert trimoe.load(model).trimoe_store.layers


@pytest.mark.slow
def test_pack_and_inspect_are_right_or_one_line(
    hostile: tuple[Path, str], capfd: pytest.CaptureFixture[str]
) -> None:
    model, word = hostile
    inspected = run_here(["inspect", str(model), "--json"], capfd)
    check(inspected, word if word == "pytorch_model.bin" else "")
    check(run_here(["pack", str(model), "--json"], capfd), "" if word == "a tokenizer in" else word)


def test_the_caller_may_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which also shows that the code above runs where it may."""
    monkeypatch.setenv("TRIMOE_TEST_MARK", str(tmp_path / MARK))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    with copied_model(tmp_path) as model:
        (model / "evil.py").write_text(CODE)
        unknown_model_type(model)
        assert trimoe.load(model, trust_remote_code=True).config.model_type == "evil_moe"
    assert (tmp_path / MARK).exists()


def auto_calls() -> Iterator[tuple[str, ast.Call]]:
    """Each call that loads one of transformers' Auto classes, with where it stands."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                loads = node.func.attr in ("from_pretrained", "from_config")
                if loads and owner.startswith(("Auto", "_auto_class(")):
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno} {owner}.{node.func.attr}", node


def test_every_auto_class_is_told_whom_to_trust() -> None:
    """Left open, transformers asks on standard input, and takes yes for an answer."""
    calls = dict(auto_calls())
    for owner in ("AutoTokenizer", "AutoConfig", "_auto_class(config).from_pretrained"):
        assert any(owner in place for place in calls)
    for place, call in calls.items():
        assert "trust_remote_code" in {keyword.arg for keyword in call.keywords}, place
