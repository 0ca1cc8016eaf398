"""Waiting for a channel to connect: nobody who waits is left behind."""

from __future__ import annotations

import asyncio

import grpc

from holdfast_proxy.store.endpoints import Channel

State = grpc.ChannelConnectivity


class FakeGrpcChannel:
    """gRPC's connectivity, changed by the test."""

    def __init__(self) -> None:
        self.state = State.IDLE
        self.asked_to_connect = False
        self.closed = False

    def get_state(self, try_to_connect: bool = False) -> State:
        self.asked_to_connect |= try_to_connect
        return self.state

    async def close(self) -> None:
        self.closed = True


def channel_on(fake: FakeGrpcChannel) -> Channel:
    channel = Channel("fake:1", None)
    channel._channel = fake
    return channel


def wait(channel: Channel, *, fail_fast: bool = False) -> asyncio.Task[bool]:
    return asyncio.create_task(channel.wait_ready(20, fail_fast=fail_fast))


async def ended(*tasks: asyncio.Task[bool]) -> list[bool]:
    async with asyncio.timeout(5):
        return list(await asyncio.gather(*tasks))


async def test_a_connection_is_noticed_by_everybody_who_waits() -> None:
    fake = FakeGrpcChannel()
    channel = channel_on(fake)
    waiting = [wait(channel) for _ in range(3)]
    await asyncio.sleep(0)
    assert fake.asked_to_connect
    fake.state = State.CONNECTING
    late = wait(channel)
    await asyncio.sleep(0)
    fake.state = State.READY
    assert await ended(*waiting, late, wait(channel)) == [True] * 5


async def test_a_failure_is_reported_at_once_only_where_there_are_others() -> None:
    fake = FakeGrpcChannel()
    channel = channel_on(fake)
    fake.state = State.TRANSIENT_FAILURE
    hasty, patient = wait(channel, fail_fast=True), wait(channel)
    assert await ended(hasty) == [False]
    assert not patient.done()
    fake.state = State.READY
    assert await ended(patient) == [True]


async def test_patience_ends() -> None:
    channel = channel_on(FakeGrpcChannel())
    assert await channel.wait_ready(0.05, fail_fast=False) is False


async def test_a_channel_that_was_never_used_closes_too() -> None:
    await Channel("fake:1", None).close()
    fake = FakeGrpcChannel()
    await channel_on(fake).close()
    assert fake.closed
