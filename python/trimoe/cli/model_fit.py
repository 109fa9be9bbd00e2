"""What `trimoe doctor MODEL` says of the model: whether it fits here, in which format, how fast at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimoe.cli.render import human_bytes, print_line, print_table
from trimoe.hardware.machine import Machine
from trimoe.hardware.roofline import Roofline

if TYPE_CHECKING:
    from trimoe.measure.fit import FormatFit, ModelNeeds

__all__ = ["ModelFit"]


@dataclass(frozen=True)
class ModelFit:
    """A model on this machine."""

    needs: ModelNeeds
    machine: Machine
    formats: Sequence[FormatFit]
    best: FormatFit | None

    @classmethod
    def of(cls, needs: ModelNeeds, machine: Machine, roofline: Roofline | None) -> ModelFit:
        """roofline: of this machine, where it was measured."""
        from trimoe.measure.fit import best_fit, fit

        formats = fit(needs, machine, roofline)
        return cls(needs, machine, formats, best_fit(needs, formats))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        from trimoe.measure.fit import CONTEXT_TOKENS

        return {
            "name": self.needs.name,
            "own_format": self.needs.own,
            "other_weight_bytes": self.needs.rest_bytes,
            "context_tokens": CONTEXT_TOKENS,
            "context_bytes": self.needs.context_bytes,
            "formats": [one.as_dict() for one in self.formats],
            "best_format": self.best.format if self.best else None,
        }

    def print(self) -> None:
        """A table of the formats, and what its columns mean."""
        columns = ("format", "experts", "all needed", "fits", "read per token", "tokens/s, at most")
        rows = [self._row(one) for one in self.formats]
        title, right = f"{self.needs.name} on this machine", (*columns[1:3], *columns[4:])
        print_table(title, columns, rows, right=right, notes=self._notes())
        print_line(self._advice())

    def _row(self, one: FormatFit) -> tuple[str, ...]:
        speed = one.at_most_tokens_per_s
        return (
            f"{one.format} (its own)" if one.format == self.needs.own else one.format,
            human_bytes(one.expert_bytes),
            human_bytes(one.needed_bytes),
            "yes" if one.fits else "not beside what runs now" if one.fits_machine else "no",
            "-" if one.read_bytes is None else human_bytes(one.read_bytes),
            "-" if speed is None else f"{speed:.1f}",
        )

    def _notes(self) -> list[str]:
        from trimoe.measure.fit import CONTEXT_TOKENS
        from trimoe.measure.memory_forecast import WORKING_BYTES

        needs, memory = self.needs, self.machine.memory
        context = "an unknown KV cache" if needs.context_bytes is None else human_bytes(needs.context_bytes)
        lines = [
            f"all needed: the experts, {human_bytes(needs.rest_bytes)} of other weights, {context} for "
            f"{CONTEXT_TOKENS} tokens of context, {human_bytes(WORKING_BYTES)} to work in; "
            f"free are {human_bytes(memory.available_bytes)} of {human_bytes(memory.total_bytes)}",
        ]
        if any(one.at_most_tokens_per_s is not None for one in self.formats):
            lines.append(
                "at most: one request without context, each weight that a token meets read once at the "
                "speeds above: a bound, not a prediction"
            )
        elif self.machine.last_level_cache_bytes is not None:
            lines.append("tokens/s: not told where nothing was measured, or the weights stay in the caches")
        return lines

    def _advice(self) -> str:
        if self.best is None:
            return "no format fits: another machine, or a smaller model"
        name = f"{self.best.format} (`--format {self.best.format.split()[0]}`)"
        if self.best.fits:
            return f"the best that fits: {name}"
        return f"no format fits beside what runs now; without that, {name} would"
