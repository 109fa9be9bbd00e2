"""`quant_method: trimoe`: transformers loads everything but the experts; the expert store holds those.

Works through `trimoe.load`, through `from_pretrained(..., quantization_config=TrimoeConfig())` and
through a config.json that says {"quantization_config": {"quant_method": "trimoe"}}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.utils.logging import tqdm
from transformers.utils.quantization_config import QuantizationConfigMixin

from trimoe.errors import InputError
from trimoe.expert_layer import ExpertLayer
from trimoe.models.activations import expert_math
from trimoe.models.block_scales import apply_scales
from trimoe.models.checkpoint import Checkpoint
from trimoe.models.expert_math import Packing
from trimoe.models.rest_tensors import find_rest
from trimoe.models.store import ExpertStore
from trimoe.models.stored_experts import StoredExperts

__all__ = ["TrimoeConfig", "check_device_map", "expert_modules", "register"]


class TrimoeConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """What config.json may say under `quantization_config`.

    checkpoint: folder that holds the experts; default: the folder the model is loaded from.
    weights, group, activations: how the experts are packed, as in `trimoe.LayerSpec`; weights "auto" keeps
    the checkpoint's own format (fp16 is kept exactly, as fp32).
    cache: whether packed experts are kept on disk for the next start.
    packed: name of the file of packed experts, in a folder that `trimoe pack` wrote.
    source: the quantization config of the checkpoint itself, where it is fp8 beside the experts too.
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
    """Swaps the experts before weights load, so that the loader never sees an expert tensor."""

    requires_calibration = False

    def validate_environment(self, *_: Any, device_map: Any = None, **__: Any) -> None:
        """Called by transformers before anything is loaded."""
        check_device_map(device_map)

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """What torch computes in; a checkpoint in fp8 whose config.json does not say is taken as bf16."""
        return torch.bfloat16 if dtype.itemsize == 1 else dtype

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        config = self.quantization_config
        files = kwargs.get("checkpoint_files")
        self._folder = _folder_of(files) if files else None
        folder = config.checkpoint or _folder_of(files)
        experts = expert_modules(model)
        math = {index: expert_math(module) for index, (_, module) in experts.items()}
        with _progress_bar() as progress:
            store = ExpertStore.open(
                folder, math, packing=config.packing, use_cache=config.cache, progress=progress
            )
        for index, (name, module) in experts.items():
            _check_shape(name, module, store.layers[index])
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, StoredExperts(store.layers[index]))
        ignored = set(model._keys_to_ignore_on_load_unexpected or ())
        model._keys_to_ignore_on_load_unexpected = ignored | {r".*\.experts\..*", r".*_scale_inv$"}
        model.trimoe_store = store
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        if self._folder is not None:
            with Checkpoint(self._folder) as checkpoint:
                apply_scales(model, checkpoint, find_rest(checkpoint).scales)
        _check_routers(model)
        return model

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        """The experts are not in the module: such a model cannot be saved, its checkpoint still exists."""
        return False

    @property
    def is_trainable(self) -> bool:
        """Inference only."""
        return False


def register() -> None:
    """Adds `quant_method: trimoe` to transformers; idempotent."""
    if "trimoe" not in AUTO_QUANTIZER_MAPPING:
        register_quantization_config("trimoe")(TrimoeConfig)
        register_quantizer("trimoe")(TrimoeQuantizer)


def expert_modules(model: Any) -> dict[int, tuple[str, Any]]:
    """The experts modules of a model of transformers, with their names, by layer index."""
    return {
        _layer_index(name): (name, module)
        for name, module in model.named_modules()
        if hasattr(module, "down_proj") and hasattr(module, "is_concatenated")
    }


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


def _folder_of(files: list[str] | None) -> str:
    if not files:
        raise InputError(
            expected="a checkpoint folder to take the experts from",
            got="a model without checkpoint files",
            hint="quantization_config=TrimoeConfig(checkpoint=FOLDER)",
        )
    return str(Path(files[0]).parent)


def check_device_map(device_map: Any) -> None:
    """Today's only domain is the CPU: hidden states must be there when the experts are called."""
    devices = device_map.values() if isinstance(device_map, dict) else [device_map or "cpu"]
    if {str(device) for device in devices} != {"cpu"}:
        raise InputError(
            expected="a model on the CPU",
            got=f"device_map={device_map!r}",
            hint="leaving device_map out: the GPU domain does not exist yet",
        )


def _layer_index(name: str) -> int:
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    if len(numbers) != 1:
        raise InputError(
            expected="an experts module in a numbered layer, like model.layers.3.mlp.experts",
            got=name,
            hint="experts_implementation='trimoe' for this model",
        )
    return numbers[0]


def _check_shape(name: str, module: Any, layer: ExpertLayer) -> None:
    """What config.json makes of the module and what the files hold must be one shape."""
    experts, hidden, inter = layer.spec.experts, layer.spec.hidden, layer.spec.inter
    want = tuple(module.down_proj.shape)
    if want not in ((experts, hidden, inter), (experts, inter, hidden)):
        raise InputError(
            expected=f"experts {name}.down_proj of shape {want}, as config.json says",
            got=f"{experts} experts of hidden {hidden} and inner {inter}",
            hint="the config.json and the weights of the same model",
        )


def _check_routers(model: Any) -> None:
    """A NaN in a router sends every token to nowhere: better found now than in the output."""
    for name, parameter in model.state_dict().items():
        if ".gate." in f".{name}." or ".router." in f".{name}.":
            bad = int((~torch.isfinite(parameter)).sum())
            if bad:
                raise InputError(
                    expected=f"finite router weights in {name}",
                    got=f"{bad} of {parameter.numel()} values NaN or infinite",
                    hint="downloading the checkpoint again",
                )
