"""`trimoe inspect`: the shape, formats and bytes of a checkpoint, from its headers alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.tensors import find_moe_layers
from trimoe.checkpoint.moe_shape import (
    checkpoint_moe_shape,
    config_moe_shape,
    packed_format,
    packed_moe_shape,
)
from trimoe.checkpoint.non_expert_tensors import find_rest
from trimoe.checkpoint.quant_scheme import UnsupportedDtypeError, quant_method
from trimoe.checkpoint.size_breakdown import PARTS, WeightParts, weight_parts
from trimoe.cli.options import CheckpointArgument, JsonOption
from trimoe.cli.render import human_bytes, print_facts, print_json, print_line, print_table
from trimoe.errors import InputError
from trimoe.layer.packed_size import packed_expert_bytes
from trimoe.model_shape import MoeShape
from trimoe.store.packed_folder import PackedFolder

__all__ = ["inspect"]


def inspect(
    path: CheckpointArgument,
    json_output: JsonOption = False,
) -> None:
    """Show a checkpoint's experts, formats and bytes.

    Also says where trimoe would put them. Reads only the headers, no weights.

    \b
    Examples:
      trimoe inspect ~/models/Qwen3-30B-A3B
      trimoe inspect ~/models/Qwen3-30B-A3B --json
    """
    with Checkpoint(path) as checkpoint:
        report = _look(checkpoint)
    if json_output:
        print_json(report.as_dict())
        return
    _print_shape(report)
    _print_bytes(report)
    _print_domains(report)


@dataclass(frozen=True)
class _Report:
    path: str
    tensors: int
    shards: int
    total_bytes: int
    quant_method: str | None
    dimensions: MoeShape
    parts: WeightParts
    packed_format: str | None
    packed_bytes: int | None  # of one expert
    unsupported: str | None  # why the experts cannot be packed

    @property
    def expert_count(self) -> int:
        return self.dimensions.experts * len(self.dimensions.moe_layers)

    @property
    def expert_bytes(self) -> int:
        """Of one expert, on disk."""
        return self.parts.part_bytes["experts"] // self.expert_count

    @property
    def share_pct(self) -> float:
        return 100 * self.parts.part_bytes["experts"] / self.total_bytes

    @property
    def active_bytes(self) -> int | None:
        """Weights that one token reads: its experts in every layer, and all that every token needs."""
        if self.dimensions.topk is None:
            return None
        parts = self.parts.part_bytes
        every_token = self.total_bytes - parts["experts"] - parts["unused"] - self.parts.idle_embedding_bytes
        return every_token + self.expert_bytes * self.dimensions.topk * len(self.dimensions.moe_layers)

    @property
    def domain_bytes(self) -> dict[str, int | None]:
        """By domain; None for one that is absent, or whose format trimoe cannot read yet."""
        parts = self.parts.part_bytes
        packed = None if self.packed_bytes is None else self.packed_bytes * self.expert_count
        torch = self.total_bytes - parts["experts"] - parts["unused"]
        return {"cpu": packed, "torch": torch, "gpu": None, "ndp": None}

    def as_dict(self) -> dict[str, Any]:
        shape = asdict(self.dimensions)
        return {
            "path": self.path,
            "tensors": self.tensors,
            "shards": self.shards,
            **shape,
            "total_bytes": self.total_bytes,
            "quant_method": self.quant_method,
            "dtype_bytes": self.parts.dtype_bytes,
            "part_bytes": self.parts.part_bytes,
            "expert_bytes": self.expert_bytes,
            "expert_share_pct": self.share_pct,
            "active_bytes_per_token": self.active_bytes,
            "packed_format": self.packed_format,
            "packed_expert_bytes": self.packed_bytes,
            "domain_bytes": self.domain_bytes,
            "unsupported": self.unsupported,
        }


def _look(checkpoint: Checkpoint) -> _Report:
    folder = PackedFolder.of(checkpoint)
    if folder is not None:
        return _look_packed(checkpoint, folder)
    fmt, packed, unsupported = None, None, None
    try:
        find_rest(checkpoint)
        shape = checkpoint_moe_shape(checkpoint, find_moe_layers(checkpoint))
    except UnsupportedDtypeError as error:
        # Still worth showing: config.json and the headers tell all but the packed size.
        try:
            shape, unsupported = config_moe_shape(checkpoint.config), error.got
        except InputError:
            raise error from None  # which says more
    else:
        fmt = packed_format(str(shape.dtype))
        packed = packed_expert_bytes(shape.hidden, shape.inter, fmt, shape.gated, shape.has_bias)
    return _Report(
        path=str(checkpoint.path),
        tensors=len(checkpoint.names),
        shards=len(checkpoint.shards),
        total_bytes=checkpoint.total_bytes,
        quant_method=quant_method(checkpoint.config),
        dimensions=shape,
        parts=weight_parts(checkpoint),
        packed_format=fmt,
        packed_bytes=packed,
        unsupported=unsupported,
    )


def _look_packed(checkpoint: Checkpoint, folder: PackedFolder) -> _Report:
    """A folder that `trimoe pack` wrote: its experts lie in a file of their own."""
    spec = next(iter(folder.specs.values()))
    parts = weight_parts(checkpoint)
    packed_bytes = sum(one.layer_bytes for one in folder.specs.values())
    return _Report(
        path=str(checkpoint.path),
        tensors=len(checkpoint.names),
        shards=len(checkpoint.shards),
        total_bytes=checkpoint.total_bytes + packed_bytes,
        quant_method="trimoe",
        dimensions=packed_moe_shape(checkpoint.config, folder.specs),
        parts=replace(
            parts,
            part_bytes={**parts.part_bytes, "experts": packed_bytes},
            dtype_bytes={**parts.dtype_bytes, spec.format_name: packed_bytes},
        ),
        packed_format=spec.format_name,
        packed_bytes=spec.layer_bytes // spec.experts,
        unsupported=None,
    )


def _print_shape(report: _Report) -> None:
    shape = report.dimensions
    extras = [word for word, there in (("gated", shape.gated), ("biases", shape.has_bias)) if there]
    topk = "unknown" if shape.topk is None else f"top {shape.topk}"
    shared = f", {shape.shared_experts} shared" if shape.shared_experts else ""
    facts = {
        "model type": shape.model_type + ("" if report.quant_method is None else f", {report.quant_method}"),
        "layers": f"{shape.layers}, {len(shape.moe_layers)} of them with experts",
        "experts": f"{shape.experts} per layer, {topk}{shared}",
        "expert": ", ".join([f"hidden {shape.hidden}, inner {shape.inter}", str(shape.activation), *extras]),
        "files": f"{report.shards} shard(s), {report.tensors} tensors, {human_bytes(report.total_bytes)}",
    }
    print_facts(report.path, facts)


def _print_bytes(report: _Report) -> None:
    total = report.total_bytes
    parts = [
        (part, human_bytes(count), f"{100 * count / total:.1f} %", PARTS[part])
        for part, count in report.parts.part_bytes.items()
        if count
    ]
    dtypes = [
        (dtype, human_bytes(count), f"{100 * count / total:.1f} %")
        for dtype, count in report.parts.dtype_bytes.items()
    ]
    print_line()
    print_table("Bytes by part", ("part", "bytes", "share", "what"), parts, right=("bytes", "share"))
    print_line()
    print_table("Bytes by format", ("dtype", "bytes", "share"), dtypes, right=("bytes", "share"))


def _print_domains(report: _Report) -> None:
    if report.packed_bytes is None:
        packed_words = f"cannot be packed yet: {report.unsupported}"
    else:
        packed_words = f"experts as {report.packed_format}, {human_bytes(report.packed_bytes)} each"
    words = {"cpu": packed_words, "torch": "all the rest", "gpu": "absent", "ndp": "absent"}
    rows = [
        (domain, "-" if count is None else human_bytes(count), words[domain])
        for domain, count in report.domain_bytes.items()
    ]
    print_line()
    print_table("Bytes by domain, once loaded", ("domain", "bytes", "holds"), rows, right=("bytes",))
    print_line()
    active = "unknown" if report.active_bytes is None else human_bytes(report.active_bytes)
    print_line(f"One expert on disk: {human_bytes(report.expert_bytes)}. Read per token: {active}.")
