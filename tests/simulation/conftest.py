"""How long the simulations are, and where their choices come from.

By default they are short and derandomized: the same examples each time, so that a failure is a
change's and no luck's. ``make simulation EXAMPLES=2000 SEED=7`` runs more, from a seed of its own;
a failure prints what replays it (docs/design/proofs.md).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, MutableMapping
from typing import Any, NoReturn

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

EXAMPLES = int(os.environ.get("HOLDFAST_EXAMPLES", "0"))


@pytest.fixture(autouse=True)
def _no_surprise() -> Iterator[None]:
    """Thousands of killed proxies say more than anybody can read, so only what nobody expected is
    kept: whatever the faults, no proxy may log a traceback."""
    surprises: list[str] = []

    def keep(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> NoReturn:
        error = event.get("exc_info")
        if error:
            surprises.append(f"{event}")
        raise structlog.DropEvent

    before = structlog.get_config()
    level = structlog.make_filtering_bound_logger(logging.ERROR)
    structlog.configure(wrapper_class=level, processors=[keep])
    yield
    structlog.configure(**before)
    assert not surprises, surprises[:5]


def profile(examples: int, *, steps: int, shrink: bool = True) -> settings:
    """Settings of one machine: ``examples``, or more when more are asked for."""
    phases = [Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if shrink else [])]
    return settings(
        max_examples=max(EXAMPLES, examples),
        stateful_step_count=steps,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        print_blob=True,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is split by size, a thousandth as large: the same code with small bytes."""
    monkeypatch.setattr("holdfast_protocol.stream.client.CHUNK_BYTES", 700)
    monkeypatch.setattr("holdfast_protocol.stream.keeper.CHUNK_BYTES", 700)
    monkeypatch.setattr("holdfast_launcher.keeper.serve.clients.talk.FRAME_BYTES", 700)
    monkeypatch.setattr("holdfast_launcher.keeper.serve.clients.talk.BATCH_BYTES", 3000)
