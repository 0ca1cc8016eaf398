"""What the commands show of a document, and with which code they end: pure."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from holdfast_proxy.cli.access.client import Silent
from holdfast_proxy.cli.access.cluster import Seen, troubles
from holdfast_proxy.cli.access.exits import Exit, NotNamed
from holdfast_proxy.cli.display.screen import UNBOUNDED, Page
from holdfast_proxy.cli.drain.progress import before_drain, step_alone, step_of
from holdfast_proxy.cli.history.page import history_page, select
from holdfast_proxy.cli.kernels.command import output_text
from holdfast_proxy.cli.kernels.messages import Transcript
from holdfast_proxy.cli.kernels.page import kernel_page, kernels_page, log_fill
from holdfast_proxy.cli.listing.page import list_page
from holdfast_proxy.overview import Line, LogView
from support.fake_administration import (
    KERNEL,
    STAMP,
    kernel_view,
    launcher_view,
    overview,
    proxy_view,
)

NOW = datetime.fromisoformat(STAMP) + timedelta(seconds=10)
OTHER = "22222222-1111-4111-8111-111111111111"


def seen(silent: tuple[Silent, ...] = (), **changes: Any) -> Seen:
    return Seen(document=overview(**changes).document(timeline=100), silent=silent)


def shown(page: Page, width: int = 80) -> str:
    console = Console(width=min(width, 500), color_system=None)
    with console.capture() as captured:
        for part in page.body(width):
            console.print(part)
    return captured.get()


def etcd(**changes: Any) -> Any:
    return replace(overview().etcd, **changes)


# --- list ---


def test_a_cluster_that_is_well() -> None:
    page = list_page(seen(), NOW)
    assert page.code is Exit.OK
    text = shown(page)
    assert "cluster default" in text
    assert "etcd 3.5.33 answers, lease renewed 0.5 s ago" in text
    assert "p1 *" in text
    assert "1/10" in text
    assert "10 s ago" in text
    assert "1 kernel: 1 idle" in text
    assert "!" not in text
    assert page.document["troubles"] == []


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (seen(etcd=etcd(reachable=False)), "etcd does not answer"),
        (seen(proxies=(proxy_view("p1", status="degraded", message="no lease"),)), "no lease"),
        (seen(proxies=(proxy_view("p2", status="unreachable"),)), "p2 is unreachable"),
        (seen(launchers=()), "no launcher is alive"),
        (seen(launchers=(launcher_view(), launcher_view("n2", alive=False))), "n2 sends no heart"),
        (seen(kernels=(kernel_view(state="unreachable"),)), "1 kernel is unreachable"),
        (seen((Silent("http://p3:1", "nothing listens there"),)), "http://p3:1: nothing listens"),
    ],
)
def test_a_cluster_with_a_trouble(found: Seen, word: str) -> None:
    page = list_page(found, NOW)
    assert page.code is Exit.DEGRADED
    assert word in " ".join(shown(page, UNBOUNDED).split())
    assert any(word in trouble for trouble in page.document["troubles"])


def test_what_is_no_trouble() -> None:
    assert troubles(seen(proxies=(proxy_view("p1"), proxy_view("p2", status="draining")))) == []
    assert troubles(seen(kernels=(kernel_view(state="dead", reason="it ended"),))) == []
    assert troubles(seen(etcd=etcd(warnings=("old",)))) == []
    assert "note: old" in shown(list_page(seen(etcd=etcd(warnings=("old",))), NOW))


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_list_fits_the_terminal(width: int) -> None:
    found = seen(
        proxies=tuple(proxy_view(f"proxy-{n}", role="passive") for n in range(3)),
        launchers=(launcher_view(labels={"zone": "a" * 30, "gpu": "yes"}),),
    )
    text = shown(list_page(found, NOW), width)
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert "proxy-2" in text
    assert "ready" in text


def test_names_of_others_move_no_terminal() -> None:
    bad = "\x1b[2J\x1b]0;x\x07node"
    found = seen(launchers=(launcher_view(bad),), kernels=(kernel_view(launcher=bad),))
    for page in (list_page(found, NOW), kernels_page(found, NOW)):
        assert "\x1b" not in shown(page)
        assert "node" in shown(page)


# --- history ---


def line(seconds: int, kind: str = "started", **changes: Any) -> dict[str, Any]:
    moment = datetime.fromisoformat(STAMP) + timedelta(seconds=seconds)
    view = Line(
        time=moment.isoformat(), kind=kind, kernel=KERNEL, proxy="p1", launcher=None, detail="d"
    )
    return replace(view, **changes).document()


def test_which_lines() -> None:
    lines = [line(0), line(1, kernel=OTHER), line(2, kernel=None), line(3)]
    assert select(lines, since=None, kernel=None, most=2) == lines[2:]
    assert select(lines, since=None, kernel=KERNEL[:4], most=9) == [lines[0], lines[3]]
    later = datetime.fromisoformat(STAMP) + timedelta(seconds=1)
    assert select(lines, since=later, kernel=None, most=9) == lines[1:]
    with pytest.raises(NotNamed, match="no kernel on the timeline"):
        select(lines, since=None, kernel="zz", most=9)


def test_the_timeline_as_people_read_it() -> None:
    lines = [
        line(0, "launcher gone", kernel=None, launcher="node-1", detail="no heartbeat"),
        line(5, "taken over", detail="from p2: its port refuses connections"),
    ]
    text = shown(history_page(seen(), lines, NOW), 120)
    assert "node-1: no heartbeat" in text
    assert "from p2: its port refuses connections" in text
    assert "5 s ago" in text
    assert "11111111" in text
    narrow = shown(history_page(seen(), lines, NOW), 60)
    assert "refuses connections" in " ".join(narrow.split()), "in two lines, and not cut"
    assert "nothing happened" in shown(history_page(seen(), [], NOW))


# --- kernels ---


def test_all_kernels() -> None:
    found = seen(
        kernels=(
            kernel_view(state="busy"),
            kernel_view(OTHER, state="dead", reason="killed by signal 9", owner=None, log=None),
        )
    )
    page = kernels_page(found, NOW)
    text = shown(page, 140)
    assert "11111111  busy" in text
    assert "killed by signal 9" in text
    assert page.code is Exit.OK
    assert [kernel["id"] for kernel in page.document["kernels"]] == [KERNEL, OTHER]
    assert kernels_page(seen(kernels=(kernel_view(state="unreachable"),)), NOW).code == 3
    assert "no kernels" in shown(kernels_page(seen(kernels=()), NOW))


def test_one_kernel_in_full() -> None:
    kernel = kernel_view(state="dead", reason="it could not be started\nno such module", owner=None)
    text = shown(kernel_page(kernel.document(), [line(0, "start failed")], NOW))
    for word in (KERNEL, "ada", "python3", "10 s ago (", "no such module", "start failed"):
        assert word in text
    assert "2 kB of 1.1 GB, messages 41 to 100" in text


def test_how_full_a_log_is() -> None:
    assert log_fill(LogView(size=5, limit=1000, head=1, floor=0).document()) == "5 B"
    assert log_fill(LogView(size=500, limit=1000, head=1, floor=0).document()) == "500 B 50%"
    assert log_fill(LogView(size=500, limit=None, head=1, floor=0).document()) == "500 B"
    assert log_fill(None) == "-"


# --- log ---


def entry(seq: int, kind: str, **content: Any) -> bytes:
    return json.dumps({"seq": seq, "header": {"msg_type": kind}, "content": content}).encode()


def transcript(*entries: bytes, **options: bool) -> str:
    script = Transcript(**options)
    return "".join(script.take(item) for item in entries)


def test_a_session_as_text() -> None:
    assert transcript(
        entry(1, "status", execution_state="busy"),
        entry(2, "execute_input", code="for x in y:\n  print(x)", execution_count=3),
        entry(3, "stream", text="a"),
        entry(4, "stream", text="b\n"),
        entry(5, "execute_result", data={"text/plain": "42"}, execution_count=3),
        entry(6, "display_data", data={"image/png": "x" * 2000}),
        entry(7, "error", ename="E", evalue="v", traceback=["\x1b[31mline 1\x1b[0m", "line 2"]),
        entry(8, "comm_msg", data={}),
        entry(9, "status", execution_state="restarting"),
    ) == (
        "In [3]: for x in y:\n          print(x)\n"
        "ab\nOut[3]: 42\n(image/png, 2 kB)\nline 1\nline 2\n-- the kernel is restarting --\n"
    )


def test_what_a_log_does_not_have_is_said() -> None:
    gap = b'{"gap": {"first": 1, "last": 40}}'
    script = Transcript()
    assert script.take(gap) == "-- messages 1 to 40 are not in the log any more --\n"
    assert script.next == 41
    script.take(entry(41, "stream", text="x"))
    assert script.next == 42
    assert script.take(entry(42, "execute_input", code="y")) == "\nIn [ ]: y\n"


def test_a_kernels_output_moves_no_terminal() -> None:
    evil = entry(1, "stream", text="\x1b[2J\x1b]52;c;x\x07\x1b[31mred\x1b[0m\n")
    assert transcript(evil) == "red\n"
    assert transcript(evil, colours=True) == "\x1b[31mred\x1b[0m\n"


@pytest.mark.parametrize("kind", ["execute_input", "execute_result"])
def test_a_prompts_number_is_a_kernels_word_too(kind: str) -> None:
    evil = entry(1, kind, execution_count="\x1b]52;c;x\x07\x1b[2J7\n")
    assert transcript(evil) in ("In [7]:\n", "Out[7]:\n", "In [7]: \n", "Out[7]: \n")


@pytest.mark.parametrize(
    "damaged",
    [
        {"header": {"msg_type": "stream"}, "content": ["x"]},
        {"header": "stream", "content": {}},
        {"header": {"msg_type": "error"}, "content": {"traceback": 5, "ename": "E"}},
    ],
)
def test_a_message_that_is_none_ends_no_transcript(damaged: dict[str, Any]) -> None:
    line = json.dumps({"seq": 1, **damaged}).encode()
    assert transcript(line, entry(2, "stream", text="on")).endswith("on")


def test_every_message_in_a_line() -> None:
    assert transcript(entry(7, "comm_msg", data={"a": "\n"}), everything=True) == (
        '7  comm_msg {"data": {"a": "\\n"}}\n'
    )


@pytest.mark.parametrize("line", [b"", b"[]", b"not json", b'{"seq": 1}'])
def test_a_line_that_is_nothing(line: bytes) -> None:
    assert transcript(line) in ("", "()\n")


def test_last_words() -> None:
    found = {"state": "dead", "reason": "it ended", "launcher": "n1", "output": {}}
    assert output_text(found) == (
        "-- the kernel is dead: it ended --\n-- nothing was written, or n1 has it no more --\n"
    )
    found |= {"reason": None, "output": {"kernel": "Traceback\x1b[2J\n", "keeper": ""}}
    assert output_text(found) == "-- kernel --\nTraceback\n"


# --- drain ---


def test_a_drain_step_by_step() -> None:
    start = seen(kernels=(kernel_view(), kernel_view(OTHER), kernel_view("33", owner="p2")))
    before = before_drain(start, start.proxies[0])
    assert (before.proxy_id, before.kernels, before.alone) == ("p1", {KERNEL, OTHER}, False)
    assert not step_of(before, start).gone
    half = seen(proxies=(proxy_view("p2"),), kernels=(kernel_view(owner="p2"), kernel_view(OTHER)))
    step = step_of(before, half)
    assert (step.gone, step.done, step.waiting) == (True, False, 1)
    assert "1 kernels wait for an owner" in step.sentence(before)
    end = seen(
        proxies=(proxy_view("p2"),),
        kernels=(kernel_view(owner="p2"), kernel_view(OTHER, state="dead", owner=None)),
    )
    step = step_of(before, end)
    assert (step.done, step.restarted, step.owners) == (True, False, {"p2": 1})
    assert step.sentence(before) == "p1 is drained; of its 2 kernels p2 has 1"


def test_a_drained_proxy_that_comes_back_has_drained() -> None:
    start = seen()
    before = before_drain(start, start.proxies[0])
    step = step_of(before, seen(proxies=(proxy_view("p1", boot_id="new"), proxy_view("p2"))))
    assert (step.done, step.restarted, step.owners) == (True, True, {"p1": 1})
    assert "started again" in step.sentence(before)


def test_a_drain_of_the_only_one() -> None:
    start = seen(proxies=(proxy_view("p1"), proxy_view("p2", status="unreachable")))
    before = before_drain(start, start.proxies[0])
    assert before.alone
    assert not step_alone(before, "boot-p1").done
    assert step_alone(before, None).done
    assert step_alone(before, "other").restarted
