"""The log's storage against a model: whatever is appended, acknowledged and dropped, an entry
that the index names has its bytes, and a session never loses one without a recorded loss."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from holdfast_launcher.keeper.log.journal import REASON_DISK, REASON_FULL, Journal, Settling
from holdfast_launcher.keeper.log.segments import Segments
from holdfast_protocol.pieces import Pieces

KIB = 1024


def body(seq: int, size: int) -> bytes:
    return (b"%08d" % seq * (size // 8 + 1))[:size]


def read_all(journal: Journal, session: str, after: int) -> list[int]:
    found = []
    while (entry := journal.index.next_for(session, after)) is not None:
        assert journal.read(entry.seq) == body(entry.seq, entry.size)
        found.append(entry.seq)
        after = entry.seq
    return found


def test_what_fits_in_memory_never_touches_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path, memory_bytes=64 * KIB, disk_bytes=KIB * KIB)
    for seq in range(1, 11):
        journal.append(body(seq, KIB))
    assert journal.disk_size == 0
    assert list(tmp_path.iterdir()) == []


def test_older_entries_go_to_unnamed_files_and_are_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path, memory_bytes=16 * KIB, disk_bytes=1024 * KIB)
    journal.index.add_session("s", 0)
    for seq in range(1, 201):
        journal.append(body(seq, KIB))
    assert journal.memory_size <= 16 * KIB
    assert journal.disk_size >= 180 * KIB
    assert list(tmp_path.iterdir()) == [], "a segment has no name"
    assert read_all(journal, "s", 0) == list(range(1, 201))
    journal.close()


def test_a_long_entry_is_read_in_pieces_from_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path, memory_bytes=16 * KIB, disk_bytes=4096 * KIB)
    data = bytes(range(256)) * 4096
    seq = journal.append(data)
    assert journal.memory_size == 0, "it is longer than memory may hold"
    assert (
        b"".join(
            part
            for at in range(0, len(data), 100_000)
            for part in journal.read_part(seq, at, 100_000)
        )
        == data
    )


def test_acknowledged_entries_leave_memory_and_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path, memory_bytes=16 * KIB, disk_bytes=1024 * KIB)
    journal.index.add_session("s", 0)
    for seq in range(1, 101):
        journal.append(body(seq, KIB))
    journal.index.acknowledge("s", 100)
    journal.trim()
    assert (journal.memory_size, journal.disk_size, journal.index.floor) == (0, 0, 100)
    with pytest.raises(KeyError):
        journal.read(50)


def test_at_the_limit_the_oldest_go_and_the_reader_is_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path, memory_bytes=16 * KIB, disk_bytes=64 * KIB)
    journal.index.add_session("s", 0)
    for seq in range(1, 201):
        journal.append(body(seq, KIB))
    loss = journal.index.loss_for("s", 0)
    assert loss is not None
    assert (loss.first, loss.last, loss.count) == (1, journal.index.floor, journal.index.floor)
    assert loss.reason == REASON_FULL
    assert journal.index.size <= 80 * KIB
    assert read_all(journal, "s", 0) == list(range(loss.last + 1, 201))


def test_pressure_lets_go_of_the_long_absent_before_anything_unread(tmp_path: Path) -> None:
    def relieve() -> None:
        journal.index.set_holding("absent", False)

    journal = Journal(tmp_path, memory_bytes=8 * KIB, disk_bytes=32 * KIB, on_pressure=relieve)
    journal.index.add_session("absent", 0)
    journal.index.add_session("reader", 0)
    for seq in range(1, 101):
        journal.append(body(seq, KIB))
        journal.index.acknowledge("reader", seq)
        journal.trim()
    assert journal.index.loss_for("reader", 0) is None
    assert journal.index.loss_for("absent", 0) is not None


def test_a_read_that_fails_becomes_a_loss_and_the_rest_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, memory_bytes=8 * KIB, disk_bytes=1024 * KIB)
    journal.index.add_session("s", 0)
    for seq in range(1, 51):
        journal.append(body(seq, KIB))

    def broken(self: Segments, seq: int, offset: int = 0, length: int | None = None) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Segments, "read", broken)
    with pytest.raises(KeyError):
        journal.read(1)
    loss = journal.index.loss_for("s", 0)
    assert loss is not None
    assert loss.reason == REASON_DISK
    assert read_all(journal, "s", loss.last) == list(range(loss.last + 1, 51))


def test_a_burst_stays_in_memory_until_it_is_settled(tmp_path: Path) -> None:
    told: list[bool] = []
    journal = Journal(
        tmp_path,
        memory_bytes=1024 * KIB,
        burst_bytes=16 * 1024 * KIB,
        disk_bytes=64 * 1024 * KIB,
        on_unsettled=lambda: told.append(True),
    )
    journal.index.add_session("s", 0)
    for seq in range(1, 13):
        journal.append(body(seq, 1024 * KIB))
    assert (journal.disk_size, told) == (0, [True]), "told once"
    assert journal.settle() is Settling.MORE
    assert 0 < journal.disk_size < 8 * 1024 * KIB, "a slice"
    while journal.settle() is Settling.MORE:
        pass
    assert journal.memory_size <= 1024 * KIB
    assert read_all(journal, "s", 0) == list(range(1, 13))
    journal.append(body(13, 1024 * KIB))
    journal.append(body(14, 1024 * KIB))
    assert told == [True, True], "told again after it was settled"
    journal.close()


def test_a_burst_above_its_limit_goes_to_disk_at_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path, memory_bytes=8 * KIB, burst_bytes=64 * KIB, disk_bytes=1024 * KIB)
    for seq in range(1, 101):
        journal.append(body(seq, KIB))
        assert journal.memory_size <= 64 * KIB
    assert journal.disk_size > 0
    journal.close()


class JournalMachine(RuleBasedStateMachine):
    """Random appends, acknowledgements, new and leaving sessions, tiny limits."""

    @initialize(memory=st.integers(0, 4000), disk=st.integers(0, 8000), burst=st.integers(0, 9000))
    def begin(self, memory: int, disk: int, burst: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.journal = Journal(
            Path(self.directory.name), memory_bytes=memory, disk_bytes=disk, burst_bytes=burst
        )
        self.limit = memory + disk
        self.positions: dict[str, int] = {}

    @rule(size=st.integers(1, 3000), audience=st.sampled_from([None, "a", "b"]))
    def append(self, size: int, audience: str | None) -> None:
        seq = self.journal.index.head + 1
        assert self.journal.append(body(seq, size), audience) == seq

    @rule()
    def settle(self) -> None:
        self.journal.settle()

    @rule(name=st.sampled_from("ab"))
    def join(self, name: str) -> None:
        if name not in self.positions:
            self.journal.index.add_session(name)
            self.positions[name] = self.journal.index.head

    @rule(name=st.sampled_from("ab"), count=st.integers(1, 5))
    def read_and_acknowledge(self, name: str, count: int) -> None:
        if name not in self.positions:
            return
        index = self.journal.index
        for _ in range(count):
            loss = index.loss_for(name, self.positions[name])
            if loss is not None:
                self.positions[name] = loss.last
            elif (entry := index.next_for(name, self.positions[name])) is not None:
                assert self.journal.read(entry.seq) == body(entry.seq, entry.size)
                self.positions[name] = entry.seq
        index.acknowledge(name, self.positions[name])
        self.journal.trim()

    @rule(name=st.sampled_from("ab"))
    def leave(self, name: str) -> None:
        if self.positions.pop(name, None) is not None:
            self.journal.index.remove_session(name)
            self.journal.trim()

    @invariant()
    def what_the_index_names_has_its_bytes(self) -> None:
        if not hasattr(self, "journal"):
            return
        index = self.journal.index
        index.check_invariants()
        for seq in range(index.floor + 1, index.head + 1):
            entry = index.entry(seq)
            assert entry is not None
            assert self.journal.read(seq) == body(seq, entry.size)
        assert index.size <= self.limit or index.floor + 1 == index.head

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            self.directory.cleanup()


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_readers_that_take_a_burst_are_not_disturbed_and_slow_ones_are(tmp_path: Path) -> None:
    journal = Journal(
        tmp_path, memory_bytes=64 * KIB, disk_bytes=65536 * KIB, burst_bytes=16384 * KIB
    )
    journal.index.add_session("s", 0)
    for _ in range(160):
        journal.append(bytes(64 * KIB))

    def take(entries: int) -> None:
        journal.index.acknowledge("s", journal.index.acknowledged("s") + entries)
        journal.trim()

    take(40)
    assert journal.settle() is Settling.LATER
    assert journal.disk_size == 0
    take(10)
    assert journal.settle() is Settling.MORE
    assert journal.disk_size > 0
    while journal.settle() is Settling.MORE:
        take(1)
    assert journal.memory_size <= 64 * KIB, "a reader that only trickles costs disk"
    journal.close()


def test_a_message_in_pieces_is_read_back_from_memory_and_from_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path, memory_bytes=256 * KIB, disk_bytes=4096 * KIB)
    journal.index.add_session("s", 0)
    parts = [b"head", bytes(range(256)) * 1000, b"", memoryview(b"tail" * 10_000)]
    whole = b"".join(parts)
    for _ in range(4):
        journal.append(Pieces(parts))
        journal.append(b"short")
    assert journal.disk_size > 0
    for seq in (1, 3, 5, 7):
        assert bytes(journal.read(seq)) == whole
        assert b"".join(journal.read_part(seq, 3, 300_000)) == whole[3:300_003]
        assert journal.read(seq + 1) == b"short"
    assert journal.index.size == 4 * (len(whole) + 5)
    journal.close()


def test_more_buffers_than_one_call_takes_are_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path, memory_bytes=64 * KIB, disk_bytes=65536 * KIB)
    parts = [bytes([number % 256]) * 16 * KIB for number in range(1500)]
    journal.append(Pieces(parts))
    assert journal.memory_size == 0
    assert journal.read(1) == b"".join(parts)
    journal.close()
