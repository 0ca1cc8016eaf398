"""What the page decides in JavaScript (order, geometry, connection), under Node's own test runner.

The Node is the one that playwright's wheel brings, so it is there wherever the tests are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MODULES = Path(__file__).parent / "modules"


def find_node() -> str:
    """Playwright's Node, or one on PATH; skips the test, or fails it in CI, when there is none."""
    try:
        from playwright._impl._driver import compute_driver_executable

        bundled = str(compute_driver_executable()[0])
    except ImportError:
        bundled = ""
    node = bundled if Path(bundled).is_file() else shutil.which("node")
    if node is None:
        missing = "no Node: it comes with playwright (pip install playwright)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return node


def test_pure_modules() -> None:
    files = sorted(str(path) for path in MODULES.glob("*.test.js"))
    assert len(files) >= 5
    done = subprocess.run(
        [find_node(), "--test", *files], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "fail 0" in done.stdout
