"""One start, delete, restart or takeover, disturbed at exactly one place.

``count_points`` plays a story undisturbed and counts its await points: each step of each task
that works for it, in whichever process. ``disturbed`` plays it again with one of them hit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from holdfast_proxy.config import Mode
from simulation.ownership_judge import Judge
from simulation.simulated_network import Call, Fate, Lost
from simulation.simulated_world import Asked, ProxyServer, World

WATCHED = "watched"


class NoSuchPoint(Exception):
    """The story was over before."""


class Story(Enum):
    START = "start"
    DELETE = "delete"
    RESTART = "restart"
    FORWARDED_DELETE = "delete by another proxy"
    TAKEOVER = "takeover"


class Blow(Enum):
    """What happens to the process that has just come to the await point, and to the call that it
    had sent there, if it had."""

    KILL = "killed; what it sent arrives"
    KILL_UNSENT = "killed before it sent"
    KILL_LATE = "killed; what it sent arrives 8 s later"
    KILL_ONLY = "killed, and back after 10 s; nobody else is there"
    FREEZE = "frozen for 30 s; what it sent arrives"
    FREEZE_LATE = "frozen for 30 s; what it sent arrives 12 s later"


@dataclass
class Play:
    """A story under way."""

    world: World
    judge: Judge
    kernel_id: str
    story: Story
    asked: Asked | None = None

    def begin(self) -> None:
        """Say what is asked for, by the first proxy or the second."""
        world, story = self.world, self.story
        if story is Story.TAKEOVER:
            world.kill("a")
            return
        what = "delete" if story is Story.FORWARDED_DELETE else story.value
        proxy = "b" if story is Story.FORWARDED_DELETE else "a"
        request_id = "r-1" if story is Story.RESTART else None
        self.asked = world.ask(
            what, self.kernel_id, proxy, request_id=request_id, operation=WATCHED
        )

    def over(self) -> bool:
        if self.asked is not None:
            return self.asked.done
        return any(
            proxy.parts.ownership.effective(self.kernel_id)
            for name, proxy in self.world.proxies.items()
            if name != "a"
        )

    def watched(self, operation: str | None) -> bool:
        """Whether a step of this operation belongs to the story."""
        return operation == WATCHED or self.story is Story.TAKEOVER


@contextmanager
def play(story: Story, *, alone: bool = False, mode: Mode = Mode.ACTIVE_ACTIVE) -> Iterator[Play]:
    """The scene before the story begins."""
    proxies = 1 if alone else 3 if story is Story.TAKEOVER else 2
    with World(proxies=proxies, mode=mode) as world:
        judge, kernel_id = Judge(world), world.new_id()
        if story is not Story.START:
            world.ask("start", kernel_id, "a")
            assert world.run_until(
                lambda: not judge.unsettled() and judge.record(kernel_id), within=9
            )
            world.run(2.0)
        yield Play(world, judge, kernel_id, story)


def count_points(story: Story, *, alone: bool = False, mode: Mode = Mode.ACTIVE_ACTIVE) -> int:
    """The await points of an undisturbed story."""
    with play(story, alone=alone, mode=mode) as scene:
        points = 0

        def step(_proxy: ProxyServer, operation: str | None) -> None:
            nonlocal points
            points += scene.watched(operation) and not scene.over()

        _watch(scene.world, step)
        scene.begin()
        assert scene.world.run_until(scene.over, within=60.0, step=0.05)
        scene.judge.settle()
        return points


def disturbed(
    story: Story,
    point: int,
    blow: Blow,
    *,
    insist: bool = True,
    mode: Mode = Mode.ACTIVE_ACTIVE,
) -> float:
    """Hit the ``point``-th await point (from 1). ``insist``: the client asks again until it has a
    final answer. Returns the seconds until all was settled after the faults had stopped.

    Raises Broken.
    """
    alone = blow is Blow.KILL_ONLY
    with play(story, alone=alone, mode=mode) as scene:
        world, points, hit = scene.world, 0, [""]

        def step(proxy: ProxyServer, operation: str | None) -> None:
            nonlocal points
            if hit[0] or not scene.watched(operation) or scene.over():
                return
            points += 1
            if points == point:
                hit[0] = proxy.name
                _strike(world, proxy.name, blow)

        def fate(call: Call) -> Fate | None:
            """Of what is sent in the step that ends at the point."""
            ours = call.sender in world.proxies and scene.watched(call.operation)
            if points + 1 != point or hit[0] or not ours:
                return None
            if blow is Blow.KILL_UNSENT:
                return Fate(lost=Lost.REQUEST)
            if blow in (Blow.KILL_LATE, Blow.FREEZE_LATE):
                return Fate(request=8.0 if blow is Blow.KILL_LATE else 12.0)
            return None

        world.network.decide = fate
        _watch(world, step)
        scene.begin()
        world.run_until(lambda: bool(hit[0]) and scene.over(), within=70.0, step=0.25)
        if not hit[0]:
            raise NoSuchPoint(f"{story.value} has no await point {point}")
        if insist:
            _come_again(scene)
        world.run(8.0 if blow is Blow.KILL else 2.0)
        scene.judge.check()
        world.heal()
        return scene.judge.settle()


def count_calls(story: Story, *, mode: Mode = Mode.ACTIVE_ACTIVE) -> int:
    """What is called for an undisturbed story: transactions, reads and HTTP."""
    return _with_fate(story, 0, Fate(), mode=mode)


def upset(story: Story, number: int, fate: Fate, *, mode: Mode = Mode.ACTIVE_ACTIVE) -> None:
    """The ``number``-th call (from 1) has this fate. Raises Broken."""
    assert _with_fate(story, number, fate, mode=mode) >= number, "there is no such call"


def _with_fate(story: Story, number: int, fate: Fate, *, mode: Mode) -> int:
    with play(story, mode=mode) as scene:
        calls = 0

        def decide(call: Call) -> Fate | None:
            nonlocal calls
            of_a_proxy = call.sender in scene.world.proxies
            if not of_a_proxy or not scene.watched(call.operation) or scene.over():
                return None
            calls += 1
            return fate if calls == number else None

        scene.world.network.decide = decide
        scene.begin()
        scene.world.run_until(scene.over, within=70.0, step=0.25)
        _come_again(scene)
        scene.world.run(10.0)  # for what comes late
        scene.world.heal()
        scene.judge.settle()
        return calls


def _come_again(scene: Play) -> None:
    """The client asks again, at a living proxy, until it is told something final."""
    asked, world = scene.asked, scene.world
    for _ in range(20):
        if asked is None or (asked.answer is not None and asked.answer.status < 500):
            return
        world.run(1.0)
        alive = [name for name in world.alive() if not world.proxies[name].process.frozen]
        if not alive:
            continue
        asked = world.ask(asked.what, scene.kernel_id, alive[-1], request_id=asked.request_id)
        world.run_until(lambda a=asked: a.done, within=70.0)


def _strike(world: World, name: str, blow: Blow) -> None:
    process = world.proxies[name].process
    if blow in (Blow.FREEZE, Blow.FREEZE_LATE):
        process.freeze()
        world.loop.call_later(30.0, process.thaw)
        return
    world.kill(name)
    if blow is Blow.KILL_ONLY:
        world.loop.call_later(10.0, lambda: world.revive(name))


def _watch(world: World, step: Callable[[ProxyServer, str | None], None]) -> None:
    for proxy in world.proxies.values():
        proxy.process.on_step = lambda operation, p=proxy: step(p, operation)
