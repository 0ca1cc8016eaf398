"""Hypothesis's choices for a stream's story: which step comes next, and where the bytes are cut."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from simulation.stream_world import StreamWorld

SIZES = st.sampled_from([0, 0, 40, 500, 1500, 4000])
#: What the kernel says at once: some fills the log.
OUTPUT = st.lists(st.sampled_from([0, 500, 1500, 20_000]), min_size=1, max_size=5)
BYTES = st.one_of(st.just(1 << 20), st.integers(1, 3000))


class StreamStory(RuleBasedStateMachine):
    """A subclass may play in another ``world_type``, whose parts are broken on purpose."""

    world_type = StreamWorld

    def __init__(self) -> None:
        super().__init__()
        self._directory = Path(tempfile.mkdtemp(prefix="holdfast-stream-"))
        self.world = self.world_type(self._directory)

    @initialize()
    def first_connection(self) -> None:
        self.world.flow(rounds=2)

    @rule(rounds=st.integers(1, 2), sends=st.integers(0, 2), says=OUTPUT)
    def things_go_well(self, rounds: int, sends: int, says: list[int]) -> None:
        """Without this, most stories would never get anywhere."""
        for _ in range(sends if self.world.unanswered < 10 else 0):
            self.world.client_sends(40)
        for size in says if self.world.kernel.ready else []:
            self.world.kernel_says(size)
        self.world.flow(rounds=rounds)

    @precondition(lambda self: self.world.wire is None)
    @rule()
    def dial(self) -> None:
        self.world.dial()

    @precondition(lambda self: self.world.wire is not None)
    @rule(up=st.integers(0, 5000), down=st.integers(0, 5000))
    def cut(self, up: int, down: int) -> None:
        self.world.wire.cut(up, down)

    @precondition(lambda self: self.world.wire is not None)
    @rule()
    def client_notices(self) -> None:
        self.world.client_notices()

    @precondition(lambda self: any(wire.keeper_there for wire in self.world.wires))
    @rule(data=st.data())
    def keeper_notices(self, data: st.DataObject) -> None:
        """Only of what is broken, or left by the client."""
        gone = [w for w in self.world.wires if w.keeper_there and (w.broken or not w.client_there)]
        if gone:
            self.world.keeper_notices(data.draw(st.sampled_from(gone)))

    @precondition(lambda self: any(wire.up for wire in self.world.wires))
    @rule(data=st.data(), size=BYTES)
    def keeper_reads(self, data: st.DataObject, size: int) -> None:
        some = [wire for wire in self.world.wires if wire.up]
        self.world.keeper_reads(data.draw(st.sampled_from(some)), size)

    @precondition(lambda self: any(wire.keeper_there for wire in self.world.wires))
    @rule(data=st.data(), acks=st.booleans())
    def keeper_writes(self, data: st.DataObject, acks: bool) -> None:
        there = [wire for wire in self.world.wires if wire.keeper_there]
        wire = data.draw(st.sampled_from(there))
        if acks:
            self.world.keeper_acks(wire)
        self.world.keeper_writes(wire)

    @precondition(lambda self: self.world.wire is not None and self.world.wire.down)
    @rule(size=BYTES)
    def client_reads(self, size: int) -> None:
        self.world.client_reads(size)

    @precondition(lambda self: self.world.unanswered < 10)
    @rule(size=SIZES)
    def client_sends(self, size: int) -> None:
        self.world.client_sends(size)

    @precondition(lambda self: self.world.wire is not None)
    @rule(max_bytes=st.sampled_from([1, 600, 1 << 16]))
    def client_writes(self, max_bytes: int) -> None:
        self.world.client_writes(max_bytes)

    @rule(share=st.floats(0, 1), ack=st.booleans())
    def client_consumes(self, share: float, ack: bool) -> None:
        self.world.client_consumes(share)
        if ack:
            self.world.client_acks()

    @precondition(lambda self: self.world.kernel.ready)
    @rule(sizes=OUTPUT)
    def kernel_says(self, sizes: list[int]) -> None:
        for size in sizes:
            self.world.kernel_says(size)

    @precondition(lambda self: self.world.kernel.ready)
    @rule(size=SIZES)
    def kernel_answers_other(self, size: int) -> None:
        self.world.kernel_answers_other(size)

    @precondition(lambda self: self.world.kernel.open)
    @rule()
    def kernel_answers(self) -> None:
        self.world.kernel_answers()

    @precondition(lambda self: self.world.kernel.ready)
    @rule(state=st.sampled_from(["restarting", "starting", "dead"]))
    def kernel_ends(self, state: str) -> None:
        self.world.kernel_ends(state)

    @precondition(lambda self: self.world.kernel.ready and self.world.unanswered < 7)
    @rule(before=st.integers(0, 2), meanwhile=st.integers(0, 3))
    def kernel_restarts(self, before: int, meanwhile: int) -> None:
        """With requests given to it before, and some that come while there is none."""
        for number in (before, meanwhile):
            for _ in range(number):
                self.world.client_sends(10)
            self.world.flow(rounds=2)
            if self.world.kernel.ready:
                self.world.kernel_ends("restarting")
        self.world.kernel_ready()

    @precondition(lambda self: not self.world.kernel.ready)
    @rule()
    def kernel_ready(self) -> None:
        self.world.kernel_ready()

    @rule()
    def keeper_dies(self) -> None:
        self.world.keeper_dies()

    @rule(remembers=st.booleans())
    def shim_dies(self, remembers: bool) -> None:
        self.world.shim_dies(remembers=remembers)

    @rule(leaves=st.booleans())
    def other_page(self, leaves: bool) -> None:
        self.world.other_page(leaves=leaves)

    @rule(age=st.sampled_from([10.0, 1000.0]))
    def long_absence(self, age: float) -> None:
        self.world.long_absence(age)

    @invariant()
    def nothing_is_broken(self) -> None:
        world = self.world
        world.judge.look(world.client, world.keeper, world.kernel)

    def teardown(self) -> None:
        try:
            self.world.settle()
        finally:
            self.world.keeper.journal.close()
            shutil.rmtree(self._directory, ignore_errors=True)
