"""REST answers: a list is whole or refused, 404 only of what was deleted, no other server error."""

from __future__ import annotations

from collections.abc import Iterator

from .story import Rest, Story
from .verdict import Violation

#: 0: none came; 404 is looked at by itself; 503 says "not now". What else there is makes
#: JupyterLab kill a kernel's page (500, 502, 504), or blames a client that did nothing wrong.
_USUAL = frozenset({0, 101, 200, 201, 204, 404, 503})


def check_answers(story: Story) -> Iterator[Violation]:
    for rest in story.calls:
        if rest.answered is None:
            continue
        at = story.when(rest.answered.at)
        action, kernel = rest.called.action, rest.called.kernel
        if rest.status not in _USUAL and not _jupyter_servers_own(rest):
            text = f"{action} of {kernel[:8] or 'kernels'} by {rest.called.client} was answered "
            yield Violation(at, "answers", f"{text}{rest.status}: {rest.answered.detail[:160]}")
        elif rest.status == 404 and action != "start" and _lives_then(story, rest, kernel):
            text = f"{action} by {rest.called.client}: 404 for the living kernel {kernel[:8]}"
            yield Violation(at, "answers", text)
        elif rest.status == 200 and action == "list":
            listed = set(rest.answered.kernels)
            for missing in _living(story, rest) - listed:
                text = f"a list was answered without the living kernel {missing[:8]}"
                yield Violation(at, "answers", text)


def _jupyter_servers_own(rest: Rest) -> bool:
    """Jupyter Server says 500 to every restart that was refused, whatever the shim tells it."""
    own = rest.called.client == "shim" and rest.called.action == "restart" and rest.status == 500
    return own and rest.answered is not None and "Exception restarting" in rest.answered.detail


def _living(story: Story, rest: Rest) -> set[str]:
    return {kernel for kernel in story.started if _lives_then(story, rest, kernel)}


def _lives_then(story: Story, rest: Rest, kernel: str) -> bool:
    """Known to be there before the call, and nobody had asked for its end by the answer."""
    assert rest.answered is not None
    started = story.started.get(kernel)
    ends = story.deleted.get(kernel)
    if started is None or started >= rest.called.at:
        return False
    return ends is None or ends > rest.answered.at
