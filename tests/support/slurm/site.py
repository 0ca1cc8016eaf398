"""Slurm as a site runs it: munged, slurmctld and three slurmd, started and ended by pid.

Everything is in one temporary directory and on ports of its own, so several may run at once. What
jobs leave behind is found by the cluster's name, which no other cluster has and which Slurm puts
into the environment of each job.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from support.processes import ManagedProcess, free_port, wait_until
from support.system import need_command

_CONF = """\
ClusterName={cluster}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmctldParameters=preempt_send_user_signal
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge/munge.sock
CredType=cred/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd-%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd-%n.log
SlurmctldDebug=verbose
SlurmdDebug=verbose
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=1
KillWait={kill_wait}
SlurmdTimeout=6
InactiveLimit=0
OverTimeLimit=0
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=spare Nodes=ALL State=UP PriorityTier=1 PreemptMode=CANCEL GraceTime=5
"""


class SlurmSite:
    """``nodes`` machines of two processors each. ``binaries``: the packages are installed."""

    def __init__(self, base: Path, *, nodes: int = 3, kill_wait: int = 3) -> None:
        for command, package in (("sbatch", "slurm-wlm"), ("munged", "munge")):
            need_command(command, package=package)
        self.base = base
        self.cluster = f"hf{os.getpid()}{secrets.token_hex(3)}"
        self.conf = base / "slurm.conf"
        for name in ("state", "log", "munge", *(f"spool/n{n + 1}" for n in range(nodes))):
            (base / name).mkdir(parents=True)
        base.chmod(0o755)
        (base / "munge").chmod(0o711)
        key = base / "munge" / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        host = socket.gethostname()
        lines = [
            f"NodeName=n{n + 1} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2 "
            "RealMemory=4000"
            for n in range(nodes)
        ]
        text = _CONF.format(
            cluster=self.cluster, host=host, port=free_port(), base=base, nodes="\n".join(lines),
            kill_wait=kill_wait,
        )  # fmt: skip
        self.conf.write_text(text)
        self._env = {**os.environ, "SLURM_CONF": str(self.conf)}
        munge = base / "munge"
        self.munged = self._daemon(
            "munged", "--foreground", "--force", f"--key-file={key}",
            f"--socket={munge}/munge.sock", f"--pid-file={munge}/munged.pid",
            f"--log-file={munge}/munged.log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        self.controller = self._daemon("slurmctld", "-D", "-f", str(self.conf))
        self.nodes = [
            self._daemon("slurmd", "-D", "-N", f"n{n + 1}", "-f", str(self.conf), name=f"n{n + 1}")
            for n in range(nodes)
        ]

    def __repr__(self) -> str:
        return f"<SlurmSite {self.cluster}>"

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to use this cluster's commands."""
        return {"SLURM_CONF": str(self.conf)}

    def start(self) -> SlurmSite:
        """Start everything and wait until all nodes are idle."""
        try:
            self.munged.start()
            socket_path = self.base / "munge" / "munge.sock"
            wait_until(socket_path.exists, seconds=30, what="munged")
            self.controller.start()
            for node in self.nodes:
                node.start()
            self.wait_up()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_up(self, *, seconds: float = 60) -> None:
        """Wait until the controller answers and every node that runs is usable."""
        wanted = {f"n{n + 1}" for n, node in enumerate(self.nodes) if node.alive}

        def up() -> bool:
            states = self.node_states()
            return bool(states) and all(
                states.get(name, "") in ("idle", "mixed", "allocated") for name in wanted
            )

        wait_until(up, seconds=seconds, what="Slurm's nodes")

    def node_states(self) -> dict[str, str]:
        """Node → state in lower case, with Slurm's marks (``*``: does not answer)."""
        text = self.run("sinfo", "--noheader", "--Node", "--format=%N %T", check=False)
        return dict(line.split() for line in text.splitlines() if len(line.split()) == 2)

    def run(self, *command: str, check: bool = True, stdin: str | None = None) -> str:
        """One of Slurm's commands; its output."""
        done = subprocess.run(
            command, env=self._env, capture_output=True, text=True, timeout=30, check=False,
            input=stdin,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout if done.returncode == 0 else ""

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs that the controller remembers."""
        text = self.run("squeue", "--json", check=False)
        return list(json.loads(text)["jobs"]) if text else []

    def running(self) -> list[dict[str, Any]]:
        return [job for job in self.jobs() if job["job_state"] == "RUNNING"]

    def fill(self, *, partition: str = "main", cpus: int = 2, nodes: int = 3) -> str:
        """A job that takes all of ``nodes`` machines until it is cancelled; its number."""
        return self.run(
            "sbatch", "--parsable", f"--partition={partition}", f"--nodes={nodes}",
            f"--ntasks-per-node={cpus}", "--output=/dev/null", "--time=60", "--mem-per-cpu=100",
            stdin="#!/bin/sh\nexec sleep 600\n",
        ).strip()  # fmt: skip

    def stop(self) -> None:
        """End everything, jobs included. Idempotent."""
        for process in (self.controller, *self.nodes, self.munged):
            if process.alive:
                process.signal(signal.SIGCONT)
        if self.controller.alive:
            self.run("scancel", "--signal=KILL", "--full", "--state=RUNNING", check=False)
        for process in (*self.nodes, self.controller):
            process.stop(5)
        self.end_leftovers()
        self.munged.stop(5)

    def leftovers(self, *, node: str | None = None) -> list[psutil.Process]:
        """The processes of jobs (of one machine if it is named) and the steps' daemons above them.

        A step's daemon writes over its own environment, so it is found as a job's parent.
        """
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if self._is_ours(process, node):
                    found[process.pid] = process
                    parent = process.parent()
                    if parent is not None and parent.name().startswith("slurmstepd"):
                        found[parent.pid] = parent
        return list(found.values())

    def end_leftovers(self, *, node: str | None = None) -> None:
        # The steps' daemons first: they would tell the controller of their jobs' ends.
        found = self.leftovers(node=node)
        for process in sorted(found, key=lambda one: not one.name().startswith("slurmstepd")):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(self.leftovers(node=node), timeout=5)

    def _is_ours(self, process: psutil.Process, node: str | None) -> bool:
        env = process.environ()
        if env.get("SLURM_CLUSTER_NAME") != self.cluster:
            return False
        return node is None or env.get("SLURMD_NODENAME") == node

    def _daemon(self, command: str, *arguments: str, name: str | None = None) -> ManagedProcess:
        path = shutil.which(command) or f"/usr/sbin/{command}"
        log = self.base / "log" / f"{name or command}.out"
        return ManagedProcess(name or command, [path, *arguments], log=log, env=self._env)


if __name__ == "__main__":  # a cluster to try things on: python -m support.slurm.site DIRECTORY
    site = SlurmSite(Path(sys.argv[1])).start()
    print(f"export SLURM_CONF={site.conf}", flush=True)
    try:
        signal.pause()
    finally:
        site.stop()
