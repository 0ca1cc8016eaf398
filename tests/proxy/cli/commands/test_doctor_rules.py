"""What the doctor says of what it found, and what it reads itself: files, certificates, a notebook
server, the era."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console

from holdfast_protocol.keys import Keys
from holdfast_protocol.records import ConfigRecord
from holdfast_proxy.cli.access.exits import CommandFailed, Exit, Unreachable
from holdfast_proxy.cli.display.screen import UNBOUNDED
from holdfast_proxy.cli.doctor import gather, rules
from holdfast_proxy.cli.doctor.era import raise_era
from holdfast_proxy.cli.doctor.facts import (
    Certificate,
    ConfigFacts,
    FileFacts,
    Installed,
    NotebookFacts,
    ProxyFacts,
)
from holdfast_proxy.cli.doctor.findings import Finding, Level, exit_of
from holdfast_proxy.cli.doctor.report import report_page
from holdfast_proxy.store.contract import ModEquals, Put
from holdfast_proxy.store.memory import Link, MemoryServer, MemoryStore

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HERE = Installed(version="0.1.0", python="3.11.2")


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level.value for finding in findings]


def one(findings: list[Finding], level: Level) -> Finding:
    """The one finding that is not well; whatever is not, says what to do."""
    (found,) = [f for f in findings if f.level is not Level.OK]
    assert found.level is level, found
    assert found.todo, found
    return found


def proxy(**changes: Any) -> ProxyFacts:
    state = {"id": "p1", "status": "ready", "lease_age": 0.5, "version": "0.1.0"}
    values: dict[str, Any] = {"url": "http://p1:1", "state": state, "round_trip": 0.01}
    return ProxyFacts(**{**values, **changes})


def test_proxies_that_are_well() -> None:
    assert levels(rules.check_proxies([proxy(), proxy(url="http://p2:1")])) == ["ok", "ok"]
    assert levels(rules.check_proxies([proxy()])) == ["ok", "note"]


def test_a_proxy_that_does_not_answer() -> None:
    found = one(rules.check_proxies([proxy(), proxy(state=None, error="no")]), Level.PROBLEM)
    assert "no" in found.text
    found = one(rules.check_proxies([proxy(state=None, error="x", refused=True)]), Level.PROBLEM)
    assert "token" in found.todo


def test_a_proxy_that_is_degraded_or_has_an_old_lease() -> None:
    state = {"id": "p1", "status": "degraded", "message": "no lease", "lease_age": None}
    assert "no lease" in one(rules.check_proxies([proxy(state=state), proxy()]), Level.PROBLEM).text
    state = {"id": "p1", "status": "ready", "lease_age": 3.5}
    assert "3.5 s" in one(rules.check_proxies([proxy(state=state), proxy()]), Level.WARNING).text


def test_versions() -> None:
    rows = [{"id": "p1", "version": "0.1.0"}, {"id": "n1", "version": "0.1.0"}]
    assert levels(rules.check_versions(HERE, rows)) == ["ok", "ok"]
    newer = [*rows, {"id": "p2", "version": "0.2.0"}]
    assert "0.2.0: p2" in one(rules.check_versions(HERE, newer), Level.WARNING).text
    there = [{"id": "p2", "version": "0.2.0"}]
    assert '"holdfast==0.2.0"' in one(rules.check_versions(HERE, there), Level.NOTE).todo
    bare = Installed(version="1", python="3", missing={"shim": ["tenacity"]})
    assert "tenacity" in one(rules.check_versions(bare, ()), Level.NOTE).text


@pytest.mark.parametrize(
    ("skews", "expected"),
    [
        ({}, []),
        ({"this machine": 0.0}, []),
        ({"this machine": 0.0, "p1": 0.5, "p2": -0.5, "p3": None}, ["ok"]),
        ({"this machine": 0.0, "p1": 3.0}, ["warning"]),
        ({"this machine": 0.0, "p1": 1.5, "p2": -1.5}, ["warning"]),
    ],
)
def test_clocks(skews: dict[str, float | None], expected: list[str]) -> None:
    assert levels(rules.check_clocks(skews)) == expected


def test_whose_clock_is_ahead() -> None:
    found = one(rules.check_clocks({"a": 0.0, "b": -5.0, "c": 1.0}), Level.WARNING)
    assert found.text == "c is 6 s ahead of b"


@pytest.mark.parametrize(
    ("etcd", "expected"),
    [
        ({"reachable": True, "version": "3.5.33", "members": [{}, {}, {}]}, ["ok"]),
        ({"reachable": True, "version": "3.4.1", "warnings": ["old"]}, ["warning"]),
        ({"reachable": True, "version": "3.6.14", "members": [{}]}, ["ok", "note"]),
        ({"reachable": True, "version": "3.6.14", "members": [{}, {}]}, ["ok", "note"]),
        ({"reachable": False, "endpoints": ["http://e:1"], "warnings": ["x"]}, ["problem"]),
    ],
)
def test_etcd(etcd: dict[str, Any], expected: list[str]) -> None:
    found = rules.check_etcd(etcd)
    assert levels(found) == expected
    assert all(f.todo for f in found if f.level is not Level.OK)


def test_launchers() -> None:
    well = {"self": "p1", "launchers": [{"id": "n1", "reachable": True, "round_trip": 0.01}]}
    alive = {"launchers": [{"id": "n1", "alive": True, "kernels": 2}]}
    assert levels(rules.check_launchers(well, alive)) == ["ok"]
    cut = {"self": "p1", "launchers": [{"id": "n1", "reachable": False, "message": "no route"}]}
    assert "no route" in one(rules.check_launchers(cut, alive), Level.PROBLEM).text
    gone = {"launchers": [*alive["launchers"], {"id": "n2", "alive": False, "kernels": 3}]}
    assert "3 kernels" in one(rules.check_launchers(well, gone), Level.PROBLEM).text
    none = one(rules.check_launchers({"launchers": []}, {"launchers": []}), Level.PROBLEM)
    assert "no kernel can be started" in none.text


def test_proxies_that_do_not_reach_each_other() -> None:
    row = {"id": "p2", "url": "http://p2:1", "status": "unreachable", "message": "refused"}
    found = one(rules.check_peers({"self": "p1", "proxies": [row]}), Level.PROBLEM)
    assert found.text == "p1 does not reach it at http://p2:1: refused"
    assert rules.check_peers({"self": "p1", "proxies": [{**row, "status": "ready"}]}) == []


@pytest.mark.parametrize(
    ("begins", "ends", "trusted", "level"),
    [
        (-10, 100, None, Level.OK),
        (-10, 20, None, Level.WARNING),
        (-10, -1, None, Level.PROBLEM),
        (1, 100, None, Level.PROBLEM),
        (-10, 100, "self-signed certificate", Level.PROBLEM),
    ],
)
def test_certificates(begins: int, ends: int, trusted: str | None, level: Level) -> None:
    certificate = Certificate(
        subject="c",
        not_before=NOW + timedelta(days=begins),
        not_after=NOW + timedelta(days=ends),
        trusted=trusted,
    )
    (found,) = rules.check_certificate("p1", certificate, now=NOW)
    assert found.level is level
    assert level is Level.OK or found.todo


@pytest.mark.parametrize(
    ("status", "answer", "level"),
    [
        (200, {"active": True}, Level.OK),
        (200, {"active": False, "reason": "replaced"}, Level.PROBLEM),
        (404, {}, Level.PROBLEM),
        (403, {}, Level.PROBLEM),
        (0, {}, Level.PROBLEM),
        (500, {}, Level.PROBLEM),
    ],
)
def test_whether_the_shim_is_active(status: int, answer: dict[str, Any], level: Level) -> None:
    facts = NotebookFacts(url="http://lab", status=status, answer=answer, error="refused")
    (found,) = rules.check_notebook(facts)
    assert found.level is level
    assert level is Level.OK or found.todo


def test_the_exit_code() -> None:
    well, bad = Finding(Level.WARNING, "s", "t", "d"), Finding(Level.PROBLEM, "s", "t", "d")
    assert exit_of([well], answered=True) is Exit.OK
    assert exit_of([well, bad], answered=True) is Exit.DEGRADED
    assert exit_of([well], answered=False) is Exit.UNREACHABLE


def test_the_report_fits_and_says_what_to_do() -> None:
    findings = [Finding(Level.PROBLEM, "/a/very/long/path" * 4, "word " * 30, "do " * 40)]
    page = report_page(findings, code=Exit.DEGRADED, cluster="c")
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        for part in page.body(80):
            console.print(part)
    text = captured.get()
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert text.count("word") == 30
    assert text.count("do ") + text.count("do\n") >= 40
    assert "1 problem" in text
    assert page.document["exit"] == 3
    assert page.body(UNBOUNDED)


# --- what it reads itself ---


def make_certificate(path: Path, *, days: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "proxy.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file = path.with_suffix(".key")
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    key_file.chmod(0o600)


def config_file(tmp_path: Path, *, days: int = 90, more: str = "") -> Path:
    make_certificate(tmp_path / "cert.pem", days=days)
    path = tmp_path / "proxy.toml"
    path.write_text(f'tls_cert = "cert.pem"\ntls_key = "cert.key"\n{more}\n')
    return path


@pytest.mark.parametrize(
    ("days", "level"), [(90, Level.OK), (3, Level.WARNING), (-1, Level.PROBLEM)]
)
def test_a_proxys_file_and_its_certificate(tmp_path: Path, days: int, level: Level) -> None:
    found = rules.check_configs(gather.configs([config_file(tmp_path, days=days)]))
    assert [finding.level for finding in found] == [Level.OK, level]
    assert "proxy.example" in found[1].text


def test_a_file_that_a_proxy_would_refuse(tmp_path: Path) -> None:
    path = config_file(tmp_path, more="sinlge_user = true")
    assert "sinlge_user" in one(rules.check_configs(gather.configs([path])), Level.PROBLEM).text
    path = config_file(tmp_path)
    (tmp_path / "cert.key").chmod(0o644)
    assert "chmod 600" in one(rules.check_configs(gather.configs([path])), Level.PROBLEM).text
    assert levels(rules.check_configs([ConfigFacts(path=path, error="x")])) == ["problem"]


def test_files_that_others_can_read(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    secret = tmp_path / "secrets" / "token"
    secret.write_text("t")
    secret.chmod(0o600)
    assert levels(rules.check_files(gather.state_files(tmp_path))) == ["ok"]
    secret.chmod(0o640)
    found = one(rules.check_files(gather.state_files(tmp_path)), Level.PROBLEM)
    assert "0640" in found.text
    assert levels(rules.check_files([FileFacts(path=secret, mode=None)])) == ["warning"]


def test_what_is_installed_here() -> None:
    here = gather.installed()
    assert here.version
    assert here.missing == {}, "the tests' environment has all of it"


class Notebook(http.server.BaseHTTPRequestHandler):
    """A Jupyter server as far as the doctor asks; ``answers``: status and body by token."""

    answers: dict[str, tuple[int, Any]] = {}  # noqa: RUF012 (set by the fixture)

    def do_GET(self) -> None:
        status, body = self.answers.get(self.headers.get("Authorization", ""), (302, {}))
        if self.path != "/lab/api/holdfast/streams":
            status = 404
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/login")
        data = json.dumps(body).encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def notebook() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Notebook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/lab/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_asking_a_notebook_server(notebook: str) -> None:
    Notebook.answers = {"token good": (200, {"active": True}), "token old": (404, {})}
    assert gather.ask_notebook(notebook, "good", timeout=5).answer == {"active": True}
    assert gather.ask_notebook(notebook, "old", timeout=5).status == 404
    assert gather.ask_notebook(notebook, None, timeout=5).status == 403, "sent to the login page"
    gone = gather.ask_notebook("http://127.0.0.1:1", None, timeout=5)
    assert (gone.status, bool(gone.error)) == (0, True)
    assert gather.ask_notebook("file:///etc/passwd", None, timeout=5).status == 0


# --- a new era ---


def agree(old: int, new: int) -> None:
    assert new == old + 1


async def put_config(store: MemoryStore, keys: Keys, era: int) -> None:
    value = ConfigRecord(mode="active-active", era=era, extra={"newer": 1}).encode()
    await store.txn([ModEquals(keys.config, 0)], [Put(keys.config, value)])


async def read_config(store: MemoryStore, keys: Keys) -> ConfigRecord:
    found = await store.get(keys.config)
    assert found is not None
    return ConfigRecord.decode(found.value)


@pytest.mark.parametrize(
    ("stored", "running", "new"), [(1, 0, 2), (1, 1, 2), (2, 5, 6), (None, 3, 4), (None, 0, 1)]
)
async def test_the_new_era_is_above_every_old_one(
    stored: int | None, running: int, new: int
) -> None:
    keys = Keys("c")
    async with MemoryStore(MemoryServer()) as store:
        if stored is not None:
            await put_config(store, keys, stored)
        era = await raise_era(store, keys, mode="active-active", at_least=running, confirm=agree)
        assert era == new
        record = await read_config(store, keys)
        assert (record.era, record.mode) == (new, "active-active")
        assert stored is None or record.extra["newer"] == 1, "what a newer version wrote stays"


async def test_who_does_not_confirm_changes_nothing() -> None:
    def refuse(old: int, new: int) -> None:
        raise CommandFailed("no")

    keys = Keys("c")
    async with MemoryStore(MemoryServer()) as store:
        await put_config(store, keys, 1)
        with pytest.raises(CommandFailed):
            await raise_era(store, keys, mode="active-active", at_least=0, confirm=refuse)
        assert (await read_config(store, keys)).era == 1


async def test_two_who_raise_it_at_once_raise_it_once() -> None:
    keys, server = Keys("c"), MemoryServer()
    async with MemoryStore(server) as store:
        await put_config(store, keys, 1)

        def race(old: int, new: int) -> None:
            value = ConfigRecord(mode="active-active", era=new).encode()
            assert server.txn([], [Put(keys.config, value)], []).succeeded

        with pytest.raises(CommandFailed, match="somebody else"):
            await raise_era(store, keys, mode="active-active", at_least=0, confirm=race)
        assert (await read_config(store, keys)).era == 2


async def test_without_etcd_it_says_so() -> None:
    store = MemoryStore(MemoryServer())
    store.link = Link.REFUSED
    async with store:
        with pytest.raises(Unreachable):
            await raise_era(store, Keys("c"), mode="x", at_least=0, confirm=agree)
