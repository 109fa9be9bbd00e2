"""`trimoe.load`: a model whose experts live in the expert store, everything else in torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import torch

from trimoe.checkpoint.checkpoint import Checkpoint, CheckpointSource
from trimoe.checkpoint.compute_spec import ExpertMath
from trimoe.checkpoint.files import find_files
from trimoe.checkpoint.non_expert_tensors import find_rest
from trimoe.errors import InputError, TrimoeError
from trimoe.hf.activations import expert_math
from trimoe.hf.load_arguments import LoadArguments
from trimoe.hf.quantizer import TrimoeConfig, expert_modules, offered, register

__all__ = ["load", "read_expert_math"]

_OTHER_CONFIG = "the config.json that came with the weights, or a newer transformers"
_TRUST = "trimoe.load(..., trust_remote_code=True), if you trust the code that lies there"


def load(
    path: CheckpointSource,
    *,
    dtype: torch.dtype | Literal["auto"] = "auto",
    weights: str = "auto",
    group: int = 0,
    activations: str = "auto",
    cache: bool = True,
    **kwargs: Any,
) -> Any:
    """Loads the language model in the folder `path`, ready for `generate`.

    `path` may also be an open `Checkpoint`, which is not checked again, and closed at the end.
    Of a model for images and text that is the part for text, where transformers has a class for it, else all.

    The experts are packed from the safetensors files (or mapped, where they were packed before) and are
    never parameters of the model. dtype: of everything else, "auto" is the checkpoint's; what is fp8
    there becomes that dtype too, multiplied by its scales. weights: packed format of the experts, one of
    `trimoe.layer.expert_layer.WEIGHT_FORMATS`; "auto" keeps the checkpoint's own, fp8 and mxfp4 bit for bit.
    group: inputs that share a scale (int4: 32, 64 or 128, the default). activations: what int4 weights
    are multiplied with, "int8" (the default) or "bf16". cache: keep the packed experts on disk. Further
    arguments: a `config`, a `variant` or `subfolder` of the files, what config.json says with another
    value (`num_experts_per_tok=4`), and others of `AutoModelForCausalLM.from_pretrained`; one that cannot
    be honoured is an error. The store is `model.trimoe_store`.

    Raises InputError for a path, model, file or argument that is not as it should be, FailureError when
    memory does not suffice.
    """
    arguments = LoadArguments.of(_folder_of(path), dtype, kwargs)
    register()
    config = _read_config(arguments)
    quantization = TrimoeConfig(None, weights, cache, group, activations, source=_take_quantization(config))
    if quantization.source is not None and quantization.source.get("quant_method") == "trimoe":
        quantization = _completed(quantization, TrimoeConfig(**quantization.source))
    facts = {**config.to_dict(), "quantization_config": quantization.to_dict()}
    with _opened(path, arguments, facts) as checkpoint, offered(checkpoint) as offer:
        find_rest(checkpoint)  # every file is whole before anything is built
        try:
            model, info = _auto_class(config).from_pretrained(
                str(arguments.folder),
                config=config,
                dtype=dtype,
                quantization_config=quantization,
                trust_remote_code=arguments.trust_remote_code,
                ignore_mismatched_sizes=True,  # found below; transformers' own error is a table
                output_loading_info=True,
                **arguments.handed_on,
            )
        except Exception as error:
            if offer.is_built or isinstance(error, TrimoeError):
                raise
            raise _unbuildable(arguments, error) from error
    _check_complete(arguments.folder, info)
    return model.eval()


def _folder_of(path: CheckpointSource) -> str | os.PathLike[str]:
    return path.path if isinstance(path, Checkpoint) else path


def _opened(path: CheckpointSource, arguments: LoadArguments, facts: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint under the config that counts, opened unless it is."""
    known = path if isinstance(path, Checkpoint) else None
    files = known.files if known else find_files(arguments.folder, facts, arguments.variant)
    if files.is_loose:
        raise InputError(
            expected=f"model.safetensors, or the index of its shards, in {files.folder}",
            got=f"{len(files.names)} safetensors of other names, such as {files.names[0]}",
            hint="renaming a single file, or downloading model.safetensors.index.json too",
        )
    return known.with_config(facts) if known else Checkpoint(files, facts)


def _completed(asked: TrimoeConfig, own: TrimoeConfig) -> TrimoeConfig:
    """What was asked for; what was left open as the checkpoint's config.json says."""
    packing = asked.packing
    return TrimoeConfig(
        checkpoint=own.checkpoint,
        weights=own.weights if packing.weights == "auto" else packing.weights,
        group=packing.group or (own.group if packing.weights in ("auto", own.weights) else 0),
        activations=own.activations if packing.activations == "auto" else packing.activations,
        cache=asked.cache and own.cache,
        packed=own.packed,
        source=own.source,
    )


def read_expert_math(path: CheckpointSource) -> dict[int, ExpertMath]:
    """How the experts of each layer of the model in the folder `path` are computed; InputError as `load`."""
    arguments = LoadArguments.of(_folder_of(path), "auto", {})
    config = _read_config(arguments)
    _take_quantization(config)
    try:
        with torch.device("meta"):
            model = _auto_class(config).from_config(config, trust_remote_code=arguments.trust_remote_code)
    except Exception as error:
        raise _unbuildable(arguments, error) from error
    return {index: expert_math(module) for index, (_, module) in expert_modules(model).items()}


def _read_config(arguments: LoadArguments) -> Any:
    """The model's config; what transformers finds wrong with it is config.json's fault."""
    try:
        return arguments.read_config()
    except InputError:
        raise
    except Exception as error:
        raise _unbuildable(arguments, error) from error


def _unbuildable(arguments: LoadArguments, error: Exception) -> InputError:
    """The error for a model that was not even built, without any weights."""
    asked = [
        name for name in ("attn_implementation", "experts_implementation") if name in arguments.handed_on
    ]
    hint = f"leaving out {asked[0]}" if asked else _OTHER_CONFIG
    return InputError(
        expected=f"a language model that transformers can build from {arguments.folder}/config.json",
        got=f"{type(error).__name__}: {str(error)[:200]}",
        hint=_TRUST if "trust_remote_code" in str(error) else hint,
    )


def _auto_class(config: Any) -> Any:
    """What builds the model: for text alone if transformers has such a class, else for images and text."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    is_known = [
        type(config) in auto._model_mapping for auto in (AutoModelForCausalLM, AutoModelForImageTextToText)
    ]
    return AutoModelForImageTextToText if is_known == [False, True] else AutoModelForCausalLM


def _take_quantization(config: Any) -> dict[str, Any] | None:
    """Removes the quantization from a config: with another than ours, transformers would undo that."""
    found = None
    for part in (config.get_text_config(decoder=True), config):
        found = getattr(part, "quantization_config", None) or found
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    return found


def _check_complete(folder: os.PathLike[str], info: Mapping[str, Any]) -> None:
    """transformers fills what it did not find with random numbers, and the text with noise."""
    missing = sorted(info["missing_keys"])
    mismatched = sorted(f"{name} of shape {tuple(got)}" for name, got, _ in info["mismatched_keys"])
    if missing or mismatched:
        raise InputError(
            expected=f"all tensors of the model that {folder}/config.json describes",
            got=f"{len(missing)} missing and {len(mismatched)} of another shape, such as "
            f"{(missing + mismatched)[0]}",
            hint="downloading the checkpoint again, from one revision",
        )
