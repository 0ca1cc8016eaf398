"""What every `Store` promises about reads, transactions and leases; both twins must pass."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_proxy.store.contract import (
    MAX_TXN_BYTES,
    MAX_TXN_OPS,
    Compare,
    CreateEquals,
    Delete,
    Deleted,
    DeletePrefix,
    Found,
    Get,
    KeyValue,
    ModEquals,
    Op,
    Put,
    Store,
    Stored,
    ValueEquals,
)
from holdfast_proxy.store.errors import LeaseLost, Misuse


async def put(store: Store, key: str, value: bytes, lease: int = 0) -> int:
    """The revision."""
    result = await store.txn([], [Put(key, value, lease)], unconditional=True)
    return result.revision


async def read(store: Store, key: str) -> KeyValue:
    kv = await store.get(key)
    assert kv is not None, f"{key} is absent"
    return kv


async def wait_absent(store: Store, key: str) -> None:
    snapshot = await store.range(key)
    async with store.watch(key, start_revision=snapshot.revision + 1) as watch:
        async with asyncio.timeout(20):
            while await store.get(key) is not None:
                await anext(watch)


# --- reading


async def test_an_absent_key_is_none(store: Store, prefix: str) -> None:
    assert await store.get(prefix + "a") is None
    assert await store.get(prefix + "a", serializable=True) is None


async def test_a_key_carries_its_history_in_numbers(store: Store, prefix: str) -> None:
    first = await put(store, prefix + "a", b"one")
    assert await store.get(prefix + "a") == KeyValue(prefix + "a", b"one", first, first, 1, 0)
    second = await put(store, prefix + "a", b"two")
    assert second > first
    assert await store.get(prefix + "a") == KeyValue(prefix + "a", b"two", first, second, 2, 0)


async def test_a_key_made_again_begins_anew(store: Store, prefix: str) -> None:
    first = await put(store, prefix + "a", b"one")
    await store.txn([ModEquals(prefix + "a", first)], [Delete(prefix + "a")])
    again = await put(store, prefix + "a", b"one")
    assert await store.get(prefix + "a") == KeyValue(prefix + "a", b"one", again, again, 1, 0)


async def test_any_bytes_and_any_text_survive(store: Store, prefix: str) -> None:
    key, value = prefix + "ключ-鍵-🔑", bytes(range(256))
    await put(store, key, value)
    assert (await read(store, key)).value == value
    await put(store, key, b"")
    assert (await read(store, key)).value == b""


async def test_a_range_is_the_prefix_sorted_and_nothing_else(store: Store, prefix: str) -> None:
    for name in ("b/2", "a", "b/1", "b/é", "b/z", "c", "b0"):
        revision = await put(store, prefix + name, name.encode())
    snapshot = await store.range(prefix + "b/")
    assert [kv.key.removeprefix(prefix) for kv in snapshot] == ["b/1", "b/2", "b/z", "b/é"]
    assert len(snapshot) == 4
    assert snapshot.revision >= revision
    assert (await store.range(prefix + "nothing/")).kvs == ()
    assert (await store.range(prefix + "b/", serializable=True)).kvs == snapshot.kvs


async def test_another_client_reads_what_was_written(
    store: Store, other: Store, prefix: str
) -> None:
    for number in range(20):
        await put(store, prefix + "a", b"%d" % number)
        assert (await read(other, prefix + "a")).value == b"%d" % number


# --- transactions


async def test_create_if_absent_is_won_once(store: Store, prefix: str) -> None:
    claims = [
        store.txn([ModEquals(prefix + "a", 0)], [Put(prefix + "a", b"%d" % n)], [Get(prefix + "a")])
        for n in range(10)
    ]
    results = await asyncio.gather(*claims)
    (winner,) = [result for result in results if result.succeeded]
    for result in results:
        if not result.succeeded:
            (found,) = result.responses
            assert isinstance(found, Found)
            assert found.kv is not None
            assert found.kv.mod_revision == winner.revision


@pytest.mark.parametrize("kind", ["mod", "create", "value"])
async def test_each_compare_holds_and_fails(store: Store, prefix: str, kind: str) -> None:
    key = prefix + "a"
    created = await put(store, key, b"one")
    changed = await put(store, key, b"two")
    right: dict[str, Compare] = {
        "mod": ModEquals(key, changed),
        "create": CreateEquals(key, created),
        "value": ValueEquals(key, b"two"),
    }
    wrong: dict[str, Compare] = {
        "mod": ModEquals(key, created),
        "create": CreateEquals(key, changed),
        "value": ValueEquals(key, b"one"),
    }
    assert (await store.txn([right[kind]], [])).succeeded
    assert not (await store.txn([wrong[kind]], [])).succeeded
    assert not (await store.txn([right[kind], ModEquals(key, 0)], [])).succeeded, "all must hold"


async def test_compares_on_an_absent_key(store: Store, prefix: str) -> None:
    key = prefix + "a"
    assert (await store.txn([ModEquals(key, 0)], [])).succeeded
    assert (await store.txn([CreateEquals(key, 0)], [])).succeeded
    assert not (await store.txn([ValueEquals(key, b"")], [])).succeeded
    await put(store, key, b"")
    assert not (await store.txn([ModEquals(key, 0)], [])).succeeded
    assert not (await store.txn([CreateEquals(key, 0)], [])).succeeded
    assert (await store.txn([ValueEquals(key, b"")], [])).succeeded


async def test_operations_run_in_order_at_one_revision(store: Store, prefix: str) -> None:
    await put(store, prefix + "old/1", b"x")
    await put(store, prefix + "old/2", b"x")
    result = await store.txn(
        [ModEquals(prefix + "a", 0)],
        [
            Get(prefix + "a"),
            Put(prefix + "a", b"1"),
            Get(prefix + "a"),
            DeletePrefix(prefix + "old/"),
            Delete(prefix + "none"),
            Put(prefix + "b", b"2"),
        ],
    )
    revision = result.revision
    assert result.responses == (
        Found(None),
        Stored(),
        Found(KeyValue(prefix + "a", b"1", revision, revision, 1)),
        Deleted(2),
        Deleted(0),
        Stored(),
    )
    snapshot = await store.range(prefix)
    assert [(kv.value, kv.mod_revision) for kv in snapshot] == [(b"1", revision), (b"2", revision)]


async def test_the_other_branch_runs_when_a_compare_fails(store: Store, prefix: str) -> None:
    then: list[Op] = [Put(prefix + "then", b"")]
    otherwise: list[Op] = [Put(prefix + "otherwise", b"")]
    result = await store.txn([ModEquals(prefix + "a", 1)], then, otherwise)
    assert (result.succeeded, result.responses) == (False, (Stored(),))
    assert [kv.key for kv in await store.range(prefix)] == [prefix + "otherwise"]


async def test_a_transaction_that_changes_nothing_makes_no_revision(
    store: Store, prefix: str
) -> None:
    revision = await put(store, prefix + "a", b"")
    lost = await store.txn([ModEquals(prefix + "a", 0)], [Put(prefix + "a", b"x")])
    nothing = await store.txn([ModEquals(prefix + "a", revision)], [Delete(prefix + "none")])
    assert (lost.revision, nothing.revision) == (revision, revision)
    assert await put(store, prefix + "b", b"") == revision + 1


async def test_rising_counter_under_contention_loses_no_step(
    store: Store, other: Store, prefix: str
) -> None:
    key = prefix + "counter"
    await put(store, key, b"0")

    async def count(client: Store) -> None:
        done = 0
        while done < 10:
            kv = await read(client, key)
            step = Put(key, b"%d" % (int(kv.value) + 1))
            done += (await client.txn([ModEquals(key, kv.mod_revision)], [step])).succeeded

    await asyncio.gather(count(store), count(other), count(store))
    assert (await read(store, key)).value == b"30"


# --- misuse, which never reaches the store


@pytest.mark.parametrize(
    ("compares", "then"),
    [
        pytest.param([], [Put("a", b"")], id="no compare"),
        pytest.param([], [Delete("a")], id="no compare for a delete"),
        pytest.param([ModEquals("a", 0)], [Put("a", b""), Put("a", b"")], id="put twice"),
        pytest.param([ModEquals("a", 0)], [Put("a", b""), Delete("a")], id="put and deleted"),
        pytest.param([ModEquals("a", 0)], [DeletePrefix("a/"), Put("a/b", b"")], id="in prefix"),
        pytest.param([ModEquals("a", 0)], [Put("", b"")], id="empty key"),
        pytest.param([ModEquals("a", 0)], [DeletePrefix("")], id="everything"),
        pytest.param([ModEquals("", 0)], [], id="empty key in a compare"),
        pytest.param([ModEquals("a", -1)], [], id="negative revision"),
        pytest.param([ModEquals("a", 0)], [Put("a", b"x" * MAX_TXN_BYTES)], id="too large"),
        pytest.param([ModEquals("a", 0)], [Get("a")] * (MAX_TXN_OPS + 1), id="too many"),
    ],
)
async def test_a_transaction_that_breaks_the_contract_is_refused(
    store: Store, compares: list[Compare], then: list[Op]
) -> None:
    with pytest.raises(Misuse):
        await store.txn(compares, then)


async def test_unconditional_must_be_said_and_be_meant(store: Store, prefix: str) -> None:
    with pytest.raises(Misuse):
        await store.txn([ModEquals(prefix, 0)], [], unconditional=True)
    with pytest.raises(Misuse):
        await store.txn([], [], [Put(prefix, b"")], unconditional=True)
    assert (await store.txn([], [Get(prefix + "a")], unconditional=True)).succeeded


async def test_the_largest_transactions_pass(store: Store, prefix: str) -> None:
    puts: list[Op] = [Put(f"{prefix}{n}", b"") for n in range(MAX_TXN_OPS)]
    compares: list[Compare] = [ModEquals(f"{prefix}{n}", 0) for n in range(MAX_TXN_OPS)]
    assert (await store.txn(compares, puts)).succeeded
    key = prefix + "large"
    value = b"x" * (MAX_TXN_BYTES - 2 * len(key))
    assert (await store.txn([ModEquals(key, 0)], [Put(key, value)])).succeeded
    assert (await read(store, key)).value == value


@pytest.mark.parametrize("key", ["", "a\0b"])
async def test_keys_that_etcd_reads_otherwise_are_refused(store: Store, key: str) -> None:
    with pytest.raises(Misuse):
        await store.get(key)
    with pytest.raises(Misuse):
        await store.range(key)


async def test_a_closed_store_is_misuse(store: Store, prefix: str) -> None:
    await store.close()
    await store.close()
    with pytest.raises(Misuse):
        await store.get(prefix)
    with pytest.raises(Misuse):
        await store.txn([ModEquals(prefix, 0)], [])
    with pytest.raises(Misuse):
        store.watch(prefix, start_revision=1)
    with pytest.raises(Misuse):
        await store.lease_keepalive(1)


# --- leases


async def test_a_lease_takes_its_keys_along_when_it_expires(
    store: Store, other: Store, prefix: str
) -> None:
    lease = await store.lease_grant(1)
    assert lease > 0
    await put(store, prefix + "a", b"", lease)
    await put(store, prefix + "b", b"")
    assert (await read(other, prefix + "a")).lease == lease
    await wait_absent(other, prefix + "a")
    assert [kv.key for kv in await store.range(prefix)] == [prefix + "b"]
    with pytest.raises(LeaseLost) as caught:
        await store.lease_keepalive(lease)
    assert caught.value.lease == lease


async def test_a_kept_lease_outlives_its_time(store: Store, prefix: str) -> None:
    kept, left = await store.lease_grant(1), await store.lease_grant(1)
    await put(store, prefix + "kept", b"", kept)
    await put(store, prefix + "left", b"", left)

    async def keep() -> None:
        while True:
            assert await store.lease_keepalive(kept) >= 1
            await asyncio.sleep(0.1)

    keeper = asyncio.create_task(keep())
    await wait_absent(store, prefix + "left")
    assert not keeper.done(), keeper
    keeper.cancel()
    assert (await read(store, prefix + "kept")).lease == kept


async def test_revoking_deletes_at_once_and_may_be_repeated(store: Store, prefix: str) -> None:
    lease = await store.lease_grant(60)
    await put(store, prefix + "a", b"", lease)
    await put(store, prefix + "b", b"", lease)
    await store.lease_revoke(lease)
    assert (await store.range(prefix)).kvs == ()
    await store.lease_revoke(lease)
    with pytest.raises(LeaseLost):
        await store.lease_keepalive(lease)


async def test_a_put_under_a_lost_lease_applies_nothing(store: Store, prefix: str) -> None:
    lease = await store.lease_grant(60)
    await store.lease_revoke(lease)
    with pytest.raises(LeaseLost) as caught:
        await store.txn(
            [ModEquals(prefix + "a", 0)], [Put(prefix + "a", b""), Put(prefix + "b", b"", lease)]
        )
    assert caught.value.lease == lease
    assert (await store.range(prefix)).kvs == ()


async def test_a_lost_lease_in_the_branch_not_taken_is_of_no_matter(
    store: Store, prefix: str
) -> None:
    lease = await store.lease_grant(60)
    await store.lease_revoke(lease)
    result = await store.txn(
        [ModEquals(prefix + "a", 1)], [Put(prefix + "a", b"", lease)], [Put(prefix + "b", b"")]
    )
    assert not result.succeeded
    assert [kv.key for kv in await store.range(prefix)] == [prefix + "b"]


async def test_putting_without_the_lease_detaches_the_key(store: Store, prefix: str) -> None:
    first, second = await store.lease_grant(60), await store.lease_grant(60)
    for name in ("detached", "moved"):
        await put(store, prefix + name, b"", first)
    await put(store, prefix + "detached", b"")
    await put(store, prefix + "moved", b"", second)
    await store.lease_revoke(first)
    assert [kv.lease for kv in await store.range(prefix)] == [0, second]


@pytest.mark.parametrize("ttl", [0, -1, 100_000_000])
async def test_a_lease_without_a_sane_time_is_refused(store: Store, ttl: float) -> None:
    with pytest.raises(Misuse):
        await store.lease_grant(ttl)


async def test_status_names_the_leader_among_the_members(store: Store) -> None:
    status = await store.status()
    assert status.leader in {member.id for member in status.members}
    assert status.member in {member.id for member in status.members}
    assert status.version
