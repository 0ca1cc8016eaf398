"""What a proxy may ask of a launcher, against a real one in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

from launcher_process import LauncherProcess, keeper_call, new_id, proc, process_of, until

from holdfast_launcher.environment import MARK, kernel_mark
from holdfast_launcher.processes import ProcessId, marked


async def test_put_starts_a_keeper_and_a_repeated_put_finds_it(launcher: LauncherProcess) -> None:
    kernel_id = new_id()
    first = await launcher.put(kernel_id)
    again = await launcher.put(kernel_id, fence="1.11")
    assert first.status == again.status == 200
    assert again.body == first.body
    assert first.body["alive"] is True
    assert process_of(first.body).running
    assert (await launcher.get(kernel_id)).body == first.body
    assert first.body in (await launcher.call("GET", "/v1/kernels")).body["kernels"]


async def test_the_keeper_left_session_and_group_of_the_launcher(launcher: LauncherProcess) -> None:
    handle = (await launcher.put(new_id())).body
    pid = handle["engine_handle"]["pid"]
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert f"PPid:\t{launcher.pid}\n" in proc(pid, "status"), (
        "reparented to the launcher, its subreaper"
    )


async def test_another_nonce_is_refused_while_the_first_lives(launcher: LauncherProcess) -> None:
    kernel_id = new_id()
    await launcher.put(kernel_id, nonce="one")
    reply = await launcher.put(kernel_id, nonce="two", fence="1.11")
    assert (reply.status, reply.body["reason"]) == (409, "nonce_mismatch")
    assert (await launcher.get(kernel_id)).body["nonce"] == "one"


async def test_a_lower_token_is_refused_by_every_fenced_call(launcher: LauncherProcess) -> None:
    kernel_id = new_id()
    await launcher.put(kernel_id, fence="2.5")
    answers = [
        await launcher.put(kernel_id, fence="2.4"),
        await launcher.put(kernel_id, fence="1.900"),
        await launcher.delete(kernel_id, fence="2.4"),
        await launcher.call("POST", f"/v1/kernels/{kernel_id}/fence", fence="2.4"),
    ]
    for reply in answers:
        assert reply.status == 412
        assert reply.body["reason"] == "stale_token"
        assert reply.body["fence"] == [2, 5]
    assert (await launcher.get(kernel_id)).body["alive"] is True


async def test_a_fenced_call_without_a_token_is_refused(launcher: LauncherProcess) -> None:
    path = f"/v1/kernels/{new_id()}"
    for method in ("PUT", "DELETE"):
        reply = await launcher.call(method, path, body={"nonce": "n", "user": "ada"})
        assert (reply.status, reply.body["reason"]) == (400, "no_fence")
    assert (await launcher.call("DELETE", path, fence="-1.3")).status == 400


async def test_ten_puts_of_one_start_make_one_keeper(launcher: LauncherProcess) -> None:
    kernel_id = new_id()
    replies = await asyncio.gather(*(launcher.put(kernel_id) for _ in range(10)))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body["engine_handle"]["pid"] for reply in replies}) == 1


async def test_ten_kernels_at_once(launcher: LauncherProcess) -> None:
    ids = [new_id() for _ in range(10)]
    replies = await asyncio.gather(*(launcher.put(kernel_id) for kernel_id in ids))
    assert [reply.status for reply in replies] == [200] * 10
    assert [reply.body["kernel_id"] for reply in replies] == ids
    assert len({reply.body["endpoint"]["port"] for reply in replies}) == 10
    assert all(process_of(reply.body).running for reply in replies)


async def test_delete_ends_keeper_kernel_and_what_the_kernel_started(
    launcher: LauncherProcess,
) -> None:
    kernel_id = new_id()
    handle = (await launcher.put(kernel_id)).body
    kernel = ProcessId.of((await keeper_call(handle, "POST", "/v1/start")).body["pid"])
    mark = json.loads((launcher.directory(kernel_id) / "launch.json").read_text())
    assert kernel is not None
    assert mark["nonce"] == "n1"
    assert (await launcher.delete(kernel_id)).body == {"gone": True}
    # Proven when it was answered, not some time later.
    assert not process_of(handle).running
    assert not kernel.running
    assert not launcher.directory(kernel_id).exists()
    gone = (await launcher.get(kernel_id)).body
    assert (gone["alive"], gone["reason"]) == (False, "it was deleted")
    assert (await launcher.delete(kernel_id)).body == {"gone": True}


async def test_delete_finds_a_process_that_left_the_kernels_group(
    launcher: LauncherProcess,
) -> None:
    kernel_id = new_id()
    handle = (await launcher.put(kernel_id)).body
    await keeper_call(handle, "POST", "/v1/start")
    left_group = await _processes_of(launcher, kernel_id, count=2)
    assert (await launcher.delete(kernel_id)).body == {"gone": True}
    assert not any(process.running for process in left_group)


async def test_delete_of_what_was_never_known(launcher: LauncherProcess) -> None:
    kernel_id = new_id()
    assert (await launcher.get(kernel_id)).status == 404
    assert (await launcher.delete(kernel_id, fence="1.3")).body == {"gone": True}
    assert (await launcher.get(kernel_id)).body["alive"] is False
    assert (await launcher.put(kernel_id, fence="1.2")).status == 412


async def test_a_start_that_was_deleted_never_begins_again(launcher: LauncherProcess) -> None:
    kernel_id = new_id()
    await launcher.put(kernel_id, nonce="one")
    await launcher.delete(kernel_id)
    late = await launcher.put(kernel_id, nonce="one")
    assert (late.status, late.body["reason"]) == (409, "deleted")
    assert (await launcher.put(kernel_id, nonce="two")).status == 200


async def test_a_deaf_keeper_is_killed(launcher: LauncherProcess) -> None:
    kernel_id = new_id()
    handle = (await launcher.put(kernel_id, env={"KERNEL_FAKE": "deaf"})).body
    assert (await launcher.delete(kernel_id)).body == {"gone": True}
    assert not process_of(handle).running


async def test_a_token_that_only_the_keeper_has_seen_stops_a_delete(
    launcher: LauncherProcess,
) -> None:
    kernel_id = new_id()
    handle = (await launcher.put(kernel_id, fence="1.10")).body
    await keeper_call(handle, "POST", "/v1/fence", fence="1.30")
    reply = await launcher.delete(kernel_id, fence="1.20")
    assert (reply.status, reply.body["fence"]) == (412, [1, 30])
    assert process_of(handle).running
    assert (await launcher.put(kernel_id, fence="1.29")).status == 412


async def test_a_keeper_that_ends_at_its_start_is_an_error_with_its_last_words(
    launcher: LauncherProcess,
) -> None:
    kernel_id = new_id()
    reply = await launcher.put(kernel_id, env={"KERNEL_FAKE": "exit"})
    assert (reply.status, reply.body["reason"]) == (500, "start_failed")
    assert "exit code 7" in reply.body["message"]
    assert "no more disk" in reply.body["message"]
    assert (await launcher.get(kernel_id)).body["reason"] == reply.body["message"]
    assert (await launcher.put(kernel_id)).status == 200, "nothing ran: it may be tried again"


async def test_what_cannot_be_is_refused_before_anything_is_done(
    launcher: LauncherProcess,
) -> None:
    odd_id = new_id()
    unknown = await launcher.put(odd_id, spec="cobol")
    assert (unknown.status, unknown.body["reason"]) == (404, "unknown_kernelspec")
    odd = await launcher.call("PUT", "/v1/kernels/..%2f..%2fetc", fence="1.1", body={})
    assert odd.status in (400, 404)
    short = await launcher.call("PUT", f"/v1/kernels/{new_id()}", fence="1.1", body={"user": "a"})
    assert (short.status, short.body["reason"]) == (400, "bad_request")
    assert "nonce" in short.body["message"]
    assert not launcher.directory(odd_id).exists()


async def test_every_call_needs_the_access_token(launcher: LauncherProcess) -> None:
    for method, path in (
        ("GET", "/v1/kernels"),
        ("PUT", f"/v1/kernels/{new_id()}"),
        ("GET", "/v1/kernelspecs"),
        ("GET", "/nothing/here"),
    ):
        reply = await launcher.call(method, path, fence="1.1", token="wrong")
        assert (reply.status, reply.body["reason"]) == (401, "unauthorized")


async def test_kernelspecs_and_their_files(launcher: LauncherProcess) -> None:
    model = (await launcher.call("GET", "/v1/kernelspecs")).body
    assert model["default"] == "python3"
    entry = model["kernelspecs"]["python3"]
    assert entry["spec"]["language"] == "python"
    assert entry["resources"]["logo-64x64"] == "/kernelspecs/python3/logo-64x64.png"
    logo = await launcher.call("GET", "/v1/kernelspecs/python3/logo-64x64.png")
    assert logo.body["raw"].startswith(b"\x89PNG")
    assert logo.headers["Content-Type"] == "image/png"
    for path in ("kernel.json", "nothing.png", "..%2f..%2f..%2fetc%2fpasswd"):
        reply = await launcher.call("GET", f"/v1/kernelspecs/python3/{path}")
        assert reply.status == 404


async def test_files_are_private(launcher: LauncherProcess) -> None:
    await launcher.put(new_id())
    paths = [launcher.state, *launcher.state.rglob("*")]
    assert any(path.name == "keeper.log" for path in paths)
    for path in paths:
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), f"{path}: {mode:04o}"


async def test_no_secret_in_any_argv_environment_or_log(own_launcher: LauncherProcess) -> None:
    """Of launcher, zygote, keeper and kernel; the kernel gets none of the launcher's variables."""
    own_launcher.settings["join_token"] = "join-me-secretly"
    own_launcher.process._env["AWS_SECRET_ACCESS_KEY"] = "launchers-own"  # type: ignore[index]
    own_launcher.start()
    kernel_id = new_id()
    env = {"KERNEL_TOPIC": "tides", "LD_PRELOAD": "/tmp/x.so", "PATH": "/evil", "OTHER": "1"}
    handle = (await own_launcher.put(kernel_id, env=env)).body
    kernel_pid = (await keeper_call(handle, "POST", "/v1/start")).body["pid"]
    keeper_pid = handle["engine_handle"]["pid"]
    zygote_pids = _children(own_launcher.pid) - {keeper_pid}
    assert len(zygote_pids) == 1
    secrets = [own_launcher.token, handle["credential"], "join-me-secretly"]
    for pid in {own_launcher.pid, keeper_pid, kernel_pid, *zygote_pids}:
        for name in ("cmdline", "environ"):
            content = proc(pid, name)
            assert not [secret for secret in secrets if secret in content]
            assert "launchers-own" not in content or pid == own_launcher.pid
    kernel_env = proc(kernel_pid, "environ").split("\0")
    assert "KERNEL_TOPIC=tides" in kernel_env
    assert f"KERNEL_ID={kernel_id}" in kernel_env
    assert "PATH=" + os.environ["PATH"] in kernel_env
    assert not [item for item in kernel_env if item.startswith(("LD_PRELOAD", "OTHER"))]
    logs = own_launcher.process.log.read_text()
    logs += (own_launcher.directory(kernel_id) / "keeper.log").read_text()
    assert not [secret for secret in secrets if secret in logs]
    assert "LD_PRELOAD" in logs, "who set a variable in vain is told why it is not there"


async def _processes_of(
    launcher: LauncherProcess, kernel_id: str, *, count: int
) -> list[ProcessId]:
    launched = json.loads((launcher.directory(kernel_id) / "launch.json").read_text())
    mark = kernel_mark(kernel_id, launched["nonce"])

    async def enough() -> list[ProcessId] | None:
        found = marked(MARK, mark)
        return found if len(found) >= count else None

    return await until(enough, what=f"{count} processes of the kernel")


def _children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
