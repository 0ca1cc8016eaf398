"""Records: they come back as they were, keep what they do not know, and name what is wrong."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_protocol.errors import InvalidState, RecordError
from holdfast_protocol.kernel_records import (
    TRANSITIONS,
    Endpoint,
    KernelEvent,
    KernelRecord,
    KernelState,
    Step,
    Tombstone,
    advance,
    bury,
    decode_kernel,
    next_step,
)
from holdfast_protocol.keys import SINGLE, Keys, Kind
from holdfast_protocol.record_codec import Record
from holdfast_protocol.records import (
    ActivityRecord,
    ConfigRecord,
    CredentialRecord,
    EventRecord,
    KernelReport,
    LauncherRecord,
    OwnerRecord,
    ProxyRecord,
)

KERNEL = KernelRecord(
    spec_name="python3",
    user="ada",
    launcher_id="l",
    nonce="n",
    digest="d",
    state=KernelState.RUNNING,
    changed="2026-01-01T00:00:00.000000Z",
    sealed_launch="s",
    endpoint=Endpoint(host="127.0.0.1", port=1234),
    sealed_credential="c",
    epoch="e",
    engine_handle={"pid": 1},
    incarnation=2,
    kernel_session="k",
)
RECORDS: list[Record] = [
    ProxyRecord(url="http://x", boot_id="b", software="0.1", fingerprint="ab"),
    OwnerRecord(proxy_id="p", claim_id="c"),
    ConfigRecord(mode="active-active", era=1),
    LauncherRecord(
        url="http://x",
        fingerprint=None,
        sealed_access_token="s",
        boot_id="b",
        engine="local",
        labels={"gpu": True},
        capacity={"kernels": 3},
        kernelspecs_digest="d",
    ),
    CredentialRecord(sha256="00"),
    ActivityRecord(kernels={"k": KernelReport(nonce="n", alive=False, reason="killed")}),
    EventRecord(kind="died", at="2026", proxy_id="p", kernel_id="k", detail="x"),
    EventRecord(kind="taken over", at="2026", proxy_id="p", facts={"from": "q"}, mark="m"),
    KERNEL,
    Tombstone(user="u", nonce="n", launcher_id="l", deleted_at="2026"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    assert type(record).decode(record.encode()) == record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_unknown_fields_survive_a_rewrite(record: Record) -> None:
    document = {**json.loads(record.encode()), "of_a_newer_version": {"x": [1, None]}}
    read = type(record).decode(json.dumps(document).encode())
    assert json.loads(replace(read).encode()) == document


def test_unknown_fields_of_nested_records_survive_too() -> None:
    document = json.loads(KERNEL.encode())
    document["endpoint"]["zone"] = "west"
    assert json.loads(KernelRecord.decode(json.dumps(document).encode()).encode()) == document


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_wrong_field_is_named(record: Record) -> None:
    document = json.loads(record.encode())
    for name in document:
        broken = {**document, name: [[]]}
        with pytest.raises(RecordError, match=name):
            type(record).decode(json.dumps(broken).encode())


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_version_is_refused_with_what_to_do(version: int) -> None:
    document = {**json.loads(KERNEL.encode()), "version": version}
    with pytest.raises(RecordError, match="upgrade"):
        decode_kernel(json.dumps(document).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_a_record_error(data: bytes) -> None:
    for decode in (decode_kernel, OwnerRecord.decode, LauncherRecord.decode):
        with pytest.raises(RecordError):
            decode(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.sampled_from(list(json.loads(KERNEL.encode()))), json_values)
def test_any_field_may_be_anything(name: str, value: Any) -> None:
    document = {**json.loads(KERNEL.encode()), name: value}
    try:
        record = decode_kernel(json.dumps(document).encode())
    except RecordError:
        return
    assert decode_kernel(record.encode()) == record


def test_secrets_are_not_in_a_repr() -> None:
    record = replace(KERNEL, sealed_credential="hush1", sealed_launch="hush2")
    assert "hush" not in repr(record)


# --- states ---------------------------------------------------------------------------------------


def in_state(state: KernelState) -> KernelRecord:
    reason = "why" if state is KernelState.DEAD else None
    return replace(KERNEL, state=state, reason=reason)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(KernelState, KernelEvent)))
def test_records_move_only_as_the_table_says(state: KernelState, event: KernelEvent) -> None:
    fields = {"reason": "why"} if event is KernelEvent.DIED else {}
    record, wanted = in_state(state), TRANSITIONS.get((state, event))
    if wanted is None:
        with pytest.raises(InvalidState):
            advance(record, event, changed="later", **fields)
        return
    after = advance(record, event, changed="later", **fields)
    assert after.state is wanted
    assert after.changed == ("later" if wanted is not state else record.changed)


def test_every_state_can_be_ended_and_none_comes_back() -> None:
    reach = {
        state: {to for (of, _), to in TRANSITIONS.items() if of is state} for state in KernelState
    }
    assert reach[KernelState.DELETING] == set()
    assert reach[KernelState.DEAD] == {KernelState.DELETING}
    assert all(
        KernelState.DELETING in targets or state is KernelState.DELETING
        for state, targets in reach.items()
    )


def test_the_next_step_is_told_for_every_record() -> None:
    starting = in_state(KernelState.STARTING)
    tombstone = bury(in_state(KernelState.DELETING), deleted_at="now")
    assert next_step(None) is Step.REST
    assert next_step(tombstone) is Step.REST
    assert next_step(replace(starting, endpoint=None)) is Step.LAUNCH
    assert next_step(starting) is Step.BEGIN
    assert next_step(in_state(KernelState.RUNNING)) is Step.REST
    assert next_step(in_state(KernelState.DEAD)) is Step.BURY
    assert next_step(replace(in_state(KernelState.DEAD), buried=True)) is Step.REST
    assert next_step(in_state(KernelState.DELETING)) is Step.ERASE


@pytest.mark.parametrize("state", [s for s in KernelState if s is not KernelState.DELETING])
def test_only_what_is_being_deleted_gets_a_tombstone(state: KernelState) -> None:
    with pytest.raises(InvalidState):
        bury(in_state(state), deleted_at="now")


@pytest.mark.parametrize(
    "broken",
    [
        {"endpoint": None},
        {"sealed_credential": None},
        {"epoch": None},
        {"state": KernelState.DEAD, "reason": None},
    ],
)
def test_a_record_that_breaks_an_invariant_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        decode_kernel(replace(KERNEL, **broken).encode())
    with pytest.raises(RecordError):
        replace(KERNEL, **broken).check_invariants()


# --- keys -----------------------------------------------------------------------------------------


@given(st.sampled_from(Kind), st.text(min_size=1, max_size=20).filter(lambda s: "/" not in s))
def test_keys_are_read_back(kind: Kind, name: str) -> None:
    keys = Keys("c")
    if kind in SINGLE:
        with pytest.raises(ValueError, match="cannot name"):
            keys.of(kind, name + "x" if name == kind.value else name)
        assert keys.parse(keys.of(kind, kind.value)) == (kind, kind.value)
        return
    assert keys.parse(keys.of(kind, name)) == (kind, name)
    assert keys.of(kind, name).startswith(keys.all_of(kind))


@pytest.mark.parametrize("name", ["", "a/b", "/"])
def test_a_name_with_a_slash_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        Keys("c").of(Kind.KERNEL, name)


@pytest.mark.parametrize(
    "key",
    ["/other/x", "/holdfast/c/v1/config/x", "/holdfast/c/v1/new_kind/x", "/holdfast/c/v1/kernels/"],
)
def test_what_is_not_of_the_layout_passes_by(key: str) -> None:
    assert Keys("c").parse(key) is None
