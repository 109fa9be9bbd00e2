"""What the host writes to a DIMM: a descriptor of 64 bytes with a CRC. See docs/ndp.md for the commands."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from trimoe import _ndp

__all__ = ["Descriptor", "Flag", "Opcode", "expert_config"]

_LAYOUT = struct.Struct("<BBHBBHIHHQIIQIIfHHI")  # 60 bytes, then their CRC32C

Opcode = enum.IntEnum("Opcode", [(name, code) for code, name in enumerate(_ndp.commands())])  # type: ignore[misc]


class Flag(enum.IntFlag):
    """Bits of a descriptor's flags; bits 4 and 5 are the number type (`Descriptor.number`)."""

    IRQ = 1
    FENCE = 2
    ACCUMULATE = 4
    ALL_RANKS = 8
    LAST_IN_BATCH = 64
    WIDE_RESULT = 128


@dataclass(frozen=True)
class Descriptor:
    """The fields, in the order of the bytes; see docs/ndp.md for what each command reads."""

    opcode: int
    flags: int = 0
    tag: int = 0
    rank_mask: int = 0xFF
    subch_mask: int = 3
    tokens: int = 0
    slot: int = 0
    rows_16: int = 0
    cols_16: int = 0
    weight_addr: int = 0
    buf_in: int = 0
    buf_out: int = 0
    dst_addr: int = 0
    nbytes: int = 0
    stride: int = 0
    scale: float = 1.0
    dep_tag: int = 0

    def pack(self) -> bytes:
        """The 64 bytes, sealed with their CRC32C; struct.error for a field out of its range."""
        body = _LAYOUT.pack(
            self.opcode, self.flags, self.tag, self.rank_mask, self.subch_mask, self.tokens, self.slot,
            self.rows_16, self.cols_16, self.weight_addr, self.buf_in, self.buf_out, self.dst_addr,
            self.nbytes, self.stride, self.scale, self.dep_tag, 0, 0,
        )  # fmt: skip
        return body + struct.pack("<I", _ndp.crc32c(body))

    @staticmethod
    def remote(dimm: int, address: int) -> int:
        """An address on another DIMM, as `dst_addr` has it."""
        return dimm << 56 | address


def expert_config(
    hidden: int,
    inter: int,
    *,
    group: int = 0,
    activation: int = 0,
    gated: bool = True,
    bias: bool = False,
    alpha: float = 1.702,
    limit: float = 7.0,
) -> bytes:
    """The 64 bytes that follow CFG_EXPERT; their CRC32C goes into the descriptor's stride."""
    return struct.pack("<IIHBBB3xff40x", hidden, inter, group, activation, gated, bias, alpha, limit)
