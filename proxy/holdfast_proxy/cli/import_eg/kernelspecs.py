"""From a kernelspec with a process proxy to one without. Pure, but for reading the folders.

A process proxy starts a program of its own which starts the kernel and calls back. Here a keeper
starts the kernel itself, so the command becomes the kernel's own. Where that program does more
than that (it submits to Spark, it makes a container), nothing is guessed: the line says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from .findings import Fate, Finding
from .sources import SourceError, read_text

#: What a kernel's own files may be, besides kernel.json; scripts are the process proxy's.
_KEPT_FILES: Final = ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg", "kernel.js", "kernel.css")
_WITHOUT_ENGINE: Final[Mapping[str, str]] = {
    "YarnClusterProcessProxy": "YARN",
    "ConductorClusterProcessProxy": "IBM Spectrum Conductor",
    "KubernetesProcessProxy": "Kubernetes",
    "CustomResourceProcessProxy": "Kubernetes",
    "SparkOperatorProcessProxy": "Kubernetes (Spark operator)",
    "DockerSwarmProcessProxy": "Docker Swarm",
    "DockerProcessProxy": "Docker",
}
_STARTED_HERE: Final = frozenset({"LocalProcessProxy", "DistributedProcessProxy"})
_RESOURCES: Final = {"KERNEL_CPUS": "cpus", "KERNEL_MEMORY": "memory", "KERNEL_GPUS": "gpus"}
_IN_SPARK: Final = "spark-context-initialization-mode"


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """A kernelspec to be written. ``files``: what goes beside kernel.json."""

    name: str
    document: Mapping[str, Any]
    files: tuple[Path, ...] = ()


@dataclass(slots=True)
class Imported:
    """What came of all of them. ``hosts``: named by some as the machines to run on."""

    specs: list[KernelSpec] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)


def read_kernelspecs(folders: Sequence[Path], allowed: Sequence[str] | None) -> Imported:
    """Translate every ``<folder>/<name>/kernel.json``; the first of a name counts."""
    result, seen = Imported(), set[str]()
    for path in sorted(spec for folder in folders for spec in folder.glob("*/kernel.json")):
        name = path.parent.name.lower()
        if name in seen or (allowed is not None and name not in allowed):
            continue
        seen.add(name)
        try:
            document = json.loads(read_text(path))
            if not isinstance(document, dict):
                raise TypeError("not a JSON object")
        except (SourceError, ValueError, TypeError) as error:
            result.findings.append(Finding(f"kernelspec {name}", Fate.NOT_READ, str(error)))
            continue
        spec = translate(name, document, result)
        if spec is not None:
            files = tuple(f for f in map(path.parent.joinpath, _KEPT_FILES) if f.is_file())
            result.specs.append(KernelSpec(name, spec, files))
    return result


def translate(name: str, document: Mapping[str, Any], result: Imported) -> dict[str, Any] | None:
    """The kernelspec as it is to be, or None when there is none; either way with its lines."""
    source = f"kernelspec {name}"
    metadata = {**_table(document.get("metadata"))}
    proxy = _table(metadata.pop("process_proxy", None))
    kind = str(proxy.get("class_name", "LocalProcessProxy")).rpartition(".")[2]
    if kind not in _STARTED_HERE:
        where = _WITHOUT_ENGINE.get(kind)
        text = f"there is no engine for {where}" if where else f"{kind} is not known here"
        result.findings.append(Finding(source, Fate.NO_COUNTERPART, f"{text}; it was left out"))
        return None
    argv = [str(part) for part in document.get("argv", [])]
    command = kernel_command(argv)
    if command is None:
        text = (
            f"its command ({' '.join(argv[:2])} …) is a launch program of the gateway's that is "
            "not known here; it was left out. Give argv the kernel's own command"
        )
        result.findings.append(Finding(source, Fate.NO_COUNTERPART, text))
        return None
    _report_config(source, _table(proxy.get("config")), result)
    if _spark_mode(argv) not in ("", "none"):
        text = "no Spark context is made when it starts; make one in the notebook"
        result.findings.append(Finding(source, Fate.NO_COUNTERPART, text))
    env = _table(document.get("env"))
    resources = _resources(env)
    if resources:
        metadata["holdfast"] = {**_table(metadata.get("holdfast")), "resources": resources}
    changed = {**document, "argv": command, "metadata": metadata}
    what = "as it is" if command == argv else f"starts {' '.join(command)}"
    result.findings.append(Finding(source, Fate.TAKEN, f"engine local, {what}"))
    return changed


def kernel_command(argv: Sequence[str]) -> list[str] | None:
    """The kernel's own command out of the gateway's; None when it cannot be told."""
    if any("{connection_file}" in part for part in argv):
        return list(argv)
    scripts = {PurePosixPath(part).name: place for place, part in enumerate(argv)}
    if "launch_ipykernel.py" in scripts:
        before = list(argv[: scripts["launch_ipykernel.py"]])
        python = before or ["python"]
        return [*python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    if "launch_IRkernel.R" in scripts:
        return ["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"]
    return None


def _report_config(source: str, config: Mapping[str, Any], result: Imported) -> None:
    for option, value in config.items():
        where = f"{source}, {option}"
        if option == "remote_hosts":
            hosts = [host.strip() for host in str(value).split(",") if host.strip()]
            result.hosts += [host for host in hosts if host not in result.hosts]
            text = "a launcher on each; this kernelspec belongs to those launchers only"
            result.findings.append(Finding(where, Fate.TAKEN, text))
        elif option == "port_range":
            text = "a kernel's keeper listens on one free port"
            result.findings.append(Finding(where, Fate.NOT_NEEDED, text))
        elif option in ("authorized_users", "unauthorized_users"):
            text = "a kernelspec is for everybody who may start kernels"
            result.findings.append(Finding(where, Fate.NO_COUNTERPART, text))
        else:
            result.findings.append(Finding(where, Fate.NO_COUNTERPART, "not known here"))


def _spark_mode(argv: Sequence[str]) -> str:
    for place, part in enumerate(argv[:-1]):
        if part.endswith(_IN_SPARK):
            return argv[place + 1]
    return ""


def _resources(env: Mapping[str, Any]) -> dict[str, Any]:
    """What the kernelspec's variables gave, in the words of ``metadata.holdfast.resources``."""
    found: dict[str, Any] = {}
    for variable, name in _RESOURCES.items():
        text = str(env.get(variable, "")).strip()
        if name == "memory" and text:
            found[name] = text.removesuffix("i")  # Kubernetes' "4Gi"
        elif text.isdecimal():
            found[name] = int(text)
    return found


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
