"""Each cell ran at most once, in its order, was answered once, and its output is whole or marked.

The side files say what ran; the messages say what the client was told.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from support.chaos.cells import Cell
from support.chaos.history import Injected, Ran, Received, Sent

from .story import Session, Story
from .verdict import Violation

_LOST = re.compile(r"^holdfast: .*lost", re.MULTILINE)
_GAP_KINDS = frozenset({"keeper-kill", "disk-full"})
#: Seconds: until a keeper is replaced, also by a launcher that was away itself, and its clients
#: have come back.
_AFTERMATH = 20.0
_GAP_NAMES = frozenset({"HoldfastGap", "HoldfastEpoch", "HoldfastLost"})


def check_cells(story: Story) -> Iterator[Violation]:
    """Executions, order, answers, output, causes of errors."""
    yield from _executions(story)
    for session in story.sessions.values():
        yield from _order(story, session)
        for sent in session.sent.values():
            yield from _answer(story, session, sent)
            yield from _output(story, session, sent)


def _executions(story: Story) -> Iterator[Violation]:
    sent = {(s.name, c.cell): (s, c) for s in story.sessions.values() for c in s.sent.values()}
    ran: dict[tuple[str, int], list[Ran]] = defaultdict(list)
    for run in story.runs:
        ran[run.session, run.cell].append(run)
    for key, runs in ran.items():
        at = story.when(runs[-1].at)
        name = f"cell {key[1]} of session {key[0][:6]}"
        if len(runs) > 1:
            yield Violation(at, "once", f"{name} ran {len(runs)} times")
        if key not in sent:
            yield Violation(at, "once", f"{name} ran and was never sent")
        elif runs[0].kernel != sent[key][1].kernel:
            yield Violation(at, "once", f"{name} ran in another kernel")
        elif key[1] in sent[key][0].unsent:
            yield Violation(at, "answered", f"{name} ran; its client was told nothing of it")
    for key, (session, cell) in sent.items():
        if key not in ran and _status(session, cell) == "ok":
            name = f"cell {key[1]} of session {key[0][:6]}"
            yield Violation(story.when(cell.at), "once", f"{name} was answered ok and never ran")


def _order(story: Story, session: Session) -> Iterator[Violation]:
    runs = [run for run in story.runs if run.session == session.name]
    yield from _rising(story, session, "ran", [(run.cell, run.at) for run in runs])
    replies = [
        (session.sent[event.parent].cell, event.at)
        for event in _first(session)
        if event.kind == "execute_reply" and event.parent in session.sent
    ]
    yield from _rising(story, session, "was answered", replies)
    prints = [
        (session.sent[event.parent].cell, event.at)
        for event in _first(session)
        if event.stream == "stdout" and event.parent in session.sent
    ]
    yield from _rising(story, session, "printed", prints)


def _rising(
    story: Story, session: Session, what: str, cells: list[tuple[int, float]]
) -> Iterator[Violation]:
    highest = 0
    for cell, at in cells:
        if cell < highest:
            text = f"cell {cell} of session {session.name[:6]} {what} after cell {highest}"
            yield Violation(story.when(at), "order", text)
        highest = max(highest, cell)


def _first(session: Session) -> list[Received]:
    """Every message once, by its first receipt."""
    seen: set[str] = set()
    found = []
    for event in session.received:
        if event.msg_id not in seen:
            seen.add(event.msg_id)
            found.append(event)
    return found


def _answer(story: Story, session: Session, sent: Sent) -> Iterator[Violation]:
    """One reply and one idle, unless the kernel was deleted or the cell never arrived."""
    name = f"cell {sent.cell} of session {session.name[:6]}"
    answers = session.answers.get(sent.msg_id, [])
    replies = [event for event in answers if event.kind == "execute_reply"]
    idles = [event for event in answers if event.state == "idle"]
    if any(story.faults_on(session.kernel, "keeper-kill")):
        # The cell was given up with an idle when its keeper fell; the kernel's own comes later.
        idles = idles[:1]
    at = story.when(sent.at)
    if len(replies) > 1:
        yield Violation(at, "answered", f"{name} has {len(replies)} replies")
    if len(idles) > 1:
        yield Violation(at, "answered", f"{name} became idle {len(idles)} times")
    excused = session.kernel in story.given_up or sent.cell in session.unsent
    if not excused and (not replies or not idles):
        missing = "a reply" if not replies else "idle"
        waited = session.stuck.get(sent.cell)
        since = f" for {waited.seconds:.0f} s" if waited else ""
        yield Violation(at, "answered", f"{name} has not got {missing}{since}")
    if replies and replies[0].status != "ok":
        yield from _cause(story, session, sent, replies[0])


def _cause(story: Story, session: Session, sent: Sent, reply: Received) -> Iterator[Violation]:
    """An error needs something that was done to the kernel."""
    kernel = session.kernel
    if reply.ename == "KeyboardInterrupt":
        causes: Iterable[object] = story.calls_of(kernel, "interrupt")
    elif reply.ename == "HoldfastRestarted":
        causes = story.calls_of(kernel, "restart")
    else:
        causes = _gap_causes(story, session, sent)
    if kernel in story.given_up or any(causes):
        return
    name = f"cell {sent.cell} of session {session.name[:6]}"
    text = f"{name} failed ({reply.status} {reply.ename}) and nothing was done to its kernel"
    yield Violation(story.when(reply.at), "answered", text)


def _gap_causes(story: Story, session: Session, sent: Sent) -> list[Injected]:
    """Faults that may cost this cell output: those under way while it was, or just before."""
    answers = session.answers.get(sent.msg_id, [])
    begins, ends = sent.at - _AFTERMATH, max((event.at for event in answers), default=sent.at)
    return [
        fault
        for fault in story.faults
        if fault.kind in _GAP_KINDS
        and fault.kernel in ("", session.kernel)
        and fault.at <= ends
        and story.healed.get(fault.fault, ends) >= begins
    ]


def _output(story: Story, session: Session, sent: Sent) -> Iterator[Violation]:
    """Whole, or marked where it is not; cut short only by what ended the cell."""
    status = _status(session, sent)
    answers = session.answers.get(sent.msg_id, [])
    text = "".join(event.text for event in answers if event.stream == "stdout")
    wanted = Cell(session=session.name, number=sent.cell, lines=sent.lines, width=sent.width).text
    marked = is_marked(answers)
    name = f"cell {sent.cell} of session {session.name[:6]}"
    if marked and not _gap_causes(story, session, sent):
        yield Violation(story.when(sent.at), "complete", f"{name} has a gap that nothing caused")
    if marked:
        broken = not _is_subsequence(text, wanted)
    elif status == "ok":
        broken = text != wanted
    else:
        broken = not wanted.startswith(text)
    if broken:
        lost = Counter(wanted.splitlines()) - Counter(text.splitlines())
        more = Counter(text.splitlines()) - Counter(wanted.splitlines())
        story_of = f"{name} ({status or 'no reply'}): of {sent.lines} lines {lost.total()} are"
        story_of += f" missing {_some(lost)}, {more.total()} too many {_some(more)}"
        yield Violation(story.when(sent.at), "complete", story_of)


def is_marked(answers: list[Received]) -> bool:
    """Whether the user is told in the cell that something of it is missing."""
    return any(
        (event.stream == "stderr" and _LOST.search(event.text)) or event.ename in _GAP_NAMES
        for event in answers
    )


def _is_subsequence(text: str, wanted: str) -> bool:
    lines = iter(wanted.splitlines())
    return all(line in lines for line in text.splitlines())


def _some(lines: Counter[str]) -> str:
    return str([line[:40] for line in list(lines)[:3]])


def _status(session: Session, sent: Sent) -> str:
    replies = [
        event for event in session.answers.get(sent.msg_id, []) if event.kind == "execute_reply"
    ]
    return replies[0].status if replies else ""
