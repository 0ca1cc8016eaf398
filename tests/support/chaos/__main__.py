"""``python -m support.chaos``: one run with its verdict. Exit code 0: every promise was kept.

1: some were not, or some faults could not be made; 2: wrong arguments; 3: no history was made.
Without the right to make network namespaces it says so and ends with 0, in CI ($CI) with 3.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from support.chaos.archive import read_archive
from support.chaos.checker.judge import judge
from support.chaos.network import NoNamespaces
from support.chaos.options import Options, parse
from support.chaos.report import keep_figures, keep_run, table
from support.chaos.run import Run
from support.chaos.schedule import plan

_INSIDE = "CHAOS_INSIDE"
_ENTER = ("/usr/bin/unshare", "--net", "--mount", "--propagation", "private")


def main() -> int:
    """Enter a namespace, then run."""
    options = parse()
    faults = plan(options.seed, options.seconds, only=options.only)
    if options.dry:
        print(*faults, sep="\n")
        return 0
    if os.environ.get(_INSIDE) == str(os.getppid()):
        return _run(options)
    tried = subprocess.run([*_ENTER, "/bin/true"], check=False, capture_output=True)
    if tried.returncode != 0:
        return _without_namespaces(tried.stderr.decode(errors="replace").strip())
    # The marker names its parent, so that nobody's leftover environment stands for a namespace.
    inside = [sys.executable, "-m", "support.chaos", *options.arguments()]
    command = [*_ENTER, *inside]
    env = {**os.environ, _INSIDE: str(os.getpid())}
    # A session of its own: Ctrl-C comes to us alone, and the run is told once, to end all it began.
    with subprocess.Popen(command, env=env, start_new_session=True) as child:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: child.send_signal(signal.SIGINT))
        return child.wait()


def _without_namespaces(why: str) -> int:
    print(f"chaos: skipped: no network namespace of our own here ({why}); run it as root")
    return 3 if os.environ.get("CI") else 0


def _run(options: Options) -> int:
    # A shell that runs us in the background ignores SIGINT for us, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faults = plan(options.seed, options.seconds, only=options.only)
    print(f"chaos: seed {options.seed}, {options.seconds:g} s, {len(faults)} faults")
    print(*faults, sep="\n", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="holdfast-chaos-"))
    run = Run(options, faults, directory / "run")
    (directory / "run").mkdir()
    passed = False
    try:
        try:
            asyncio.run(run.run())
        except NoNamespaces as error:
            return _without_namespaces(str(error))
        except (AssertionError, TimeoutError, KeyboardInterrupt) as error:
            print(f"chaos: the run broke off: {error!r}")
            return 3
        verdict = judge(read_archive(directory / "run"))
        print(f"\nagain: python -m support.chaos {' '.join(options.arguments())}\n")
        print(table(verdict), flush=True)
        for failure in run.failed:
            print(f"not made: {failure}")
        keep_figures(verdict)
        passed = verdict.holds and not run.failed
        return 0 if passed else 1
    finally:
        if options.keep or not passed:
            kept = keep_run(directory / "run", f"chaos-{options.seed}")
            print(f"history and logs: {kept or 'set HOLDFAST_ARTEFACTS to keep them'}")
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
