"""Makes one proxy's ``Administrator`` from the parts that ``assembly`` has wired."""

from __future__ import annotations

from holdfast_protocol.keys import Keys
from holdfast_proxy.config import ProxyConfig
from holdfast_proxy.ownership.calls.calling import Caller
from holdfast_proxy.ownership.calls.peers import Peers
from holdfast_proxy.ownership.history.narrator import Narrator
from holdfast_proxy.ownership.overview.administrator import Administrator, Facts
from holdfast_proxy.ownership.overview.checking import Checks
from holdfast_proxy.ownership.overview.etcd_probe import EtcdProbe
from holdfast_proxy.ownership.overview.peer_states import PeerStates
from holdfast_proxy.ownership.parts import Parts
from holdfast_proxy.store.contract import Store


def administer(
    config: ProxyConfig, parts: Parts, *, store: Store, caller: Caller, peers: Peers
) -> Administrator:
    """Nothing is asked or connected here. ``config`` has a cluster key."""
    assert config.cluster_key is not None
    narrator = Narrator(
        store=store,
        keys=Keys(config.cluster),
        view=parts.view,
        member=parts.member,
        peers=peers,
        ownership=parts.ownership,
        timeline=parts.timeline,
        tasks=parts.tasks,
        clock=parts.clock,
    )
    return Administrator(
        facts=Facts(cluster=config.cluster, mode=config.mode.value),
        parts=parts,
        peers=PeerStates(
            me=config.id,
            cluster_key=config.cluster_key.reveal(),
            view=parts.view,
            caller=caller,
            clock=parts.clock,
        ),
        etcd=EtcdProbe(
            store=store,
            member=parts.member,
            endpoints=config.etcd.endpoints,
            clock=parts.clock,
        ),
        checks=Checks(parts=parts, caller=caller),
        narrator=narrator,
    )
