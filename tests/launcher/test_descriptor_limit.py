"""What a launcher and its keepers may open."""

from __future__ import annotations

import resource
import subprocess
import sys

from holdfast_launcher.descriptors import ENOUGH, wanted_limit


def test_the_limit_goes_up_to_what_the_administrator_allows_and_is_enough() -> None:
    endless = resource.RLIM_INFINITY
    assert wanted_limit(1024, 20_000) == 20_000
    assert wanted_limit(1024, 524_288) == ENOUGH
    assert wanted_limit(1024, endless) == ENOUGH
    assert wanted_limit(100_000, endless) == 100_000, "never lower than it is"
    assert wanted_limit(endless, endless) == endless


def test_a_process_has_it_afterwards() -> None:
    code = (
        "import resource\nfrom holdfast_launcher.descriptors import raise_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2000))\n"
        "print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2000", "2000", "2000"]
