"""Random streams of commands, with time that passes, aborts and resets, against a plain model of the ring."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.ndp_fleet import COMMAND_NS, Bench
from support.ndp_model import BUFFER, MEMORY, RING, Command, Model
from trimoe import _ndp
from trimoe.ndp import Descriptor, Flag, Fleet, Opcode, expert_config

masks = st.integers(0, 15) | st.sampled_from([0b0001, 0b0010, 0b1100, 0xFF])
tags = {"tag": st.integers(0, 4), "dep_tag": st.sampled_from([0, 0, 1, 2, 3, 4])}
flags = st.sampled_from([0, 0, 0, Flag.FENCE, Flag.ALL_RANKS])
sizes = st.sampled_from([4, 64, 400, 1000])
offsets = st.sampled_from([0, 4, 60, 24, 512, 960])


def command(opcode: int, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Command]:
    return st.builds(Command, opcode=st.just(int(opcode)), flags=flags, mask=masks, **tags, **fields)


loads = command(
    Opcode.ACT_BCAST,
    data=st.builds(
        lambda seed, size: bytes((seed + 7 * i) % 256 for i in range(size)), st.integers(0, 255), sizes
    ),
    target=offsets,
)
reads = command(Opcode.RES_READ, amount=sizes, source=offsets)
copies = command(Opcode.COPY_RANK, amount=sizes | st.just(0), source=offsets, target=offsets)
modes = command(Opcode.MODE_SET, amount=st.sampled_from([0, 1, 1, 1, 2, 3]))
others = (
    command(Opcode.NOP)
    | command(Opcode.GEMM_GU)
    | command(0x55)
    | command(Opcode.NOP, intact=st.just(False))
    | command(Opcode.CFG_EXPERT, source=st.sampled_from([0, 64]), target=st.integers(0, 3))
)
waits = st.sampled_from([0.0, 5.0, 20.0, 40.0, 100.0, 3000.0])
actions = st.lists(
    loads
    | loads
    | reads
    | copies
    | modes
    | others
    | waits
    | st.sampled_from(["abort", "reset", "run", "run"]),
    min_size=5,
    max_size=40,
)


class Both:
    """The emulator and the model, given the same."""

    def __init__(self, ranks: int) -> None:
        self.bench = Bench(Fleet(1, ranks=ranks, buffer_kib=BUFFER >> 10, ring=RING))
        self.address = self.bench.fleet.allocate(0, MEMORY)
        data = bytes(i * 31 % 256 for i in range(MEMORY))
        self.bench.fleet.write(0, self.address, data)
        self.config = expert_config(1, 1, gated=False)  # more than MEMORY: see `experts`
        self.experts = self.bench.fleet.allocate(0, 4096)
        self.model = Model(ranks, 0.0)
        self.model.memory[:] = data
        self.outs: list[tuple[bytearray, bytes]] = []

    def submit(self, c: Command) -> None:
        fields: dict[str, Any] = {
            "rank_mask": c.mask, "flags": c.flags, "tag": c.tag, "dep_tag": c.dep_tag, "nbytes": c.amount
        }  # fmt: skip
        payload: bytes | None = None
        out: bytearray | None = None
        if c.opcode == Opcode.ACT_BCAST:
            payload = c.data
            fields.update(nbytes=len(c.data), buf_in=c.target)
        elif c.opcode == Opcode.RES_READ:
            out = bytearray(b"?" * c.amount)
            fields.update(buf_in=c.source, flags=c.flags | Flag.WIDE_RESULT)
        elif c.opcode == Opcode.COPY_RANK:
            fields.update(weight_addr=self.address + c.source, dst_addr=self.address + c.target)
        elif c.opcode == Opcode.GEMM_GU:
            fields.update(slot=99, tokens=1)
        elif c.opcode == Opcode.CFG_EXPERT:
            payload = self.config
            fields.update(slot=c.target, weight_addr=self.experts + c.source, stride=_ndp.crc32c(self.config))
        raw = bytearray(Descriptor(c.opcode, **fields).pack())
        if not c.intact:
            raw[8] ^= 4
        status = self.bench.fleet.submit(0, raw, payload=payload, out=out)
        assert status == self.model.submit(c)
        if out is not None and status == "OK":
            self.outs.append((out, bytes(out)))

    def act(self, action: Any) -> None:
        if isinstance(action, Command):
            self.submit(action)
        elif isinstance(action, float):
            to = self.model.now + action
            self.model.advance(to)
            self.bench.fleet.advance(0, to)
        elif action == "run":
            self.model.run()
            self.bench.fleet.advance(0)
        else:
            opcode = Opcode[action.upper()]
            assert self.bench.submit(opcode, tag=3) == "OK"
            self.model.abort(3, opcode)
        self.compare()

    def compare(self) -> None:
        model, bench = self.model, self.bench
        found = [(e.tag, e.opcode, e.status, e.start_ns, e.done_ns) for e in bench.drain()]
        assert [one[:3] for one in found] == [one[:3] for one in model.ended]
        for one, told in zip(found, model.ended, strict=True):
            assert one[3:] == pytest.approx(told[3:], abs=1e-6)
        model.ended.clear()
        counters = bench.counters
        names = ("host", "exclusive", "concurrent")
        assert counters["modes"] == [names[mode] for mode in model.state.modes]
        assert counters["experts"] == len(model.state.slots)
        assert [list(one) for one in counters["refreshes"]] == model.refreshes
        assert bench.fleet.read(0, self.address, MEMORY) == model.memory
        assert bench.now_ns == pytest.approx(model.now, abs=1e-6)
        written = [bytes(out) for out, before in self.outs if bytes(out) != before]
        assert sorted(written) == sorted(model.outs)

    def buffers(self) -> None:
        """What the ranks' buffers hold in the end."""
        self.act("run")
        self.bench.set_mode(1)
        for rank, wanted in enumerate(self.model.buffers):
            out = bytearray(BUFFER)
            ended = self.bench.do(
                Opcode.RES_READ, out=out, nbytes=BUFFER, rank_mask=1 << rank, flags=Flag.WIDE_RESULT
            )
            assert ended.status == "OK" and out == wanted


@pytest.mark.slow
@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.sampled_from([1, 2, 4]), actions)
def test_random_streams_end_as_in_the_model(ranks: int, stream: list[Any]) -> None:
    both = Both(ranks)
    both.act(Command(Opcode.MODE_SET, amount=1))
    for action in stream:
        both.act(action)
    both.buffers()


def drawn(choose: Callable[[int], int]) -> Command:
    """A command that is mostly right, so that rings fill and transfers overlap."""
    mask = (1, 2, 4, 8, 3, 12, 15)[choose(7)]
    shared: dict[str, Any] = {"mask": mask, "tag": choose(5), "dep_tag": choose(9) if choose(2) else 0}
    kind, size = choose(6), (64, 256, 1000)[choose(3)]
    if kind < 3:
        data = struct.pack("<I", choose(1 << 30)) * (size // 4)
        return Command(Opcode.ACT_BCAST, data=data, target=choose(BUFFER - size), **shared)
    if kind == 3:
        return Command(Opcode.RES_READ, amount=size, source=choose(BUFFER - size) // 4 * 4, **shared)
    if kind == 4:
        return Command(Opcode.COPY_RANK, amount=size, source=choose(24), target=choose(24), **shared)
    return Command(Opcode.MODE_SET, amount=1, **shared)


@pytest.mark.parametrize("seed", range(25))
def test_long_streams_end_as_in_the_model(seed: int) -> None:
    """Two hundred actions each, a few aborts and resets among them."""
    counter = itertools.count(seed * 1_000_003)

    def choose(below: int) -> int:
        return _ndp.crc32c(struct.pack("<Q", next(counter))) % below

    both = Both(4)
    both.act(Command(Opcode.MODE_SET, amount=1))
    for _ in range(200):
        kind = choose(40)
        if kind == 0:
            both.act("abort")
        elif kind == 1:
            both.act("reset")
            both.act(Command(Opcode.MODE_SET, amount=1))
        elif kind < 14:
            both.act(float(choose(90)))
        else:
            both.act(drawn(choose))
    both.buffers()


def test_a_model_that_is_wrong_is_noticed() -> None:
    both = Both(2)
    both.act(Command(Opcode.MODE_SET, amount=1))
    both.model.last_start += COMMAND_NS
    both.model.now += 0.0
    both.submit(Command(Opcode.NOP))
    with pytest.raises(AssertionError):
        both.act("run")
        both.act("run")
