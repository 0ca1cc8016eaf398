"""Wires one proxy's parts together from its configuration; nothing is connected here."""

from __future__ import annotations

import hashlib
import secrets
import ssl
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from holdfast_protocol.keys import Keys
from holdfast_protocol.records import ProxyRecord
from holdfast_proxy.config import ConfigError, Mode, ProxyConfig
from holdfast_proxy.ownership.active import ActiveCluster
from holdfast_proxy.ownership.background import TaskSet
from holdfast_proxy.ownership.cache import ClusterView
from holdfast_proxy.ownership.calls.calling import Caller
from holdfast_proxy.ownership.calls.endpoints import Endpoints
from holdfast_proxy.ownership.calls.forwarding import Forwarder
from holdfast_proxy.ownership.calls.keepers import KeeperClient
from holdfast_proxy.ownership.calls.launcher_client import LauncherClient
from holdfast_proxy.ownership.calls.peers import Peers
from holdfast_proxy.ownership.clock import Clock
from holdfast_proxy.ownership.history.timeline import Timeline
from holdfast_proxy.ownership.kernels.writes import KernelWriter
from holdfast_proxy.ownership.leadership.authority import Authority, EveryProxy
from holdfast_proxy.ownership.leadership.one_leader import OneLeader
from holdfast_proxy.ownership.member import Member
from holdfast_proxy.ownership.nodes.kernelspecs import Kernelspecs
from holdfast_proxy.ownership.nodes.launchers import Launchers
from holdfast_proxy.ownership.nodes.reports import Reports
from holdfast_proxy.ownership.overview.wiring import administer
from holdfast_proxy.ownership.owner import Ownership
from holdfast_proxy.ownership.parts import Parts
from holdfast_proxy.ownership.sealing import Sealer
from holdfast_proxy.store.calls import Login
from holdfast_proxy.store.contract import Store
from holdfast_proxy.store.endpoints import TlsFiles
from holdfast_proxy.store.errors import Misuse
from holdfast_proxy.store.etcd import EtcdConfig, EtcdStore


def assemble(
    config: ProxyConfig, *, proxy_url: str, store: Store, clock: Clock | None = None
) -> ActiveCluster:
    """Raises ConfigError."""
    cluster_key = _checked(config)
    clock = clock or Clock()
    caller, view = Caller(), ClusterView(store=store, keys=Keys(config.cluster))
    peers = Peers(me=config.id, view=view, caller=caller, clock=clock, ttl=config.lease_ttl)
    member = _member(config, proxy_url, store, clock)
    parts = _parts(config, store, clock, Sealer([cluster_key]), caller, view, member, peers)
    forwarder = Forwarder(me=config.id, cluster_key=cluster_key, caller=caller, clock=clock)
    return ActiveCluster(
        parts=parts,
        store=store,
        caller=caller,
        peers=peers,
        forwarder=forwarder,
        administrator=administer(config, parts, store=store, caller=caller, peers=peers),
    )


def _parts(
    config: ProxyConfig,
    store: Store,
    clock: Clock,
    sealer: Sealer,
    caller: Caller,
    view: ClusterView,
    member: Member,
    peers: Peers,
) -> Parts:
    keys, tasks = Keys(config.cluster), TaskSet()
    reports = Reports(view=view, clock=clock)
    launchers = _launchers(config, store, view, reports, sealer, clock)
    client = LauncherClient(caller=caller, clock=clock)
    timeline = Timeline(store=store, keys=keys, proxy_id=config.id, clock=clock)
    authority: Authority = EveryProxy()
    if config.mode is Mode.ACTIVE_PASSIVE:
        authority = OneLeader(
            store=store, keys=keys, view=view, member=member, peers=peers, timeline=timeline
        )
    ownership = Ownership(
        store=store,
        keys=keys,
        view=view,
        member=member,
        peers=peers,
        authority=authority,
        tasks=tasks,
    )
    return Parts(
        clock=clock,
        view=view,
        member=member,
        authority=authority,
        ownership=ownership,
        writer=KernelWriter(store=store, keys=keys, view=view, member=member, authority=authority),
        sealer=sealer,
        reports=reports,
        endpoints=Endpoints(keys=keys, sealer=sealer),
        keepers=KeeperClient(caller=caller, clock=clock),
        launchers=launchers,
        launcher_client=client,
        kernelspecs=Kernelspecs(view=view, launchers=launchers, client=client, tasks=tasks),
        timeline=timeline,
        tasks=tasks,
        takeover_wait=config.takeover_wait,
        node_grace=config.node_grace,
    )


def _launchers(
    config: ProxyConfig,
    store: Store,
    view: ClusterView,
    reports: Reports,
    sealer: Sealer,
    clock: Clock,
) -> Launchers:
    return Launchers(
        store=store,
        keys=Keys(config.cluster),
        view=view,
        reports=reports,
        sealer=sealer,
        clock=clock,
        join_token=None if config.join_token is None else config.join_token.reveal(),
    )


def _member(config: ProxyConfig, proxy_url: str, store: Store, clock: Clock) -> Member:
    return Member(
        store=store,
        keys=Keys(config.cluster),
        proxy_id=config.id,
        record=_registration(config, proxy_url),
        mode=config.mode.value,
        ttl=config.lease_ttl,
        clock=clock,
    )


def _checked(config: ProxyConfig) -> str:
    """The cluster key, which every proxy of a cluster needs."""
    if config.cluster_key is None:
        raise ConfigError(
            "cluster_key_file is missing: proxies seal secrets in etcd and know each other by it. "
            "Put the same random secret into a file of mode 0600 for every proxy"
        )
    return config.cluster_key.reveal()


def connect_store(config: ProxyConfig) -> Store:
    """The etcd that the configuration names. Call it on the loop. Raises ConfigError."""
    etcd = config.etcd
    login = None
    if etcd.user is not None:
        if etcd.password is None:
            raise ConfigError("etcd.user needs etcd.password_file")
        login = Login(etcd.user, etcd.password.reveal())
    tls = None
    if etcd.ca_file is not None or etcd.cert_file is not None:
        tls = TlsFiles(ca=_path(etcd.ca_file), cert=_path(etcd.cert_file), key=_path(etcd.key_file))
    try:
        return EtcdStore(EtcdConfig(endpoints=etcd.endpoints, tls=tls, login=login))
    except Misuse as error:
        raise ConfigError(f"etcd: {error}") from error


def _registration(config: ProxyConfig, proxy_url: str) -> ProxyRecord:
    try:
        software = version("holdfast")
    except PackageNotFoundError:
        software = "0"
    return ProxyRecord(
        url=proxy_url.rstrip("/"),
        boot_id=secrets.token_hex(16),
        software=software,
        fingerprint=None if config.tls_cert is None else _fingerprint(Path(config.tls_cert)),
    )


def _fingerprint(path: Path) -> str:
    """SHA-256 hex of the first certificate in a PEM file. Raises ConfigError."""
    end = "-----END CERTIFICATE-----"
    try:
        text = path.read_text(encoding="ascii")
        first = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()
    except (OSError, ValueError) as error:
        raise ConfigError(f"tls_cert: no certificate in {path}: {error}") from error


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)
