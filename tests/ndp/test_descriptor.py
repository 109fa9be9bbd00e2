"""The 64 bytes: where each field lies, their CRC against known vectors, and that no bit flips unnoticed."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from support.ndp_fleet import Bench
from trimoe import _ndp
from trimoe.errors import InputError
from trimoe.ndp import Descriptor, Flag, Fleet, Opcode, expert_config

# Offset, format and a value of each field.
FIELDS: dict[str, tuple[int, str, Any]] = {
    "opcode": (0, "B", 0x08),
    "flags": (1, "B", 0xA5),
    "tag": (2, "H", 0x1234),
    "rank_mask": (4, "B", 0x0F),
    "subch_mask": (5, "B", 0x03),
    "tokens": (6, "H", 0xFFFF),
    "slot": (8, "I", 0x89ABCDEF),
    "rows_16": (12, "H", 0x1111),
    "cols_16": (14, "H", 0x2222),
    "weight_addr": (16, "Q", 0x0123456789ABCDEF),
    "buf_in": (24, "I", 0xDEADBEEF),
    "buf_out": (28, "I", 0xFEEDFACE),
    "dst_addr": (32, "Q", 0xFEDCBA9876543210),
    "nbytes": (40, "I", 0x31415926),
    "stride": (44, "I", 0x27182818),
    "scale": (48, "f", 0.15625),
    "dep_tag": (52, "H", 0x5678),
}
OPCODES = [
    "NOP", "MODE_SET", "CFG_EXPERT", "ACT_BCAST", "GEMM_GU", "SILU_MUL", "GEMM_DN", "REDUCE",
    "EXPERT_FFN", "RES_READ", "COPY_RANK", "LINK_SEND", "LINK_RECV", "RELAYOUT", "MIGRATE", "STATUS", "IRQ",
    "ABORT", "RESET",
]  # fmt: skip


def plain_crc32c(data: bytes) -> int:
    """Bit by bit, reflected."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def test_the_opcodes_are_numbered_as_the_command_set_says() -> None:
    assert [one.name for one in Opcode] == OPCODES
    assert [int(one) for one in Opcode] == list(range(0x13))


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_lies_at_its_offset(name: str) -> None:
    offset, layout, value = FIELDS[name]
    one = Descriptor(**{"opcode": 0, "scale": 0.0, "rank_mask": 0, "subch_mask": 0, name: value}).pack()
    wanted = bytearray(60)
    struct.pack_into(f"<{layout}", wanted, offset, value)
    assert one[:60] == wanted
    assert struct.unpack("<I", one[60:]) == (plain_crc32c(one[:60]),)


def test_the_fields_fill_the_descriptor_but_for_what_is_reserved() -> None:
    taken = [
        byte
        for offset, layout, _ in FIELDS.values()
        for byte in range(offset, offset + struct.calcsize(layout))
    ]
    assert sorted(taken) == list(range(54))  # 54 to 59 are reserved, 60 to 63 the CRC


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # these as RFC 3720 lists them
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_the_crc_is_that_of_known_vectors(data: bytes, crc: int) -> None:
    assert _ndp.crc32c(data) == crc == plain_crc32c(data)


def test_every_flipped_bit_is_noticed() -> None:
    bench = Bench(Fleet(1, ranks=1, ring=1024))
    intact = Descriptor(
        Opcode.NOP, **{name: one[2] for name, one in FIELDS.items() if name in ("tag", "slot")}
    )
    raw = intact.pack()
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        if flipped[0] >= Opcode.STATUS and flipped[0] in list(Opcode):
            assert bench.fleet.submit(0, flipped) == "BAD_CRC"  # at once
        else:
            assert bench.fleet.submit(0, flipped) == "OK"
        bench.fleet.advance(0)
    assert [one.status for one in bench.drain()] == ["BAD_CRC"] * 512
    bench.fleet.submit(0, raw)
    bench.fleet.advance(0)
    assert [(one.tag, one.status) for one in bench.drain()] == [(0x1234, "OK")]


def test_flags_are_bits() -> None:
    assert [int(one) for one in (Flag.IRQ, Flag.FENCE, Flag.ACCUMULATE, Flag.ALL_RANKS)] == [1, 2, 4, 8]
    assert [int(one) for one in (Flag.FP16, Flag.INT8, Flag.INT4)] == [1 << 4, 2 << 4, 3 << 4]
    assert [int(one) for one in (Flag.LAST_IN_BATCH, Flag.WIDE_RESULT)] == [64, 128]


@pytest.mark.parametrize(
    "changed",
    [
        *({name: 1 << 8 * struct.calcsize(one[1])} for name, one in FIELDS.items() if name != "scale"),
        *({name: -1} for name in FIELDS if name != "scale"),
        {"scale": 1e39},
        {"tokens": 1.5},
        {"slot": "3"},
    ],
    ids=str,
)
def test_fields_out_of_range_are_one_line(changed: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^expected fields that fit their bits; got .*; try .*$"):
        Descriptor(**{"opcode": 0, **changed}).pack()


def test_configurations_and_remote_addresses_have_their_bytes() -> None:
    config = expert_config(5, 7, group=64, activation=3, gated=False, bias=True, alpha=0.5, limit=2.0)
    assert config == struct.pack("<IIHBBB3xff", 5, 7, 64, 3, 0, 1, 0.5, 2.0) + bytes(40)
    assert Descriptor.remote(3, 0x123) == 3 << 56 | 0x123
    for dimm, address in ((256, 0), (-1, 0), (0, 1 << 56), (0, -1)):
        with pytest.raises(InputError, match="a DIMM below 256 and an address of 56 bits"):
            Descriptor.remote(dimm, address)
    with pytest.raises(InputError, match="fields that fit their bits"):
        expert_config(1 << 32, 1)


@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_a_descriptor_has_64_bytes(size: int) -> None:
    with pytest.raises(InputError, match=f"a descriptor of 64 bytes; got {size}"):
        Fleet(1).submit(0, bytes(size))


def test_fields_that_no_command_takes() -> None:
    bench = Bench(Fleet(1))
    for fields in ({"subch_mask": 1}, {"rows_16": 1}, {"cols_16": 1}):
        assert bench.do(Opcode.NOP, **fields).status == "BAD_FIELD"
    for offset in range(54, 60):
        raw = bytearray(Descriptor(Opcode.NOP).pack()[:60])
        raw[offset] = 1
        bench.fleet.submit(0, bytes(raw) + struct.pack("<I", plain_crc32c(raw)))
        bench.fleet.advance(0)
        assert [one.status for one in bench.drain()] == ["BAD_FIELD"]
