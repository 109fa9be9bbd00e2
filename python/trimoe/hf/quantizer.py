"""`quant_method: trimoe`: transformers loads everything but the experts; the expert store holds those.

Works through `trimoe.load`, through `from_pretrained(..., quantization_config=TrimoeConfig())` and
through a config.json that says {"quantization_config": {"quant_method": "trimoe"}}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import trimoe.hf.needs_transformers  # noqa: F401

# isort: split
import torch
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.utils.logging import tqdm
from transformers.utils.quantization_config import QuantizationConfigMixin

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.compute_spec import ExpertMath, Packing
from trimoe.checkpoint.files import chosen_files
from trimoe.checkpoint.non_expert_tensors import find_rest
from trimoe.errors import InputError
from trimoe.hf.activations import expert_math
from trimoe.hf.dequantize import apply_scales
from trimoe.hf.model_checks import (
    check_device_map,
    check_one_process,
    check_routers,
    check_shape,
    check_shapes,
    check_topk,
)
from trimoe.hf.stored_experts import StoredExperts
from trimoe.hf.tensor_targets import Target, check_expert_targets, tensor_targets
from trimoe.store.expert_store import ExpertStore

__all__ = ["TrimoeConfig", "expert_modules", "offered", "register"]

_ADAPTER = "adapter_config.json"


@dataclass
class Offer:
    """A checkpoint that is open; is_built: whether the model that is to take it was built."""

    checkpoint: Checkpoint
    is_built: bool = False


_offered: ContextVar[Offer | None] = ContextVar("trimoe_offered_checkpoint", default=None)


class TrimoeConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """What config.json may say under `quantization_config`.

    checkpoint: folder that holds the experts; default: the folder the model is loaded from.
    weights, group, activations: how the experts are packed, as in `trimoe.LayerSpec`; weights "auto" keeps
    the checkpoint's own format (fp16 is kept exactly, as fp32).
    cache: whether packed experts are kept on disk for the next start.
    packed: name of the file of packed experts, in a folder that `trimoe pack` wrote.
    source: the quantization config of the checkpoint itself, where there is one.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        weights: str = "auto",
        cache: bool = True,
        group: int = 0,
        activations: str = "auto",
        packed: str | None = None,
        source: dict[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        unknown.pop("quant_method", None)
        if unknown:
            raise InputError(
                expected="checkpoint, weights, group, activations, cache in the trimoe quantization config",
                got=", ".join(sorted(unknown)),
                hint="removing or correcting it",
            )
        self.quant_method = "trimoe"
        self.checkpoint, self.weights, self.cache = checkpoint, weights, cache
        self.group, self.activations = group, activations
        self.packed, self.source = packed, source

    @property
    def packing(self) -> Packing:
        """How the experts are to be packed."""
        return Packing(self.weights, self.group, self.activations)


class TrimoeQuantizer(HfQuantizer):  # type: ignore[misc]
    """Swaps the experts before weights load, so that the loader never sees an expert tensor.

    transformers calls the methods in this order.
    """

    requires_calibration = False
    _checkpoint: Checkpoint | None  # the files that transformers chose, while it loads; None: a state dict
    _modules: dict[int, str]  # layer to path of its experts
    _shapes: dict[str, torch.Size]  # of all parameters and buffers, the experts' included
    _prefix: str
    _targets: dict[str, Target]

    def validate_environment(
        self, *_: Any, device_map: Any = None, weights_only: bool = True, **__: Any
    ) -> None:
        """Called by transformers before anything is loaded."""
        check_device_map(device_map)
        if not weights_only:
            raise InputError(
                expected="weights_only=True: weights are data", got="False", hint="leaving weights_only out"
            )

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """What torch computes in; a checkpoint in fp8 whose config.json does not say is taken as bf16."""
        return torch.bfloat16 if dtype.itemsize == 1 else dtype

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> Any:
        if (offer := _offered.get()) is not None:
            offer.is_built = True
        asked = self.quantization_config
        config = {**model.config.to_dict(), "quantization_config": asked.to_dict()}
        check_one_process(model.config)
        check_topk(config)
        self._checkpoint = _open(checkpoint_files, config) if checkpoint_files else None
        experts = expert_modules(model)
        self._modules = {index: name for index, (name, _) in experts.items()}
        self._shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        self._prefix = model.base_model_prefix
        math = {index: expert_math(module) for index, (_, module) in experts.items()}
        store = _open_store(self._checkpoint, asked, math)
        for index, (name, module) in experts.items():
            check_shape(name, module, store.layers[index])
            path, _, leaf = name.rpartition(".")
            parent = model.get_submodule(path)
            setattr(parent, leaf, StoredExperts(store.layers[index]))
            parent._is_hf_initialized = True  # some models fill the experts' parameters from there
        ignored = set(model._keys_to_ignore_on_load_unexpected or ())
        model._keys_to_ignore_on_load_unexpected = ignored | {r".*\.experts\..*", r".*_scale_inv$"}
        model.trimoe_store = store
        return model

    def update_weight_conversions(self, weight_conversions: Any, *model: Any) -> Any:
        """Called with what transformers will do to the tensors' names and values."""
        if self._checkpoint is not None:
            names, shapes = self._checkpoint.names, self._shapes
            self._targets = tensor_targets(names, weight_conversions, self._prefix, shapes)
            check_expert_targets(self._targets, self._modules)
        return super().update_weight_conversions(weight_conversions, *model)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        check_shapes(model, self._shapes)
        if self._checkpoint is not None:
            apply_scales(model, self._checkpoint, find_rest(self._checkpoint).scales, self._targets)
            self._checkpoint.close()
        self._checkpoint, self._shapes, self._targets = None, {}, {}  # the quantizer stays with the model
        check_routers(model)
        return model

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        """The experts are not in the module: such a model cannot be saved, its checkpoint still exists."""
        return False

    @property
    def is_trainable(self) -> bool:
        """Inference only."""
        return False


@contextmanager
def offered(checkpoint: Checkpoint) -> Iterator[Offer]:
    """While open, models whose files are those of `checkpoint` take it, instead of opening them again."""
    offer = Offer(checkpoint)
    token = _offered.set(offer)
    try:
        yield offer
    finally:
        _offered.reset(token)


def _open(paths: list[str], config: Mapping[str, Any]) -> Checkpoint:
    """The files that transformers chose; InputError where they are not all of the model."""
    files, offer = chosen_files(paths), _offered.get()
    if (files.folder / _ADAPTER).exists():
        raise InputError(
            expected=f"a whole model in {files.folder}",
            got=f"one with an adapter beside it ({_ADAPTER})",
            hint="merging the adapter into the model (merge_and_unload of PEFT), or moving it elsewhere",
        )
    if offer is not None and set(offer.checkpoint.files.paths) == set(files.paths):
        return offer.checkpoint
    return Checkpoint(files, config)


def _open_store(
    checkpoint: Checkpoint | None, asked: TrimoeConfig, math: Mapping[int, ExpertMath]
) -> ExpertStore:
    with _progress_bar() as progress:
        options: Any = {"packing": asked.packing, "use_cache": asked.cache, "progress": progress}
        if asked.checkpoint is not None:
            return ExpertStore.open(asked.checkpoint, math, **options)
        if checkpoint is not None:
            return ExpertStore.of(checkpoint, math, **options)
    raise InputError(
        expected="a checkpoint folder to take the experts from",
        got="a model without checkpoint files",
        hint="quantization_config=TrimoeConfig(checkpoint=FOLDER)",
    )


def register() -> None:
    """Adds `quant_method: trimoe` to transformers; idempotent."""
    if "trimoe" not in AUTO_QUANTIZER_MAPPING:
        register_quantization_config("trimoe")(TrimoeConfig)
        register_quantizer("trimoe")(TrimoeQuantizer)


def expert_modules(model: Any) -> dict[int, tuple[str, Any]]:
    """The experts modules of a model of transformers, with their names, by layer index.

    Raises InputError where a layer has several, or a module lies in no layer.
    """
    found: dict[int, tuple[str, Any]] = {}
    for name, module in model.named_modules():
        if hasattr(module, "down_proj") and hasattr(module, "is_concatenated"):
            first, _ = found.setdefault(_layer_index(name), (name, module))
            if first != name:
                raise InputError(
                    expected=f"one stack of experts in a layer of a {type(model).__name__}",
                    got=f"both {first} and {name}",
                    hint="experts_implementation='trimoe' for this model",
                )
    return found


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """transformers' own bar, so that its switches hold; it appears with the first byte, shows GB/s."""
    bars: list[Any] = []

    def advance(done_bytes: int, total_bytes: int) -> None:
        if not bars:
            bars.append(tqdm(total=total_bytes, unit="B", unit_scale=True, desc="Packing experts"))
        bars[0].update(done_bytes)

    try:
        yield advance
    finally:
        for bar in bars:
            bar.close()


def _layer_index(name: str) -> int:
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    if len(numbers) != 1:
        raise InputError(
            expected="an experts module in a numbered layer, like model.layers.3.mlp.experts",
            got=name,
            hint="experts_implementation='trimoe' for this model",
        )
    return numbers[0]
