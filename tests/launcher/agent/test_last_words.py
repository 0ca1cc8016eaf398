"""What a kernel and its keeper wrote, also when they are gone: within bounds, and for a day."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from datetime import datetime
from pathlib import Path

from launcher_process import LauncherProcess, new_id

from holdfast_launcher.agent.last_words import LastWords
from holdfast_launcher.state.statefiles import remove_directory


def kernel(kernels: Path, name: str, *, output: str = "", keeper: str = "") -> Path:
    directory = kernels / name
    (directory / "kernel").mkdir(parents=True)
    (directory / "kernel" / "output.log").write_text(output)
    (directory / "keeper.log").write_text(keeper)
    return directory


def words(tmp_path: Path, **changes: object) -> LastWords:
    (tmp_path / "kernels").mkdir(exist_ok=True)
    return LastWords(tmp_path / "kernels", **changes)  # type: ignore[arg-type]  # the clock


def test_the_last_lines_of_both(tmp_path: Path) -> None:
    last = words(tmp_path)
    kernel(tmp_path / "kernels", "k", output="one\ntwo\nthree\n", keeper="up\n")
    assert last.read("k", lines=2) == {"kernel": "two\nthree", "keeper": "up"}
    assert last.read("k", lines=0) == {"kernel": "", "keeper": ""}
    assert last.read("other", lines=2) is None


def test_a_long_file_is_read_from_the_beginning_of_a_line(tmp_path: Path) -> None:
    last = words(tmp_path)
    text = "".join(f"line {n}\n" for n in range(100_000))
    kernel(tmp_path / "kernels", "k", output=text)
    found = last.read("k", lines=1_000_000)
    assert found is not None
    lines = found["kernel"].splitlines()
    assert len(found["kernel"]) < 200_000
    assert lines[-1] == "line 99999"
    assert lines == [f"line {n}" for n in range(100_000 - len(lines), 100_000)]


def test_a_link_that_a_kernel_made_is_not_followed(tmp_path: Path) -> None:
    last = words(tmp_path)
    directory = kernel(tmp_path / "kernels", "k")
    secret = tmp_path / "secret"
    secret.write_text("of the launcher")
    (directory / "kernel" / "output.log").unlink()
    (directory / "kernel" / "output.log").symlink_to(secret)
    assert last.read("k", lines=10) == {"kernel": "", "keeper": ""}
    (directory / "kernel" / "output.log").unlink()
    os.mkfifo(directory / "kernel" / "output.log")
    assert last.read("k", lines=10) == {"kernel": "", "keeper": ""}, "and a pipe does not hang us"


def test_they_outlive_the_directory_for_a_day(tmp_path: Path) -> None:
    now = [time.time()]
    last = words(tmp_path, clock=lambda: now[0])
    directory = kernel(tmp_path / "kernels", "k", output="why\n")
    last.keep(directory)
    remove_directory(directory)
    assert last.read("k", lines=10) == {"kernel": "why", "keeper": ""}
    kept = tmp_path / "last_words" / "k.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    now[0] += 86_500
    assert last.read("k", lines=10) is None, "also when no other kernel dies"
    last.keep(kernel(tmp_path / "kernels", "other"))
    assert not kept.exists()


def test_they_are_bounded_in_number(tmp_path: Path) -> None:
    last = words(tmp_path)
    directory = kernel(tmp_path / "kernels", "k", output="x" * 100_000)
    for number in range(210):
        last.keep(directory.rename(tmp_path / "kernels" / f"k{number}"))
        directory = tmp_path / "kernels" / f"k{number}"
    kept = list((tmp_path / "last_words").iterdir())
    assert len(kept) == 200
    assert max(file.stat().st_size for file in kept) < 40_000


async def test_a_launcher_tells_them_and_its_time(launcher: LauncherProcess) -> None:
    kernel_id = new_id()
    await launcher.put(kernel_id)
    reply = await launcher.call("GET", f"/v1/kernels/{kernel_id}/output?lines=5")
    assert (reply.status, reply.body["output"].keys()) == (200, {"kernel", "keeper"})
    unknown = await launcher.call("GET", f"/v1/kernels/{new_id()}/output")
    assert (unknown.status, unknown.body["reason"]) == (404, "no_such_kernel")
    assert (await launcher.call("GET", f"/v1/kernels/{kernel_id}/output?lines=x")).status == 400
    about = (await launcher.call("GET", "/v1/launcher")).body
    assert about["version"]
    skew = datetime.fromisoformat(about["time"]).timestamp() - time.time()
    assert abs(skew) < 5


async def test_of_a_kernel_that_was_well_nothing_is_kept(launcher: LauncherProcess) -> None:
    kernel_id = new_id()
    await launcher.put(kernel_id)
    assert (await launcher.delete(kernel_id)).status == 200
    reply = await launcher.call("GET", f"/v1/kernels/{kernel_id}/output")
    assert reply.status == 404


async def test_of_a_keeper_that_died_they_are_kept(launcher: LauncherProcess) -> None:
    kernel_id = new_id()
    handle = (await launcher.put(kernel_id)).body
    os.kill(handle["engine_handle"]["pid"], 9)
    async with asyncio.timeout(10):
        while (await launcher.get(kernel_id)).body.get("alive", True):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (await launcher.delete(kernel_id, fence="1.99")).status == 200
    reply = await launcher.call("GET", f"/v1/kernels/{kernel_id}/output")
    assert reply.status == 200, "somebody will ask why"
