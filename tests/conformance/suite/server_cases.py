"""The server itself, its kernelspecs, and who may ask."""

from __future__ import annotations

from typing import Final

from conformance.suite.api import STAMP, UNKNOWN, Api, check_error
from conformance.suite.registry import HOLDFAST, JUPYTER_SERVER, KERNEL_GATEWAY, case

_REFUSED: Final = (401, 403)


@case("server")
async def version(api: Api) -> None:
    """`/api` tells a version"""
    assert isinstance((await api.get("api"))["version"], str)


@case("server", {KERNEL_GATEWAY: "It has no `/api/status`."})
async def status(api: Api) -> None:
    """`/api/status` counts kernels and connections, with times to the microsecond"""
    await api.shared_kernel()
    found = await api.get("api/status")
    assert found["kernels"] >= 1
    assert found["connections"] >= 0
    assert STAMP.fullmatch(found["started"]), found
    assert STAMP.fullmatch(found["last_activity"]), found


@case("server", {KERNEL_GATEWAY: "It has no `/api/me`."})
async def me(api: Api) -> None:
    """`/api/me` tells who asks and which permissions they have"""
    query = "api/me?permissions=%7B%22kernels%22%3A%5B%22read%22%2C%22fly%22%5D%7D"
    found = await api.get(query)
    assert isinstance(found["identity"]["username"], str)
    assert "read" in found["permissions"]["kernels"]


@case("server", {KERNEL_GATEWAY: "It has no `/api/me`."})
async def me_with_bad_permissions(api: Api) -> None:
    """`/api/me` refuses permissions that are not JSON with 400"""
    check_error(await api.ask("GET", "api/me?permissions=%7B"), 400)


@case("server", {JUPYTER_SERVER: "404 with a page of HTML for people."})
async def unknown_path(api: Api) -> None:
    """A path that is not there is 404, as JSON"""
    check_error(await api.ask("GET", "api/nothing-like-this"), 404)


@case("server")
async def wrong_method(api: Api) -> None:
    """A method that a path does not have is 405"""
    assert (await api.ask("PUT", "api/kernels")).status == 405


@case("access")
async def no_token(api: Api) -> None:
    """Nothing is told without a token"""
    for path in ("api/kernels", "api/sessions", "api/kernelspecs", f"api/kernels/{UNKNOWN}"):
        answer = await api.ask("GET", path, headers={})
        assert answer.status in _REFUSED, f"{path}: {answer.status}"


@case("access")
async def wrong_token(api: Api) -> None:
    """A wrong token is refused"""
    answer = await api.ask("GET", "api/kernels", headers={"Authorization": "token wrong"})
    assert answer.status in _REFUSED


@case("access")
async def no_start_without_token(api: Api) -> None:
    """Nothing is started without a token"""
    assert (await api.ask("POST", "api/kernels", headers={})).status in _REFUSED
    assert (await api.ask("POST", "api/sessions", headers={})).status in _REFUSED


@case("access", {KERNEL_GATEWAY: "It knows `token X` only."})
async def bearer_scheme(api: Api) -> None:
    """`Authorization: Bearer X` is as good as `token X`"""
    for scheme in ("Bearer", "bearer", "token"):
        headers = {"Authorization": f"{scheme} {api.token}"}
        assert (await api.ask("GET", "api/kernels", headers=headers)).status == 200, scheme


@case(
    "access",
    {
        HOLDFAST: "Refused unless `allow_token_in_query` is set: addresses end up in logs and "
        "histories."
    },
)
async def token_in_query(api: Api) -> None:
    """A token in the query string is accepted"""
    assert (await api.ask("GET", f"api/kernels?token={api.token}", headers={})).status == 200


@case("access")
async def websocket_without_token(api: Api) -> None:
    """A websocket needs the token as everything else does"""
    kernel_id = await api.shared_kernel()
    assert await api.upgrade_status(kernel_id, {}) in _REFUSED
    assert await api.upgrade_status(kernel_id, {"Authorization": "token wrong"}) in _REFUSED


@case("access")
async def websocket_of_foreign_page(api: Api) -> None:
    """A page of a foreign origin gets no websocket without a token of its own"""
    kernel_id = await api.shared_kernel()
    headers = {"Origin": "https://evil.example"}
    assert await api.upgrade_status(kernel_id, headers) in (*_REFUSED, 404)


@case("kernelspecs")
async def list_of_kernelspecs(api: Api) -> None:
    """The list has a default and each spec's name, display name, language and resources"""
    found = await api.get("api/kernelspecs")
    assert found["default"] in found["kernelspecs"]
    for name, model in found["kernelspecs"].items():
        assert model["name"] == name
        assert isinstance(model["spec"]["display_name"], str)
        assert isinstance(model["spec"]["language"], str)
        assert isinstance(model["resources"], dict)


@case("kernelspecs")
async def one_kernelspec(api: Api) -> None:
    """One spec is the same as in the list"""
    whole = await api.get("api/kernelspecs")
    assert await api.get("api/kernelspecs/python3") == whole["kernelspecs"]["python3"]


@case("kernelspecs")
async def unknown_kernelspec(api: Api) -> None:
    """An unknown spec is 404"""
    check_error(await api.ask("GET", "api/kernelspecs/no-such-spec"), 404)


@case("kernelspecs")
async def resources(api: Api) -> None:
    """Logos are served at the paths that the list gives, by GET and HEAD"""
    model = await api.get("api/kernelspecs/python3")
    path = model["resources"]["logo-64x64"]
    assert path.rpartition("/kernelspecs/")[1], path
    below = "kernelspecs/" + path.rpartition("/kernelspecs/")[2]
    assert api.url.split("/", 3)[3] + below == path.lstrip("/"), path
    answer = await api.ask("GET", below)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.body.startswith(b"\x89PNG")
    head = await api.ask("HEAD", below)
    assert (head.status, head.body) == (200, b"")


@case("kernelspecs")
async def missing_resource(api: Api) -> None:
    """A file that a spec does not have is 404"""
    assert (await api.ask("GET", "kernelspecs/python3/nothing.png")).status == 404
    assert (await api.ask("GET", "kernelspecs/no-such-spec/logo-64x64.png")).status == 404


@case(
    "kernelspecs",
    {
        JUPYTER_SERVER: "It serves every file of the directory, with argv and env of the spec.",
        KERNEL_GATEWAY: "It serves every file of the directory, with argv and env of the spec.",
    },
)
async def kernel_json_is_private(api: Api) -> None:
    """`kernel.json` itself is not given away"""
    assert (await api.ask("GET", "kernelspecs/python3/kernel.json")).status in (403, 404)


@case("kernelspecs")
async def resource_outside(api: Api) -> None:
    """No path leads out of a spec's directory"""
    for path in ("%2e%2e/%2e%2e/secret", "..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd"):
        answer = await api.ask("GET", f"kernelspecs/python3/{path}")
        assert answer.status in (400, 403, 404), (path, answer.status)
