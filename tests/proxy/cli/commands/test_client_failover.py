"""The command's HTTP: which proxy is asked next, what a refusal says, and the exit codes."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from holdfast_proxy.cli import main
from holdfast_proxy.cli.access.client import Client
from holdfast_proxy.cli.access.exits import Refused, Unreachable
from holdfast_proxy.cli.access.site import Site
from support.fake_administration import KERNEL, overview, proxy_view
from support.processes import free_port

DOCUMENT = overview(proxies=(proxy_view("p1", url="http://elsewhere:1"),)).document(timeline=10)


class Proxy:
    """Answers by path; ``asked`` has (method, path, Authorization)."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.cut = False
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proxy.handle(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append((request.command, request.path, request.headers.get("Authorization", "")))
        status, body = self.answers.get(request.path.partition("?")[0], (404, {}))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(data) + (100 if self.cut else 0)))
        request.end_headers()
        request.wfile.write(data)

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def make_proxy() -> Iterator[Callable[[], Proxy]]:
    made: list[Proxy] = []

    def make() -> Proxy:
        made.append(Proxy())
        made[-1].answers["/holdfast/v1/cluster"] = (200, DOCUMENT)
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def proxy(make_proxy: Callable[[], Proxy]) -> Proxy:
    return make_proxy()


def nobody() -> str:
    return f"http://127.0.0.1:{free_port()}"


def holdfast(*args: str, env: dict[str, str] | None = None) -> Result:
    clean = {name: None for name in os.environ if name.startswith("HOLDFAST_")}
    return CliRunner(env={**clean, "XDG_STATE_HOME": "/nonexistent", **(env or {})}).invoke(
        main, args
    )


def test_the_next_proxy_is_asked_when_one_does_not_answer(proxy: Proxy) -> None:
    client = Client(Site(urls=(nobody(), proxy.url), token="t"))
    assert client.get("/holdfast/v1/cluster") == DOCUMENT
    assert [item.why for item in client.silent] == ["nothing listens there"]
    client.get("/holdfast/v1/cluster")
    assert client.silent == [], "the one that answered is asked first from then on"
    assert {token for _, _, token in proxy.asked} == {"Bearer t"}


def test_one_that_drains_is_left_for_the_next(make_proxy: Callable[[], Proxy]) -> None:
    leaving, staying = make_proxy(), make_proxy()
    leaving.answers["/x"] = (503, {"reason": "unavailable", "message": "shutting down"})
    staying.answers["/x"] = (200, {"fine": True})
    assert Client(Site(urls=(leaving.url, staying.url))).get("/x") == {"fine": True}
    with pytest.raises(Refused, match="shutting down"):
        Client(Site(urls=(leaving.url,))).get("/x")


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        (401, {}, "does not know this token"),
        (403, {"reason": "not_an_admin", "message": "only administrators"}, "only administrators"),
        (302, {}, "answered 302"),
        (200, b"<html>", "no answer of a Holdfast proxy"),
        (200, {"version": 99}, "no answer of a Holdfast proxy of this version"),
    ],
)
def test_a_refusal_is_a_failure(proxy: Proxy, status: int, body: Any, word: str) -> None:
    proxy.answers["/holdfast/v1/cluster"] = (status, body)
    result = holdfast("list", "--url", proxy.url)
    assert (result.exit_code, word in result.output) == (1, True), result.output


def test_an_answer_that_breaks_off_is_not_the_end_of_a_log(proxy: Proxy) -> None:
    path = f"/api/kernels/{KERNEL}/log"
    proxy.answers[path] = (200, b'{"seq":1,"header":{"msg_type":"stream"},"content":{}}\n')
    proxy.cut = True
    client = Client(Site(urls=(proxy.url,)))
    with pytest.raises(Unreachable, match="broke off"), client.stream(path) as lines:
        list(lines)


def test_a_proxy_that_dies_while_it_answers_is_left_for_the_next(
    make_proxy: Callable[[], Proxy],
) -> None:
    dying, living = make_proxy(), make_proxy()
    dying.cut = True
    client = Client(Site(urls=(dying.url, living.url)))
    assert client.get("/holdfast/v1/cluster") == DOCUMENT
    assert ["broke off" in item.why for item in client.silent] == [True]
    with pytest.raises(Unreachable, match="broke off"):
        client.call_one(dying.url, "/holdfast/v1/cluster")
    result = holdfast("list", "--url", dying.url)
    assert (result.exit_code, "broke off" in result.output) == (4, True), result.output


def test_the_exit_codes(proxy: Proxy) -> None:
    assert holdfast("list", "--url", proxy.url).exit_code == 0
    assert holdfast("list", "--url", nobody(), "--url", proxy.url).exit_code == 3
    result = holdfast("list", "--url", nobody())
    assert (result.exit_code, "no proxy answers" in result.output) == (4, True)
    for usage in (("list",), ("list", "--url", "x"), ("list", "--nonsense"), ("drain",)):
        assert holdfast(*usage).exit_code == 2, usage
    assert holdfast("history", "--url", proxy.url, "--since", "soon").exit_code == 2
    assert holdfast("kernels", "show", "zz", "--url", proxy.url).exit_code == 2


def test_the_environment_and_json(proxy: Proxy) -> None:
    result = holdfast("list", "--json", env={"HOLDFAST_URL": proxy.url, "HOLDFAST_TOKEN": "secret"})
    document = json.loads(result.stdout)
    assert (document["cluster"], document["troubles"]) == ("default", [])
    assert proxy.asked[-1][2] == "Bearer secret"
    assert "secret" not in result.output


def test_kernels_alone_lists_them(proxy: Proxy) -> None:
    for args in (("kernels",), ("kernels", "list")):
        result = (
            holdfast(*args, "--url", proxy.url)
            if len(args) > 1
            else holdfast("kernels", env={"HOLDFAST_URL": proxy.url})
        )
        assert (result.exit_code, "11111111" in result.output) == (0, True), result.output
    as_json = holdfast("kernels", "--json", env={"HOLDFAST_URL": proxy.url})
    assert json.loads(as_json.stdout)["kernels"][0]["id"] == KERNEL
    assert "list, show" not in holdfast("kernels", "--help").output
    assert "logs" in holdfast("kernels", "--help").output


def test_a_log_is_read_in_pieces_until_its_end(proxy: Proxy) -> None:
    served: list[str] = []

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        if "/log" not in request.path:
            return Proxy.handle(proxy, request)
        served.append(request.path)
        first = int(request.path.partition("from=")[2].partition("&")[0])
        last = min(first + 999, 1500)
        lines = [
            json.dumps({"seq": n, "header": {"msg_type": "stream"}, "content": {"text": f"{n}\n"}})
            for n in range(first, last + 1)
        ]
        data = "\n".join([*lines, ""]).encode()
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)
        return None

    proxy.handle = handle  # type: ignore[method-assign]
    result = holdfast("kernels", "log", KERNEL[:5], "--url", proxy.url)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [str(n) for n in range(1, 1501)]
    assert len(served) == 2


def test_another_users_messages_are_nobodys_else(proxy: Proxy) -> None:
    for what in ("log", "logs"):
        result = holdfast("kernels", what, KERNEL, "--url", proxy.url)
        assert result.exit_code == 1
        assert "only that user may read" in result.output


@pytest.mark.parametrize("name", [KERNEL, KERNEL[:6]])
def test_who_is_no_administrator_reads_kernels_of_their_own(proxy: Proxy, name: str) -> None:
    proxy.answers["/holdfast/v1/cluster"] = (403, {"message": "only administrators"})
    proxy.answers["/api/kernels"] = (200, [{"id": KERNEL}])
    proxy.answers[f"/api/kernels/{KERNEL}/output"] = (200, {"output": {"kernel": "boom"}})
    proxy.answers[f"/api/kernels/{KERNEL}/log"] = (
        200,
        b'{"seq":1,"header":{"msg_type":"stream"},"content":{"text":"hello"}}\n',
    )
    logs = holdfast("kernels", "logs", name, "--url", proxy.url)
    assert (logs.exit_code, "boom" in logs.output) == (0, True), logs.output
    log = holdfast("kernels", "log", name, "--url", proxy.url)
    assert (log.exit_code, log.output) == (0, "hello")
    other = holdfast("kernels", "logs", "abc", "--url", proxy.url)
    assert (other.exit_code, "no kernel of yours" in other.output) == (2, True), other.output


def test_a_drain_that_needs_a_yes(proxy: Proxy) -> None:
    result = holdfast("drain", "p1", "--url", proxy.url)
    assert (result.exit_code, "Say --yes" in result.output) == (1, True)
    assert not any(method == "POST" for method, _, _ in proxy.asked)


def test_watching_goes_on_through_trouble(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = 0

    def sleep(_: float) -> None:
        nonlocal rounds
        rounds += 1
        proxy.answers["/holdfast/v1/cluster"] = (500, {}) if rounds == 1 else (200, DOCUMENT)
        if rounds == 3:
            raise KeyboardInterrupt

    defaults = "holdfast_proxy.cli.display.screen.Screen.__init__.__kwdefaults__"
    monkeypatch.setattr(defaults, {"console": None, "sleep": sleep})
    result = holdfast("list", "--watch", "--url", proxy.url)
    assert result.exit_code == 0, result.output
    assert result.output.count("cluster default") == 2
    assert "the proxy answered 500" in result.output


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    result = holdfast("completion", shell)
    assert (result.exit_code, "_HOLDFAST_COMPLETE" in result.output) == (0, True)


def test_ids_are_completed_from_the_cluster(proxy: Proxy) -> None:
    env = {
        "HOLDFAST_URL": proxy.url,
        "_HOLDFAST_COMPLETE": "fish_complete",
        "COMP_WORDS": "holdfast kernels show 1",
        "COMP_CWORD": "1",
    }
    result = CliRunner(env=env).invoke(main, [], prog_name="holdfast")
    assert KERNEL in result.output
    env |= {"HOLDFAST_URL": nobody()}
    assert KERNEL not in CliRunner(env=env).invoke(main, [], prog_name="holdfast").output
