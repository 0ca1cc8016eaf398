"""A keeper's HTTP calls and files: credential, fence, request memory, state, signals, TLS."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import ssl
import stat
from pathlib import Path

import aiohttp
import pytest

from support.keeper_clients import PlainClient, StreamClient, execute, texts
from support.keeper_process import (
    CREDENTIAL,
    NONCE,
    eventually,
    process_file,
    running_keeper,
)


async def test_every_call_needs_the_credential(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper, aiohttp.ClientSession() as stranger:
        calls = [("GET", "kernel"), ("GET", "log"), ("GET", "channels"), ("POST", "drain")]
        calls += [("POST", name) for name in ("fence", "start", "interrupt", "restart", "shutdown")]
        for method, call in calls:
            for value in (None, "Bearer wrong", f"Basic {CREDENTIAL}", CREDENTIAL, "Bearer "):
                headers = {} if value is None else {"Authorization": value}
                async with stranger.request(
                    method, f"{keeper.url}/v1/{call}", headers=headers
                ) as response:
                    assert response.status == 401, (call, value)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await stranger.ws_connect(f"{keeper.url}/v1/channels?session_id=s")
        assert refused.value.status == 401


async def test_a_connection_needs_a_grant(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await keeper.websocket("s", grants="")
        assert refused.value.status == 403


async def test_files_are_private_and_say_who_and_where(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        assert stat.S_IMODE(keeper.state_dir.stat().st_mode) == 0o700
        for path in keeper.state_dir.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        found = keeper.keeper_file()
        assert found["pid"] == keeper.pid
        assert f"http://{found['endpoint']['host']}:{found['endpoint']['port']}" == keeper.url
        fields = process_file(keeper.pid, "stat").rpartition(")")[2].split()
        assert found["start_time"] == int(fields[19])
        assert found["epoch"] == (await keeper.state())["epoch"]
        assert CREDENTIAL not in process_file(keeper.pid, "cmdline")
        assert CREDENTIAL not in keeper.log_text()


async def test_activity_follows_the_kernel(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.live()
        await client.send(execute("hang"))
        path = keeper.state_dir / "activity.json"
        await eventually(lambda: json.loads(path.read_text())["execution_state"] == "busy")
        activity = json.loads(path.read_text())
        assert activity["connections"] == 1
        assert activity["last_activity"].endswith("Z")


async def test_the_fence_refuses_lower_tokens_and_survives_a_kill(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        assert await keeper.post("fence", fence="1.7") == (200, {"fence": [1, 7]})
        status, body = await keeper.post("fence", fence="1.6")
        assert (status, body["reason"], body["fence"]) == (412, "stale_token", [1, 7])
        keeper.signal(signal.SIGKILL)
        await keeper.wait_ended()
    async with running_keeper(tmp_path / "k") as keeper:
        for call, body in (("start", {"nonce": NONCE}), ("restart", None), ("shutdown", None)):
            status, answer = await keeper.post(call, body, fence="1.6")
            assert (status, answer["fence"]) == (412, [1, 7]), call
        assert (await keeper.state())["incarnation"] == 0
        status, _ = await keeper.post("start", {"nonce": NONCE}, fence="2.1")
        assert status == 200


@pytest.mark.parametrize("fence", ["", "7", "x.y", "1.-2"])
async def test_a_fence_that_is_none_is_a_bad_request(tmp_path: Path, fence: str) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        headers = {"Holdfast-Fence": fence}
        async with keeper.http.post(f"{keeper.url}/v1/restart", headers=headers) as response:
            assert response.status == 400


async def test_start_is_for_one_nonce_and_happens_once(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", env={"FAKE_READY_DELAY": "0.2"}) as keeper:
        status, body = await keeper.post("start", {"nonce": "another"})
        assert (status, body["reason"]) == (409, "nonce_mismatch")
        answers = await asyncio.gather(*(keeper.post("start", {"nonce": NONCE}) for _ in range(5)))
        assert {(status, state["incarnation"]) for status, state in answers} == {(200, 1)}
        status, state = await keeper.post("start", {"nonce": NONCE})
        assert (status, state["incarnation"]) == (200, 1)


async def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", env={"FAKE_FAIL_START": "1"}) as keeper:
        status, body = await keeper.post("start", {"nonce": NONCE})
        assert (status, body["reason"]) == (500, "start_failed")
        assert "Traceback" in body["output"]


async def test_the_same_request_id_restarts_once(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", env={"FAKE_READY_DELAY": "0.2"}) as keeper:
        await keeper.start_kernel()
        answers = await asyncio.gather(
            *(keeper.post("restart", None, Holdfast_Request="r-1") for _ in range(3))
        )
        late = await keeper.post("restart", None, Holdfast_Request="r-1")
        assert [state["incarnation"] for _, state in [*answers, late]] == [2, 2, 2, 2]
        _, state = await keeper.post("restart", None, Holdfast_Request="r-2")
        assert state["incarnation"] == 3


async def test_a_retry_after_the_caller_vanished_gets_the_one_answer(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", env={"FAKE_READY_DELAY": "0.5"}) as keeper:
        await keeper.start_kernel()
        first = asyncio.ensure_future(keeper.post("restart", None, Holdfast_Request="r-1"))

        async def begun() -> bool:
            return bool((await keeper.state())["incarnation"] == 2)

        await eventually(begun)
        first.cancel()
        _, state = await keeper.post("restart", None, Holdfast_Request="r-1")
        assert (state["incarnation"], state["execution_state"]) == (2, "idle")


async def test_an_interrupt_does_not_overtake_the_cell(tmp_path: Path) -> None:
    """The call comes before the cell; it waits for it and stops it."""
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.run("echo one")
        call = asyncio.ensure_future(keeper.post("interrupt", None, Holdfast_After="s-1:2"))
        done, _ = await asyncio.wait({call}, timeout=0.3)
        assert not done, "it waits for message 2"
        cell = execute("hang")
        await client.send(cell)
        await client.until(lambda: client.done(cell))
        assert (await call)[0] == 200


async def test_an_interrupt_that_costs_the_reply_is_answered_in_its_place(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        await client.live()
        cell = execute("mute")
        await client.send(cell)
        assert (await keeper.post("interrupt", None, Holdfast_After="s-1:1"))[0] == 200
        await client.until(lambda: client.done(cell))
        reply = next(m for m in client.messages if m.channel == "shell").content_dict()
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
        assert "gave no reply" in reply["evalue"]
        idles = [
            m for m in client.messages if b'"idle"' in m.content and m.parent_id == cell.msg_id
        ]
        assert len(idles) == 1


@pytest.mark.parametrize("after", ["", "nocolon", "s:", ":1", "s:x"])
async def test_an_after_that_is_none_is_a_bad_request(tmp_path: Path, after: str) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        status, body = await keeper.post("interrupt", None, Holdfast_After=after)
        assert (status, body["reason"]) == (400, "bad_request")


async def test_an_interrupt_without_a_kernel_is_not_ready(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        status, body = await keeper.post("interrupt", None)
        assert (status, body["reason"]) == (503, "not_ready")


async def test_the_log_is_read_as_json_lines(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = PlainClient(keeper, "reader")
        client.pongs = False
        await client.connect()
        request, _ = await client.run("burst 30 10")

        async def read(query: str) -> list[dict[str, object]]:
            async with keeper.http.get(f"{keeper.url}/v1/log?{query}") as response:
                return [json.loads(line) for line in (await response.text()).splitlines()]

        lines = await read("from=1&session=reader&limit=1000")
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
        assert {line["channel"] for line in lines} == {"iopub", "shell"}
        assert {line["channel"] for line in await read("from=1")} == {"iopub"}
        assert [line["seq"] for line in await read("from=5&limit=3")] == [5, 6, 7]
        assert len(texts(client.messages, request)) == 30


async def test_signals_do_not_end_a_keeper_whose_kernel_lives(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        await keeper.start_kernel()
        client = StreamClient(keeper)
        await client.connect()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            keeper.signal(number)
        await eventually(lambda: keeper.log_text().count("keeper.signal_ignored") == 3)
        assert (await client.run("echo still"))[1] == ["still"]
        await client.send(execute("die"))
        await client.until_closed()
        keeper.signal(signal.SIGTERM)
        await keeper.wait_ended()


async def test_a_keeper_cannot_be_traced_or_dumped(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k") as keeper:
        # what prctl(2) says of PR_SET_DUMPABLE 0: /proc/<pid> then belongs to root
        assert os.stat(f"/proc/{keeper.pid}/mem").st_uid == 0
        await eventually(lambda: "keeper.ready" in keeper.log_text())


async def test_off_loopback_it_serves_tls_with_the_fingerprint_in_its_file(tmp_path: Path) -> None:
    async with running_keeper(tmp_path / "k", host="0.0.0.0") as keeper:  # noqa: S104
        found = keeper.keeper_file()
        port = found["endpoint"]["port"]
        pinned = aiohttp.Fingerprint(bytes.fromhex(found["fingerprint"]))
        url = f"https://127.0.0.1:{port}/v1/kernel"
        async with keeper.http.get(url, ssl=pinned) as response:
            assert response.status == 200
        wrong = aiohttp.Fingerprint(hashlib.sha256(b"another").digest())
        with pytest.raises(aiohttp.ServerFingerprintMismatch):
            await keeper.http.get(url, ssl=wrong)
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await keeper.http.get(f"http://127.0.0.1:{port}/v1/kernel")
        assert ssl.OPENSSL_VERSION
        assert [p.name for p in keeper.state_dir.iterdir() if "pem" in p.name] == []
