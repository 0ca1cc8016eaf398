"""``/api/kernels``: starts, the list, interrupt, restart, end."""

from __future__ import annotations

import uuid

from conformance.suite.api import UNKNOWN, Api, check_error, check_kernel
from conformance.suite.registry import JUPYTER_SERVER, KERNEL_GATEWAY, case


@case("kernels")
async def start_without_body(api: Api) -> None:
    """POST without a body starts the default kernel: 201 and Location"""
    answer = await api.ask("POST", "api/kernels")
    assert answer.status == 201
    check_kernel(answer.body)
    try:
        assert answer.body["name"] == (await api.get("api/kernelspecs"))["default"]
        prefix = "/" + api.url.split("/", 3)[3]
        assert answer.headers["Location"] == f"{prefix}api/kernels/{answer.body['id']}"
    finally:
        await api.ask("DELETE", f"api/kernels/{answer.body['id']}")


@case("kernels")
async def start_by_name(api: Api) -> None:
    """POST with a name starts that kernel, and it is in the list and by its id"""
    model = await api.start(name="python3")
    assert model["name"] == "python3"
    listed = {item["id"]: item for item in await api.get("api/kernels")}
    check_kernel(listed[model["id"]])
    check_kernel(await api.get(f"api/kernels/{model['id']}"))
    assert (await api.ask("DELETE", f"api/kernels/{model['id']}")).status == 204


@case(
    "kernels",
    {
        JUPYTER_SERVER: "500, or 501 for a session, with a traceback in its log.",
        KERNEL_GATEWAY: "500 with a traceback in its answer.",
    },
)
async def start_of_unknown_kernelspec(api: Api) -> None:
    """POST with an unknown kernelspec is the client's mistake: 400 or 404"""
    answer = await api.ask("POST", "api/kernels", json_body={"name": "no-such-kernel"})
    check_error(answer, 400, 404)


@case("kernels")
async def start_with_bad_json(api: Api) -> None:
    """POST with a body that is no JSON is 400"""
    check_error(await api.ask("POST", "api/kernels", data=b'{"name": '), 400)


@case(
    "kernels",
    {
        JUPYTER_SERVER: "500: it takes the body for an object without looking.",
        KERNEL_GATEWAY: "500: it takes the body for an object without looking.",
    },
)
async def start_with_wrong_types(api: Api) -> None:
    """POST with a list, or with a number for a name, is 400"""
    check_error(await api.ask("POST", "api/kernels", json_body=[]), 400)
    check_error(await api.ask("POST", "api/kernels", json_body=["python3"]), 400)
    check_error(await api.ask("POST", "api/kernels", json_body={"name": 7}), 400)


@case("kernels", {JUPYTER_SERVER: "It takes no environment with a start; only gateways do."})
async def environment(api: Api) -> None:
    """Variables named KERNEL_… reach the kernel, others do not"""
    env = {"KERNEL_CONFORMANCE": "it's $HOME", "CONFORMANCE_OTHER": "x"}
    async with api.kernel(env=env) as kernel_id, api.connect(kernel_id) as channel:
        names = ("KERNEL_CONFORMANCE", "CONFORMANCE_OTHER")
        code = f"import os; print([os.environ.get(name) for name in {names}])"
        assert (await channel.execute(code)).text == '["it\'s $HOME", None]\n'


@case(
    "kernels",
    {
        JUPYTER_SERVER: "It takes no environment with a start; only gateways do.",
        KERNEL_GATEWAY: "It chooses the id itself, so that a start cannot be repeated.",
    },
)
async def kernel_id_of_the_client(api: Api) -> None:
    """KERNEL_ID in the environment is the kernel's id"""
    wanted = str(uuid.uuid4())
    async with api.kernel(env={"KERNEL_ID": wanted}) as kernel_id:
        assert kernel_id == wanted


_RESTART = "Restart is 500 there; the others are 404."


@case("kernels", {JUPYTER_SERVER: _RESTART, KERNEL_GATEWAY: _RESTART})
async def unknown_kernel(api: Api) -> None:
    """GET, DELETE, interrupt and restart of an unknown kernel are 404"""
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/interrupt"),
        ("POST", "/restart"),
    ):
        check_error(await api.ask(method, f"api/kernels/{UNKNOWN}{path}"), 404)


@case("kernels")
async def kernel_id_that_is_none(api: Api) -> None:
    """An id that is no UUID is 404"""
    assert (await api.ask("GET", "api/kernels/not-an-id")).status == 404


@case("kernels")
async def end(api: Api) -> None:
    """DELETE is 204; then the kernel is 404 and not in the list, and a second DELETE is 404"""
    kernel_id = (await api.start())["id"]
    assert (await api.ask("DELETE", f"api/kernels/{kernel_id}")).status == 204
    assert (await api.ask("GET", f"api/kernels/{kernel_id}")).status == 404
    assert kernel_id not in [item["id"] for item in await api.get("api/kernels")]
    assert (await api.ask("DELETE", f"api/kernels/{kernel_id}")).status == 404


@case("kernels")
async def interrupt(api: Api) -> None:
    """Interrupt is 204 and stops a running cell"""
    kernel_id = await api.shared_kernel()
    async with api.connect(kernel_id) as channel:
        msg_id = await channel.begin("print('on', flush=True)\nimport time; time.sleep(60)")
        first = await channel.gather(msg_id, until=lambda found: "on" in found.text)
        assert not first.complete
        assert (await api.ask("POST", f"api/kernels/{kernel_id}/interrupt")).status == 204
        found = await channel.gather(msg_id)
        assert found.reply["content"]["ename"] == "KeyboardInterrupt"


@case("kernels")
async def restart(api: Api) -> None:
    """Restart answers the model of the same kernel, whose variables are gone"""
    async with api.kernel() as kernel_id:
        async with api.connect(kernel_id) as channel:
            await channel.execute("x = 1")
        answer = await api.ask("POST", f"api/kernels/{kernel_id}/restart", json_body={})
        assert answer.status == 200
        assert answer.body["id"] == kernel_id
        check_kernel(answer.body)
        async with api.connect(kernel_id) as channel:
            assert (await channel.execute("print('x' in globals())")).text == "False\n"


@case("kernels")
async def state_and_connections(api: Api) -> None:
    """The model says busy while a cell runs, idle after it, and how many connections there are"""
    kernel_id = await api.shared_kernel()
    async with api.connect(kernel_id) as channel:
        msg_id = await channel.begin("input()", stdin=True)
        await channel.gather(msg_id, until=lambda found: bool(found.of("input_request")))
        await api.wait_state(kernel_id, "busy")
        assert (await api.get(f"api/kernels/{kernel_id}"))["connections"] == 1
        await channel.send("input_reply", {"value": "", "status": "ok"}, channel="stdin")
        await channel.gather(msg_id)
        await api.wait_state(kernel_id, "idle")


@case("kernels")
async def activity(api: Api) -> None:
    """`last_activity` moves with what the kernel does"""
    kernel_id = await api.shared_kernel()
    before = (await api.get(f"api/kernels/{kernel_id}"))["last_activity"]
    async with api.connect(kernel_id) as channel:
        await channel.execute("pass")
    await api.wait_state(kernel_id, "idle")
    assert (await api.get(f"api/kernels/{kernel_id}"))["last_activity"] > before
