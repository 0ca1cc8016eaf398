"""Who decides whether a story went right: what must hold at each effect, and what in the end.

It reads the store, the nodes and the clients' answers as they truly are, which no proxy can. Each
complaint begins with the name of the claim that was broken, one of ``CLAIMS``.
"""

from __future__ import annotations

from collections import Counter

from holdfast_protocol.kernel_records import KernelRecord, KernelState, Tombstone, decode_kernel
from holdfast_protocol.keys import Kind
from holdfast_protocol.records import ProxyRecord
from simulation.simulated_network import Call
from simulation.simulated_node import Effect
from simulation.simulated_world import Asked, World

CLAIMS = {
    "EFFECT": "no call takes effect once a later claim is in effect",
    "LEASE": "nothing is started or ended by a proxy whose lease has ended at the store",
    "ONE KERNEL": "no two kernels run for one kernel id",
    "ONCE": "a start, and a restart that was asked for once, act at most once",
    "GONE": "what was deleted never starts again",
    "AGREEMENT": "after the faults, every record says what runs, and everything that runs has one",
    "ANSWERED": "what a client was told came true and stays so",
    "MONOTONE": "an acknowledged token never falls",
}


class Broken(AssertionError):
    """A claim was broken."""


class Judge:
    """Watches one world. ``complaints`` in the order in which they arose."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.complaints: list[str] = []
        self._judged = 0
        self._highest: dict[tuple[str, str], object] = {}
        self._may_die: set[str] = set()
        world.network.on_call = self._sent
        world.effects = _Watched(self._acted)
        for launcher in world.nodes.values():
            launcher._tell = world.effects.append

    def __repr__(self) -> str:
        return f"<Judge: {self.complaints or 'content'}>"

    def complain(self, claim: str, text: str) -> None:
        assert claim in CLAIMS
        self.complaints.append(f"{claim}: {text} (at {self._world.loop.time():.3f} s)")

    def check(self) -> None:
        """Raises Broken for what was seen so far."""
        self._tokens()
        if self.complaints:
            raise Broken("\n".join(self.complaints))

    # --- at each call and effect ---

    def _sent(self, call: Call) -> None:
        proxy = self._world.proxies.get(call.sender)
        method, _, path = call.what.partition(" ")
        ends_or_starts = method in ("PUT", "DELETE") or path in ("/v1/start", "/v1/shutdown")
        if proxy is None or call.to in ("store", *self._world.proxies) or not ends_or_starts:
            return
        found = self._world.etcd.get(self._world.keys.of(Kind.PROXY, proxy.name))
        if found is None or ProxyRecord.decode(found.value).boot_id != proxy.cluster.boot_id:
            self.complain("LEASE", f"{call.sender} sends {call.what} to {call.to}")

    def _acted(self, effect: Effect) -> None:
        at_launcher, at_keeper = effect.fences
        known = [fence for fence in effect.fences if fence is not None]
        both = at_launcher is not None and at_keeper is not None
        in_effect = min(known) if both else at_launcher
        if in_effect is not None and effect.token < in_effect:
            self.complain("EFFECT", f"{effect} although {in_effect} was in effect")
        if effect.what == "start":
            self._started(effect)
        if effect.what == "restart":
            self._restarted(effect)

    def _started(self, effect: Effect) -> None:
        world, kernel_id = self._world, effect.kernel_id
        running = [node for node, keeper in world.keepers(kernel_id) if keeper.runs]
        if len(running) > 1:
            self.complain("ONE KERNEL", f"{kernel_id} runs on {running}")
        starts = [e for e in world.effects if e.kernel_id == kernel_id and e.what == "start"]
        if len(starts) > 1:
            self.complain("ONCE", f"{kernel_id} was started {len(starts)} times")
        if isinstance(self.record(kernel_id), Tombstone):
            self.complain("GONE", f"{kernel_id} was started after its deletion")

    def _restarted(self, effect: Effect) -> None:
        world, kernel_id = self._world, effect.kernel_id
        done = [e for e in world.effects if e.kernel_id == kernel_id and e.what == "restart"]
        wished = [a for a in world.asked if a.kernel_id == kernel_id and a.what == "restart"]
        by_id = Counter(e.request_id for e in done if e.request_id is not None)
        if any(count > 1 for count in by_id.values()):
            self.complain("ONCE", f"a restart of {kernel_id} with a request id acted twice")
        if len(done) > len(wished):
            self.complain("ONCE", f"{kernel_id}: {len(done)} restarts for {len(wished)} requests")

    def _tokens(self) -> None:
        for name, launcher in self._world.nodes.items():
            fences = {("launcher", k): fenced.fence for k, fenced in launcher.fences.items()}
            fences |= {(k.nonce, k.kernel_id): k.fenced.fence for k in launcher.keepers.values()}
            for place, fence in fences.items():
                before = self._highest.get((name, str(place)))
                if before is not None and (fence is None or fence < before):
                    self.complain("MONOTONE", f"{place} on {name}: {before}, then {fence}")
                if fence is not None:
                    self._highest[name, str(place)] = fence

    # --- in the end ---

    def record(self, kernel_id: str) -> KernelRecord | Tombstone | None:
        found = self._world.etcd.get(self._world.keys.of(Kind.KERNEL, kernel_id))
        return None if found is None else decode_kernel(found.value)

    def unsettled(self) -> list[str]:
        """What record and node disagree about now, per kernel."""
        return [text for kernel_id in self._world.kernel_ids for text in self._differs(kernel_id)]

    def _differs(self, kernel_id: str) -> list[str]:
        record, keepers = self.record(kernel_id), self._world.keepers(kernel_id)
        running = [(node, keeper.nonce) for node, keeper in keepers if keeper.runs]
        there = [(node, keeper.nonce) for node, keeper in keepers]
        name = kernel_id[-4:]
        if record is None or isinstance(record, Tombstone):
            what = "no record" if record is None else "a tombstone"
            return [f"{name}: {what}, but keepers on {there}"] if there else []
        match record.state:
            case KernelState.STARTING | KernelState.DELETING:
                return [f"{name}: still {record.state.value}, keepers {there}"]
            case KernelState.DEAD:
                return [f"{name}: dead ({record.reason}), but runs on {running}"] if running else []
            case KernelState.RUNNING:
                right = running == [(record.launcher_id, record.nonce)]
                return [] if right else [f"{name}: running, but found {running or there}"]
        raise AssertionError(record.state)

    def settle(self, *, within: float = 400.0) -> float:
        """Let time pass until record and nodes agree; the seconds that it took.

        Raises Broken when they do not, or when anything else was broken meanwhile.
        """
        began = self._world.loop.time()
        if not self._world.run_until(lambda: not self.unsettled(), within=within, step=0.5):
            for text in self.unsettled():
                self.complain("AGREEMENT", text)
        took = self._world.loop.time() - began
        if not self.complaints:
            self._world.run(12.0)  # what is settled stays so, through two sweeps
            for text in self.unsettled():
                self.complain("AGREEMENT", f"no more: {text}")
        self.answers()
        self.check()
        return took

    def answers(self) -> None:
        """Were the clients told the truth?"""
        for asked in self._world.asked:
            record = self.record(asked.kernel_id)
            deleted = any(
                a.what == "delete" and a.kernel_id == asked.kernel_id for a in self._world.asked
            )
            if asked.what == "start" and asked.ok and not deleted:
                self._kept(asked, record)
            if asked.what == "delete" and asked.ok and not isinstance(record, Tombstone):
                self.complain("ANSWERED", f"{asked} was done, and the record is {record}")

    def _kept(self, asked: Asked, record: KernelRecord | Tombstone | None) -> None:
        running = isinstance(record, KernelRecord) and record.state is KernelState.RUNNING
        if not running:
            self.complain("ANSWERED", f"{asked} was done, and the record is {record}")


class _Watched(list[Effect]):
    def __init__(self, listener: object) -> None:
        super().__init__()
        self._listener = listener

    def append(self, effect: Effect) -> None:
        super().append(effect)
        self._listener(effect)  # type: ignore[operator]
