"""papermill finds our engine by its name, and it is only imported when it is wanted."""

from __future__ import annotations

import subprocess
import sys

from papermill.engines import NBClientEngine, papermill_engines

from holdfast_client_shim.client import engine


def test_papermill_finds_it() -> None:
    papermill_engines.register_entry_points()
    found = papermill_engines.get_engine("holdfast")
    assert found is engine.HoldfastEngine
    assert issubclass(found, NBClientEngine)


def test_the_module_needs_no_papermill() -> None:
    program = (
        "import sys; sys.modules['papermill'] = None\n"
        "import holdfast_client_shim.client.engine as engine\n"
        "assert not hasattr(engine, 'Other')\n"
        "try:\n    engine.HoldfastEngine\nexcept ImportError:\n    print('said')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "said\n", done.stderr
