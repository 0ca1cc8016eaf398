"""What is well and what is not, and what to do about it. Pure: facts in, findings out.

Every finding that is not well says what to do. Clocks: leases and deadlines do not depend on wall
time, but what people read and certificates do, so a skew is a warning and never a problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ..display.text import plain
from ..display.times import span
from .facts import Certificate, ConfigFacts, FileFacts, Installed, NotebookFacts, ProxyFacts
from .findings import Finding, note, ok, problem, warning

#: Seconds by which clocks may differ without a word.
SKEW = 2.0
#: Seconds after which a lease that was not renewed is worth one: a proxy renews every second.
LEASE_AGE = 3.0
#: Days before a certificate's end from which it is spoken of.
EXPIRY_DAYS = 21


def check_proxies(proxies: Sequence[ProxyFacts]) -> list[Finding]:
    """Each by itself."""
    found: list[Finding] = []
    for proxy in proxies:
        found += _proxy(proxy)
    answering = [proxy for proxy in proxies if proxy.state is not None]
    if len(answering) == 1 and len(proxies) == 1:
        found.append(
            note(
                "proxies",
                "there is only one: when it is away, notebooks wait until it is back",
                "run a second one, with the same cluster, cluster key and etcd",
            )
        )
    return found


def _proxy(proxy: ProxyFacts) -> list[Finding]:
    name = proxy.expected_id or proxy.url
    if proxy.state is None:
        todo = "look at its log and its supervisor; is it running, and is the address right?"
        if proxy.refused:
            todo = "give a token of an administrator by --token-file"
        where = "" if name == proxy.url else f"{proxy.url}: "
        return [problem(name, f"{where}{proxy.error}", todo)]
    state = proxy.state
    name = str(state.get("id", name))
    found = []
    if state.get("status") in ("ready", "draining"):
        took = f"{proxy.round_trip * 1000:.0f} ms"
        found.append(ok(name, f"{state['status']} at {proxy.url}, answers in {took}"))
    else:
        why = plain(state.get("message") or "it does not say why")
        found.append(
            problem(name, f"{state.get('status')}: {why}", "look at etcd, then at its log")
        )
    age = state.get("lease_age")
    if age is not None and age > LEASE_AGE:
        text = f"its lease was renewed {span(age)} ago; it should be every second"
        todo = "look at the way from this proxy to etcd, and at its load"
        found.append(warning(name, text, todo))
    if proxy.certificate is not None:
        found += check_certificate(name, proxy.certificate, now=None)
    return found


def check_versions(installed: Installed, proxies: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """``proxies``: rows with id and version, of proxies and launchers alike."""
    versions: dict[str, list[str]] = {}
    for row in proxies:
        if row.get("version"):
            versions.setdefault(str(row["version"]), []).append(str(row["id"]))
    found = [ok("this machine", f"holdfast {installed.version}, Python {installed.python}")]
    if len(versions) > 1:
        told = "; ".join(f"{v}: {', '.join(sorted(ids))}" for v, ids in sorted(versions.items()))
        found.append(
            warning(
                "versions",
                f"several run: {told}",
                "finish the upgrade: a version works with the one before it, not with older ones",
            )
        )
    elif versions:
        (only,) = versions
        if only != installed.version:
            text = f"the cluster runs {only}, this machine has {installed.version}"
            found.append(note("versions", text, f'pip install "holdfast=={only}" here'))
        else:
            found.append(ok("versions", f"all run {only}"))
    for extra, names in installed.missing.items():
        text = f"what [{extra}] needs is not complete here: {', '.join(names)}"
        found.append(note("this machine", text, f'pip install "holdfast[{extra}]" if it should be'))
    return found


def check_clocks(skews: Mapping[str, float | None]) -> list[Finding]:
    """``skews``: seconds by which each clock is ahead of one and the same other."""
    known = {name: skew for name, skew in skews.items() if skew is not None}
    if len(known) < 2:
        return []
    first, last = min(known, key=lambda n: known[n]), max(known, key=lambda n: known[n])
    apart = known[last] - known[first]
    if apart <= SKEW:
        return [ok("clocks", f"within {span(max(apart, 0.1))} of each other")]
    return [
        warning(
            "clocks",
            f"{last} is {span(apart)} ahead of {first}",
            "run an NTP client on both: times in lists and timelines, and certificates, go by them",
        )
    ]


def check_etcd(etcd: Mapping[str, Any]) -> list[Finding]:
    """``etcd`` of ``GET /holdfast/v1/checks``."""
    if not etcd.get("reachable"):
        where = ", ".join(map(str, etcd.get("endpoints", ())))
        return [
            problem(
                "etcd",
                f"it does not answer the proxies ({where}): starts, deletes and takeovers wait",
                "look at etcd's log, `etcdctl endpoint health`, and the way there. After a restore "
                "from a backup: holdfast doctor --new-era",
            )
        ]
    version, members = etcd.get("version"), etcd.get("members") or ()
    warnings = [str(text) for text in etcd.get("warnings") or ()]
    if warnings:
        found = [
            warning("etcd", plain(text), "upgrade etcd, one member after the other")
            for text in warnings
        ]
    else:
        found = [ok("etcd", f"{version} answers")]
    if len(members) == 1:
        found.append(
            note(
                "etcd",
                "it has one member: while that is away, nothing can be started or taken over",
                "run three members where that matters",
            )
        )
    elif members and len(members) % 2 == 0:
        found.append(
            note(
                "etcd",
                f"it has {len(members)} members, which bears no more losses than one fewer",
                "run an odd number of members",
            )
        )
    return found


def check_launchers(checks: Mapping[str, Any], cluster: Mapping[str, Any]) -> list[Finding]:
    """What the proxy that was asked reaches (``checks``), and what the cluster knows."""
    found = []
    for row in checks.get("launchers", ()):
        name = str(row["id"])
        if row.get("reachable") and not row.get("message"):
            took = f"{(row.get('round_trip') or 0) * 1000:.0f} ms"
            found.append(ok(name, f"answers {checks.get('self')} in {took}"))
        else:
            found.append(
                problem(
                    name,
                    f"{checks.get('self')} does not reach it at {row.get('url') or '?'}: "
                    f"{plain(row.get('message') or 'no answer')}",
                    "it sends heartbeats, so look at what is between: advertise_host, firewalls",
                )
            )
    asked = {str(row["id"]) for row in checks.get("launchers", ())}
    found += [
        problem(
            str(row["id"]),
            f"sends no heartbeats; {row.get('kernels', 0)} kernels are there and go on",
            "start it again: it finds its kernels by itself",
        )
        for row in cluster.get("launchers", ())
        if not row.get("alive") and str(row["id"]) not in asked
    ]
    if not any(row.get("alive") for row in cluster.get("launchers", ())):
        todo = "start one: holdfast launcher --config FILE"
        found.append(problem("launchers", "none is alive: no kernel can be started", todo))
    return found


def check_peers(checks: Mapping[str, Any]) -> list[Finding]:
    """Whether the proxy that was asked reaches the others."""
    return [
        problem(
            str(row["id"]),
            f"{checks.get('self')} does not reach it at {row.get('url')}: "
            f"{plain(row.get('message') or 'no answer')}",
            "proxies pass requests on to each other: look at advertised_url and firewalls",
        )
        for row in checks.get("proxies", ())
        if row.get("status") == "unreachable"
    ]


def check_certificate(
    subject: str, certificate: Certificate, *, now: datetime | None
) -> list[Finding]:
    """``now`` None: the present time."""
    now = now or datetime.now(certificate.not_after.tzinfo)
    ends = certificate.not_after.date().isoformat()
    if certificate.trusted is not None:
        text = f"its certificate is not trusted here: {certificate.trusted}"
        return [problem(subject, text, "name the authority by --ca-file, or renew the certificate")]
    if now < certificate.not_before:
        begins = certificate.not_before.isoformat(timespec="minutes")
        text = f"{certificate.subject} is not valid before {begins}"
        return [problem(subject, text, "look at the clocks, or issue it anew")]
    if now >= certificate.not_after:
        text = f"{certificate.subject} has expired on {ends}"
        return [problem(subject, text, "renew it and restart the proxy: clients refuse it")]
    left = certificate.not_after - now
    if left < timedelta(days=EXPIRY_DAYS):
        text = f"{certificate.subject} expires on {ends}, in {span(left.total_seconds())}"
        return [warning(subject, text, "renew it and restart the proxy")]
    return [ok(subject, f"{certificate.subject} is valid until {ends}")]


def check_files(files: Sequence[FileFacts]) -> list[Finding]:
    """Secrets that others on this machine can read."""
    found = []
    for file in files:
        subject = str(file.path)
        wanted = "0700" if file.directory else "0600"
        if file.mode is None:
            found.append(warning(subject, "it cannot be looked at", f"chmod {wanted[1:]} it"))
        elif file.mode & 0o077:
            text = f"others can read it (mode {file.mode:04o}), and it holds secrets"
            found.append(problem(subject, text, f"chmod {wanted[1:]} {subject}; then new secrets"))
    if not found and files:
        found.append(ok("files", "secrets are private"))
    return found


def check_configs(configs: Iterable[ConfigFacts], *, now: datetime | None = None) -> list[Finding]:
    found: list[Finding] = []
    for config in configs:
        subject = str(config.path)
        if config.error is not None:
            todo = "docs/reference/configuration.md has every key"
            found.append(problem(subject, config.error, todo))
            continue
        found.append(ok(subject, "can be used"))
        for certificate in config.certificates:
            found += check_certificate(subject, certificate, now=now)
    return found


def check_notebook(notebook: NotebookFacts) -> list[Finding]:
    """Whether the shim is really at work in a notebook server."""
    subject = f"notebook {notebook.url}"
    if notebook.status == 0:
        todo = "is that the address of a running Jupyter server?"
        return [problem(subject, f"it does not answer: {notebook.error}", todo)]
    if notebook.status in (401, 403):
        todo = "give its token by --notebook-token-file"
        return [problem(subject, "it does not let us ask", todo)]
    if notebook.status == 404:
        return [
            problem(
                subject,
                "the shim is not active: a lost proxy loses this server's outputs",
                'pip install "holdfast[shim]" into the environment of that server, start it with '
                "--gateway-url, and look for holdfast in its log",
            )
        ]
    if notebook.status == 200 and notebook.answer.get("active") is True:
        return [ok(subject, "the shim is active")]
    why = plain(notebook.answer.get("reason") or notebook.answer.get("message") or "")
    text = f"the shim is there and not active{': ' + why if why else ''} ({notebook.status})"
    todo = "look for holdfast in that server's log: another extension may have replaced it"
    return [problem(subject, text, todo)]
