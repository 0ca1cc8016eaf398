"""Notebooks on a real Slurm: the everyday, the queue, and each thing that can fail."""

from __future__ import annotations

import asyncio
import time

import pytest

from support.figures import keep, report
from support.notebook import Notebook, notebook
from support.printer import PrinterCell
from support.slurm.gateway import PATIENCE, SlurmGateway, until

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(600)]
STARTS = 5


async def test_the_everyday(gateway: SlurmGateway) -> None:
    starts: list[float] = []
    for _ in range(STARTS):
        begun = time.monotonic()
        async with gateway.kernel() as book:
            assert (await book.run("print(6 * 7)", PATIENCE)).text == "42\n"
            starts.append(time.monotonic() - begun)
    report("slurm start to first answer", starts)
    async with gateway.kernel() as book:
        await book.run("x = 1", PATIENCE)
        cell = await book.execute("import time\nprint('on', flush=True)\ntime.sleep(600)")
        await cell.wait_text("on")
        begun = time.monotonic()
        assert (await book.rest("POST", "/interrupt"))[0] == 204
        await cell.wait_done(PATIENCE)
        figure = {"interrupt": time.monotonic() - begun}
        assert cell.reply_content["ename"] == "KeyboardInterrupt"
        begun = time.monotonic()
        assert (await book.rest("POST", "/restart"))[0] == 200
        figure["restart"] = time.monotonic() - begun
        assert "NameError" in str((await book.run("x", PATIENCE)).reply_content)
        number = (await gateway.job_of(book.kernel_id))["job_id"]
        begun = time.monotonic()
        assert (await book.rest("DELETE", ""))[0] == 204
        figure["shutdown"] = time.monotonic() - begun
        await gateway.wait_gone(number)
    keep({"figure": "slurm", **{name: round(value, 2) for name, value in figure.items()}})


async def test_a_full_cluster_says_what_it_waits_for(gateway: SlurmGateway) -> None:
    blocker = gateway.site.fill()
    status, body, seconds = await gateway.post()
    assert (status, body["execution_state"]) == (201, "starting")
    keep({"figure": "slurm POST to a full cluster", "seconds": round(seconds, 2)})
    async with notebook(gateway.url, gateway.cluster.token, kernel_id=body["id"]) as book:
        cell = await book.execute("print('at last')")
        await cell.wait_for(lambda: "is in Slurm's queue" in stream_text(book), PATIENCE)
        assert "(Slurm: " in (await gateway.model(body["id"]))["reason"]
        gateway.site.run("scancel", blocker)
        await cell.wait_done(PATIENCE)
        assert cell.text == "at last\n"
    assert await gateway.delete(body["id"]) == 204


async def test_a_start_that_waits_can_be_cancelled(gateway: SlurmGateway) -> None:
    blocker = gateway.site.fill()
    try:
        _, body, _ = await gateway.post()
        number = (await gateway.job_of(body["id"]))["job_id"]
        assert await gateway.delete(body["id"]) == 204
        await gateway.wait_gone(number)
    finally:
        gateway.site.run("scancel", blocker)


async def test_more_than_a_limit_is_refused_and_the_limit_named(gateway: SlurmGateway) -> None:
    status, body, _ = await gateway.post(KERNEL_MEMORY="64G")
    assert status >= 400
    assert "limits.memory = 16G" in body["message"]
    status, body, _ = await gateway.post(KERNEL_MEMORY="15G")
    assert status >= 400
    assert "Slurm refused the job" in body["message"]


async def test_the_launcher_is_killed_and_started_again(gateway: SlurmGateway) -> None:
    async with gateway.kernel() as book:
        await book.run("x = 41", PATIENCE)
        gateway.cluster.launcher.kill()
        assert (await book.run("x += 1; print(x)", PATIENCE)).text == "42\n"
        gateway.cluster.launcher.start()
        assert (await book.run("print(x)", PATIENCE)).text == "42\n"
        assert (await book.rest("POST", "/restart"))[0] == 200


async def test_the_launcher_is_killed_between_submit_and_record(gateway: SlurmGateway) -> None:
    gateway.kill_caller_of_sbatch()
    posting = asyncio.create_task(gateway.post())
    await until(lambda: not gateway.cluster.launcher.alive, what="the launcher was killed")
    gateway.cluster.launcher.start()
    status, body, _ = await posting
    assert status in (201, 503), body  # 503: the answer went with the launcher, the start goes on
    async with notebook(gateway.url, gateway.cluster.token, kernel_id=body["id"]) as book:
        assert (await book.run("print(6 * 7)", PATIENCE)).text == "42\n"
    jobs = [job for job in gateway.site.jobs() if body["id"] in job["comment"]]
    assert len(jobs) == 1, "it was submitted once"
    assert await gateway.delete(body["id"]) == 204


async def test_a_proxy_is_killed_in_mid_cell(gateway: SlurmGateway) -> None:
    server = gateway.cluster.jupyter("slurm-notebook")
    cell = PrinterCell(1, 600, gateway.bin_dir / "ran.txt")
    async with notebook(server.url, server.token) as book:
        await book.run("1", PATIENCE)
        running = await book.execute(cell.code)
        await running.wait_text("1:100\n", PATIENCE)
        victim = gateway.cluster.carrier(server.process.pid)
        killed = gateway.cluster.proxies[victim].kill()
        await running.wait_done(PATIENCE)
        cell.check(running)
        silence = running.longest_silence(killed)
        keep({"figure": "slurm proxy killed in mid-cell", "silence_s": round(silence, 2)})
        gateway.cluster.start_proxy(victim)
        assert (await book.rest("DELETE", ""))[0] == 204


async def test_the_controller_is_killed_and_started_again(gateway: SlurmGateway) -> None:
    async with gateway.kernel() as book:
        await book.run("x = 1", PATIENCE)
        gateway.site.controller.kill()
        assert (await book.run("x += 1; print(x)", PATIENCE)).text == "2\n"
        status, body, _ = await gateway.post()
        assert status >= 500, body  # a start waits: nobody can say that it was taken
        gateway.site.controller.start()
        await asyncio.to_thread(gateway.site.wait_up)
        assert (await book.run("print(x)", PATIENCE)).text == "2\n"
        model = await gateway.model(book.kernel_id)
        assert model["execution_state"] == "idle"
    assert await gateway.delete(body["id"]) in (204, 404)  # the start that waited


async def test_a_job_that_is_started_twice_has_one_kernel(gateway: SlurmGateway) -> None:
    side = gateway.bin_dir / "kernels.txt"
    async with gateway.kernel() as book:
        job = await gateway.job_of(book.kernel_id)
        await until(
            lambda: any(one["job_id"] == job["job_id"] for one in gateway.site.running()),
            what="the job runs",
        )
        gateway.site.controller.kill()
        gateway.site.controller.start()
        await asyncio.to_thread(gateway.site.wait_up)
        code = f"import os\nprint(os.getpid(), file=open({str(side)!r}, 'a'))\nprint('here')"
        assert (await book.run(code, PATIENCE)).text == "here\n"
        assert len(side.read_text().split()) == 1
        alive = await gateway.model(book.kernel_id)
        assert alive["execution_state"] in ("idle", "busy")


async def test_pre_emption_is_announced_and_named(gateway: SlurmGateway) -> None:
    async with gateway.kernel(KERNEL_PARTITION="spare") as book:
        cell = await book.execute("import time\nprint('on', flush=True)\ntime.sleep(600)")
        await cell.wait_text("on", PATIENCE)
        blocker = gateway.site.fill(partition="main")
        try:
            await cell.wait_for(lambda: "Slurm takes this kernel's place" in cell.stderr, PATIENCE)
            assert "pre-empted" in await reason_of_death(gateway, book)
        finally:
            gateway.site.run("scancel", blocker)


async def test_too_much_memory_is_named(gateway: SlurmGateway) -> None:
    async with gateway.kernel(KERNEL_MEMORY="400M") as book:
        await book.execute("import time\nb = b'x' * (900 * 2**20)\ntime.sleep(600)")
        assert "more memory than its job has" in await reason_of_death(gateway, book)


async def test_a_lost_node_is_named(gateway: SlurmGateway) -> None:
    async with gateway.kernel() as book:
        await book.run("1", PATIENCE)
        job = await gateway.job_of(book.kernel_id)
        node = gateway.site.nodes[int(job["nodes"].removeprefix("n")) - 1]
        node.kill()
        gateway.site.end_leftovers(node=job["nodes"])
        begun = time.monotonic()
        assert "machine on" in await reason_of_death(gateway, book)
        keep({"figure": "slurm node lost, until it is said", "s": round(time.monotonic() - begun)})
        node.start()
        await asyncio.to_thread(gateway.site.wait_up)


async def test_a_time_limit_is_announced_and_named(gateway: SlurmGateway) -> None:
    async with gateway.kernel(KERNEL_TIME="1m") as book:
        cell = await book.execute("import time\nprint('on', flush=True)\ntime.sleep(600)")
        await cell.wait_text("on", PATIENCE)
        await cell.wait_for(lambda: "time limit of 1 minute" in cell.stderr, PATIENCE)
        assert "time limit" in await reason_of_death(gateway, book, seconds=200)


def stream_text(book: Notebook) -> str:
    return "".join(
        str(message.content_dict().get("text", ""))
        for _, message in book.everything
        if message.msg_type == "stream"
    )


async def reason_of_death(
    gateway: SlurmGateway, book: Notebook, *, seconds: float = PATIENCE
) -> str:
    """What the kernel's model says once it is dead."""
    deadline = time.monotonic() + seconds
    while True:
        model = await gateway.model(book.kernel_id)
        if model.get("execution_state") == "dead":
            return str(model["reason"])
        assert time.monotonic() < deadline, f"not dead: {model}"
        await asyncio.sleep(0.2)
