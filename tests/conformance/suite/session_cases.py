"""``/api/sessions``: which document has which kernel."""

from __future__ import annotations

import uuid
from typing import Any

from conformance.suite.api import UNKNOWN, Api, check_error, check_kernel
from conformance.suite.registry import JUPYTER_SERVER, KERNEL_GATEWAY, case

_OLD_MODEL = (
    "Its sessions are kept as before version 5 of the API: `notebook.path` only, without path, "
    "name and type, a new one for each POST, and a kernel's id is not looked at."
)
_OLD = {KERNEL_GATEWAY: _OLD_MODEL}


def check_session(model: dict[str, Any]) -> None:
    """What ``@jupyterlab/services`` checks."""
    for name in ("id", "path", "name", "type"):
        assert isinstance(model[name], str), (name, model)
    check_kernel(model["kernel"])


async def listed(api: Api) -> dict[str, dict[str, Any]]:
    return {model["id"]: model for model in await api.get("api/sessions")}


@case("sessions", _OLD)
async def open_and_list(api: Api) -> None:
    """POST opens a session with its kernel; it is in the list and by its id"""
    async with api.open_session(path="a/b.ipynb", name="b.ipynb") as model:
        check_session(model)
        assert (model["path"], model["name"]) == ("a/b.ipynb", "b.ipynb")
        assert model["notebook"]["path"] == "a/b.ipynb"
        assert model["kernel"]["name"] == "python3"
        found = (await listed(api))[model["id"]]
        check_session(found)
        single = await api.get(f"api/sessions/{model['id']}")
        assert single["kernel"]["id"] == found["kernel"]["id"] == model["kernel"]["id"]
        await api.get(f"api/kernels/{model['kernel']['id']}")


@case("sessions", _OLD)
async def location(api: Api) -> None:
    """POST is 201 and says where the session is"""
    body = {"path": uuid.uuid4().hex, "type": "console", "name": "c"}
    answer = await api.ask("POST", "api/sessions", json_body=body)
    assert answer.status == 201
    prefix = "/" + api.url.split("/", 3)[3]
    assert answer.headers["Location"] == f"{prefix}api/sessions/{answer.body['id']}"
    assert "notebook" not in answer.body
    assert (await api.ask("DELETE", f"api/sessions/{answer.body['id']}")).status == 204


@case("sessions", _OLD)
async def open_twice(api: Api) -> None:
    """POST for a path that has a session answers that session"""
    async with api.open_session() as first:
        body = {"path": first["path"], "type": "notebook", "name": "", "kernel": {}}
        again = await api.ask("POST", "api/sessions", json_body=body)
        assert again.status == 201
        assert again.body["id"] == first["id"]
        assert again.body["kernel"]["id"] == first["kernel"]["id"]


@case("sessions", _OLD)
async def open_on_a_kernel(api: Api) -> None:
    """POST with a kernel's id gives the session that kernel"""
    async with (
        api.kernel() as kernel_id,
        api.open_session(kernel={"id": kernel_id}) as one,
        api.open_session(kernel={"id": kernel_id}, type="console") as two,
    ):
        assert one["kernel"]["id"] == two["kernel"]["id"] == kernel_id
        assert one["id"] != two["id"]


@case("sessions")
async def open_needs_fields(api: Api) -> None:
    """POST without a body, a path or a type is 400"""
    check_error(await api.ask("POST", "api/sessions"), 400)
    check_error(await api.ask("POST", "api/sessions", json_body={"type": "notebook"}), 400)
    check_error(await api.ask("POST", "api/sessions", json_body={"path": "x.ipynb"}), 400)


@case(
    "sessions",
    {
        JUPYTER_SERVER: "500: it takes the body for what it should be.",
        KERNEL_GATEWAY: "500: it takes the body for what it should be.",
    },
)
async def open_with_wrong_types(api: Api) -> None:
    """POST with fields of wrong types is 400"""
    for body in (
        ["x"],
        {"path": 7, "type": "notebook"},
        {"path": "x", "type": [], "kernel": {}},
        {"path": "x", "type": "notebook", "kernel": "python3"},
    ):
        check_error(await api.ask("POST", "api/sessions", json_body=body), 400)


@case(
    "sessions",
    {
        JUPYTER_SERVER: "501, which clients take for a server that cannot do sessions.",
        KERNEL_GATEWAY: "501, which clients take for a server that cannot do sessions.",
    },
)
async def open_with_unknown_kernelspec(api: Api) -> None:
    """POST with an unknown kernelspec is 400 or 404, and no session is left"""
    path = uuid.uuid4().hex
    body = {"path": path, "type": "notebook", "kernel": {"name": "no-such-kernel"}}
    check_error(await api.ask("POST", "api/sessions", json_body=body), 400, 404)
    assert path not in [model["path"] for model in (await listed(api)).values()]


@case("sessions", {KERNEL_GATEWAY: "DELETE is 410 there: it does not tell the two apart."})
async def unknown_session(api: Api) -> None:
    """GET, PATCH and DELETE of an unknown session are 404"""
    path = f"api/sessions/{UNKNOWN}"
    check_error(await api.ask("GET", path), 404)
    check_error(await api.ask("PATCH", path, json_body={"path": "x"}), 404)
    check_error(await api.ask("DELETE", path), 404)


@case("sessions", _OLD)
async def rename(api: Api) -> None:
    """PATCH changes path, name and type and leaves id and kernel as they are"""
    async with api.open_session(path=f"{uuid.uuid4().hex}.ipynb") as model:
        path = f"{uuid.uuid4().hex}/Über 日本.ipynb"
        changes = {"path": path, "name": "Über", "type": "notebook"}
        answer = await api.ask("PATCH", f"api/sessions/{model['id']}", json_body=changes)
        assert answer.status == 200
        check_session(answer.body)
        assert (answer.body["path"], answer.body["name"]) == (path, "Über")
        assert answer.body["id"] == model["id"]
        assert answer.body["kernel"]["id"] == model["kernel"]["id"]
        assert (await listed(api))[model["id"]]["path"] == path


@case("sessions", _OLD)
async def rename_as_of_old(api: Api) -> None:
    """PATCH with `notebook.path`, as old clients send it, renames too"""
    async with api.open_session() as model:
        path = f"{uuid.uuid4().hex}.ipynb"
        changes = {"notebook": {"path": path}}
        answer = await api.ask("PATCH", f"api/sessions/{model['id']}", json_body=changes)
        assert (answer.status, answer.body["path"]) == (200, path)


@case("sessions", _OLD)
async def old_path_is_free(api: Api) -> None:
    """After a rename the old path opens a session of its own"""
    async with api.open_session() as model:
        changes = {"path": f"{uuid.uuid4().hex}.ipynb"}
        await api.ask("PATCH", f"api/sessions/{model['id']}", json_body=changes)
        async with api.open_session(path=model["path"]) as other:
            assert other["id"] != model["id"]
            assert other["kernel"]["id"] != model["kernel"]["id"]
            assert {model["id"], other["id"]} <= set(await listed(api))


@case("sessions", _OLD)
async def new_kernel(api: Api) -> None:
    """PATCH with a kernelspec's name starts a new kernel and ends the old one"""
    async with api.open_session() as model:
        changes = {"kernel": {"name": "python3"}}
        answer = await api.ask("PATCH", f"api/sessions/{model['id']}", json_body=changes)
        assert answer.status == 200
        assert answer.body["id"] == model["id"]
        assert answer.body["kernel"]["id"] != model["kernel"]["id"]
        await api.wait_gone(model["kernel"]["id"])
        await api.get(f"api/kernels/{answer.body['kernel']['id']}")


@case("sessions", _OLD)
async def other_kernel(api: Api) -> None:
    """PATCH with a kernel's id takes that kernel and ends the old one"""
    async with api.kernel() as kernel_id, api.open_session() as model:
        changes = {"kernel": {"id": kernel_id}}
        answer = await api.ask("PATCH", f"api/sessions/{model['id']}", json_body=changes)
        assert (answer.status, answer.body["kernel"]["id"]) == (200, kernel_id)
        await api.wait_gone(model["kernel"]["id"])


@case("sessions", {KERNEL_GATEWAY: "500: the error inside is not looked at."})
async def unknown_other_kernel(api: Api) -> None:
    """PATCH with the id of a kernel that is not there is 400 and changes nothing"""
    async with api.open_session() as model:
        changes = {"kernel": {"id": UNKNOWN}}
        path = f"api/sessions/{model['id']}"
        check_error(await api.ask("PATCH", path, json_body=changes), 400)
        assert (await api.get(path))["kernel"]["id"] == model["kernel"]["id"]


@case("sessions", _OLD)
async def close(api: Api) -> None:
    """DELETE is 204 and ends the kernel; then the session is 404 and not in the list"""
    async with api.open_session() as model:
        path = f"api/sessions/{model['id']}"
        assert (await api.ask("DELETE", path)).status == 204
        assert (await api.ask("GET", path)).status == 404
        assert model["id"] not in await listed(api)
        await api.wait_gone(model["kernel"]["id"])
        assert (await api.ask("DELETE", path)).status == 404


@case(
    "sessions",
    {KERNEL_GATEWAY: "500 for the whole list, once, because of the kernel that is gone."},
)
async def kernel_ended_first(api: Api) -> None:
    """A session goes with its kernel: it is not in the list any more, and DELETE is 404 or 410"""
    async with api.open_session() as model:
        await api.ask("DELETE", f"api/kernels/{model['kernel']['id']}")
        await api.wait_gone(model["kernel"]["id"])
        assert model["id"] not in await listed(api)
        answer = await api.ask("DELETE", f"api/sessions/{model['id']}")
        assert answer.status in (404, 410)


@case("sessions", _OLD)
async def reopened(api: Api) -> None:
    """A path whose kernel was ended gets a new kernel when it is opened again"""
    async with api.open_session() as model:
        await api.ask("DELETE", f"api/kernels/{model['kernel']['id']}")
        await api.wait_gone(model["kernel"]["id"])
        async with api.open_session(path=model["path"]) as again:
            assert again["kernel"]["id"] != model["kernel"]["id"]
            await api.get(f"api/kernels/{again['kernel']['id']}")
