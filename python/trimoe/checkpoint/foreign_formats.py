"""Weights that are no safetensors of transformers: how each format is recognised, its name, what to do."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

__all__ = ["FORMATS", "ForeignFormat", "format_of_file", "format_of_folder"]


class ForeignFormat(NamedTuple):
    """A format that is not read: what people call it, names of files that show it, and what to do instead."""

    name: str
    patterns: tuple[str, ...]
    hint: str


_ORIGINAL = "the model's own safetensors checkpoint, in BF16, FP8 or MXFP4"
_SAVE = "saving it as safetensors with transformers: from_pretrained(FOLDER), then save_pretrained(NEW)"
_MERGE = "merging it into its base model (merge_and_unload of PEFT) and saving that"
_CONVERTED = "the checkpoint in transformers' format, often named -hf or in the same repository"
# In order: a folder may hold several, and the first that matches is named.
FORMATS = (
    ForeignFormat("a PEFT adapter, not a whole model", ("adapter_config.json",), _MERGE),
    ForeignFormat("GGUF (llama.cpp, Ollama)", ("*.gguf", "*.ggml", "ggml-model*.bin"), _ORIGINAL),
    ForeignFormat(
        "the makers' own format (consolidated.*, params.json)",
        ("consolidated*.safetensors", "consolidated*.pth", "params.json"),
        _CONVERTED,
    ),
    ForeignFormat("a distributed checkpoint of torch", ("*.distcp",), _SAVE),
    ForeignFormat("pickled PyTorch weights", ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt"), _SAVE),
    ForeignFormat("TensorFlow weights", ("*.h5", "saved_model.pb"), _SAVE),
    ForeignFormat("Flax weights", ("*.msgpack",), _SAVE),
    ForeignFormat("ONNX", ("*.onnx", "onnx/*.onnx"), _ORIGINAL),
    ForeignFormat("OpenVINO", ("openvino_model*.xml",), _ORIGINAL),
    ForeignFormat("TensorRT-LLM", ("*.engine",), _ORIGINAL),
    ForeignFormat("NeMo", ("*.nemo",), _ORIGINAL),
)


def format_of_folder(folder: Path) -> ForeignFormat | None:
    """The first format that files of the folder show, with one of them in its name; None if none does."""
    for one in FORMATS:
        for pattern in one.patterns:
            for path in folder.glob(pattern):
                return one._replace(name=f"{one.name} ({path.name})")
    return None


def format_of_file(path: Path) -> ForeignFormat | None:
    """The format that the file's name shows."""
    return next((one for one in FORMATS if any(path.match(name) for name in one.patterns)), None)
