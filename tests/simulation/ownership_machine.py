"""Hypothesis's choices for the cluster: what clients ask, which faults come together, and when.

At the end all faults stop, and the judge waits for record and nodes to agree.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast_proxy.config import Mode
from simulation.ownership_judge import Judge
from simulation.simulated_network import Call, Fate, Lost
from simulation.simulated_world import World

NAMES = ("a", "b", "c")
PLACES = st.sampled_from(["store", "node-1", "node-2", *NAMES])
#: Seconds that a fault lasts: shorter than a lease, about as long, and much longer.
AWAY = st.sampled_from([0.5, 3.0, 8.0, 30.0])
FATES = st.one_of(
    st.builds(Fate, lost=st.sampled_from(list(Lost))),
    st.builds(Fate, request=st.sampled_from([0.5, 3.0, 9.0, 40.0])),
    st.builds(Fate, answer=st.sampled_from([0.5, 3.0, 9.0])),
    st.builds(Fate, again=st.sampled_from([0.0, 2.0, 8.0])),
)


class ClusterStory(RuleBasedStateMachine):
    """Three proxies, two nodes, a few kernels."""

    @initialize(mode=st.sampled_from(list(Mode)))
    def begin(self, mode: Mode) -> None:
        self.world = World(proxies=len(NAMES), nodes=2, mode=mode)
        self.judge = Judge(self.world)
        self.fates: dict[str, list[Fate]] = {name: [] for name in NAMES}
        # Of these only what is sent for a client's call takes a fate.
        self.focused: set[str] = set()
        self.requests = 0
        self.world.network.decide = self._decide
        # Kernels to disturb: without them most stories would never get anywhere.
        for proxy in NAMES[:2]:
            self.world.ask("start", self.world.new_id(), proxy)
        assert self.world.run_until(self._runs, within=30.0)

    def _runs(self) -> bool:
        return all(asked.ok for asked in self.world.asked)

    def _decide(self, call: Call) -> Fate | None:
        """The next fate of what this proxy sends and might change something."""
        waiting = self.fates.get(call.sender)
        if not waiting or not call.acts:
            return None
        if call.sender in self.focused and call.operation is None:
            return None
        fate = waiting.pop(0)
        if fate.again is not None and "restart" in call.what:
            return None  # without a request id nobody could tell the second one from the first
        return fate

    # --- clients ---

    @precondition(lambda self: len(self.world.kernel_ids) < 6)
    @rule(proxy=st.sampled_from(NAMES))
    def start(self, proxy: str) -> None:
        self.world.ask("start", self.world.new_id(), proxy)

    @precondition(lambda self: self.world.kernel_ids)
    @rule(proxy=st.sampled_from(NAMES), data=st.data(), named=st.booleans())
    def ask(self, proxy: str, data: st.DataObject, named: bool) -> None:
        """The same start again, a restart, a deletion, at any proxy."""
        what = data.draw(st.sampled_from(["start", "restart", "delete"]))
        kernel_id = data.draw(st.sampled_from(self.world.kernel_ids))
        self.requests += 1
        request_id = f"r-{self.requests}" if named else None
        self.world.ask(what, kernel_id, proxy, request_id=request_id)

    @precondition(lambda self: self.world.kernel_ids)
    @rule(
        what=st.sampled_from(["new", "start", "restart", "delete"]),
        place=st.integers(0, 4),
        proxy=st.sampled_from(NAMES),
        late=st.one_of(st.none(), st.tuples(st.integers(0, 4), st.sampled_from([6.0, 9.0, 14.0]))),
        after=st.integers(0, 12),
        dies=st.booleans(),
        away=st.sampled_from([1.0, 8.0, 12.0, 30.0]),
    )
    def stall(
        self,
        what: str,
        place: int,
        proxy: str,
        late: tuple[int, float] | None,
        after: int,
        dies: bool,
        away: float,
    ) -> None:
        """A proxy is killed or frozen ``after`` milliseconds into what it was asked for, and the
        others have time to take over; one of its calls may be ``late``."""
        ids = self.world.kernel_ids
        new = what == "new" and len(ids) < 6
        kernel_id = self.world.new_id() if new else ids[place % len(ids)]
        asked = "start" if what == "new" else what
        if late is not None:
            self.fates[proxy] = [Fate()] * late[0] + [Fate(request=late[1])]
            self.focused.add(proxy)
        self.world.ask(asked, kernel_id, proxy, operation="asked")
        self.world.run(after / 1000)
        if dies:
            self.kill(proxy, away)
        else:
            self.freeze(proxy, away)
        self.world.run(away + 0.2)

    # --- faults ---

    @rule(proxy=st.sampled_from(NAMES), away=AWAY)
    def kill(self, proxy: str, away: float) -> None:
        self.world.kill(proxy)
        self.world.loop.call_later(away, self.world.revive, proxy)

    @rule(proxy=st.sampled_from(NAMES), away=AWAY)
    def freeze(self, proxy: str, away: float) -> None:
        process = self.world.proxies[proxy].process
        process.freeze()
        self.world.loop.call_later(away, process.thaw)

    @rule(proxy=st.sampled_from(NAMES), fates=st.lists(FATES, min_size=1, max_size=4))
    def upset(self, proxy: str, fates: list[Fate]) -> None:
        """What becomes of the next calls of one proxy."""
        self.fates[proxy] = fates
        self.focused.discard(proxy)

    @rule(proxy=st.sampled_from(NAMES), place=PLACES, both=st.booleans(), away=AWAY)
    def cut(self, proxy: str, place: str, both: bool, away: float) -> None:
        if proxy != place:
            self.world.cut(proxy, place, both=both)
            self.world.loop.call_later(away, self.world.join, proxy, place)

    @rule(node=st.sampled_from(["node-1", "node-2"]), away=AWAY)
    def launcher(self, node: str, away: float) -> None:
        """The launcher alone goes away: its keepers and kernels go on."""
        self.world.launcher_down(node)
        self.world.loop.call_later(away, self.world.launcher_up, node)

    # --- time ---

    @rule(seconds=st.sampled_from([0.001, 0.003, 0.01, 0.1, 1.0, 4.0, 7.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.run(seconds)

    @invariant()
    def nothing_is_broken(self) -> None:
        if hasattr(self, "judge"):
            self.judge.check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        with self.world:
            self.judge.check()
            self.fates = {}
            self.world.heal()
            self.judge.settle(within=900.0)
