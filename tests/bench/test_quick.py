"""Round trip, burst and bulk, side by side in one run: ``make bench-quick``.

Figures are ratios to jupyter_client straight over ZMQ in the same run. The targets take turns,
so a slow moment of the machine hits all of them.
"""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from bench.targets import Target, all_targets
from support.cluster import Cluster
from support.figures import keep

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROUNDS = 300
BURST = 20_000
#: By the kernel's own session, as fast as ipykernel can: ``display()`` of ipykernel 7 flushes its
#: streams at each call and would measure that.
BURST_CODE = (
    "kernel = get_ipython().kernel\n"
    "parent, topic = kernel.get_parent(), b'display_data'\n"
    f"for i in range({BURST}):\n"
    "    kernel.session.send(kernel.iopub_socket, 'display_data',\n"
    "        {'data': {'text/plain': '%06d' % i + 'x' * 94}, 'metadata': {}, 'transient': {}},\n"
    "        parent=parent, ident=topic)\n"
)
BULK = 24
BULK_BYTES = 8 << 20
BULK_CODE = (
    "import os\nfrom comm import create_comm\n"
    f"data = os.urandom({BULK_BYTES})\nc = create_comm('bulk')\n"
    f"for i in range({BULK}): c.send({{'i': i}}, buffers=[data])\n"
)
REPEATS = 3


@pytest.fixture
async def targets(tmp_path: Path) -> AsyncIterator[list[Target]]:
    cluster = Cluster(tmp_path / "cluster").start()
    try:
        async with all_targets(cluster) as found:
            yield found
    finally:
        cluster.stop()


async def test_quick(targets: list[Target]) -> None:
    trips = await round_trips(targets)
    bursts = await many(targets, BURST_CODE, "display_data", BURST)
    bulks = await many(targets, BULK_CODE, "comm_msg", BULK)
    table = Table(title="one run, side by side")
    for column in ("target", "round trip p50", "above direct", "burst", "delivered", "bulk"):
        table.add_column(column, justify="left" if column == "target" else "right")
    base_trip = trips[targets[0].name]
    base_burst = bursts[targets[0].name][0]
    base_bulk = bulks[targets[0].name][1]
    ratios: dict[str, tuple[float, float, float]] = {}
    for target in targets:
        name = target.name
        above = trips[name] - base_trip
        burst_rate, _, delivered = bursts[name]
        _, bulk_rate, _ = bulks[name]
        ratios[name] = (above, burst_rate / base_burst, bulk_rate / base_bulk)
        table.add_row(
            name,
            f"{trips[name] * 1000:.2f} ms",
            f"{above * 1000:+.2f} ms",
            f"{burst_rate:,.0f}/s ({burst_rate / base_burst:.2f} x)",
            f"{delivered:,}",
            f"{bulk_rate / 1e6:,.0f} MB/s ({bulk_rate / base_bulk:.2f} x)",
        )
        keep(
            {
                "figure": f"bench-quick: {name}",
                "round_trip_p50_ms": round(trips[name] * 1000, 2),
                "above_direct_ms": round(above * 1000, 2),
                "burst_per_s": round(burst_rate),
                "burst_ratio": round(burst_rate / base_burst, 2),
                "delivered": delivered,
                "bulk_mb_per_s": round(bulk_rate / 1e6),
                "bulk_ratio": round(bulk_rate / base_bulk, 2),
            }
        )
    Console(width=110).print(table)
    for target in targets[1:3]:  # direct ZMQ itself may drop: the table shows it
        assert bursts[target.name][2] == BURST, f"{target.name} lost messages"
        assert bulks[target.name][2] == BULK, f"{target.name} lost buffers"


async def round_trips(targets: list[Target]) -> dict[str, float]:
    """p50 seconds of each target; the targets take turns, one request each."""
    times: dict[str, list[float]] = {target.name: [] for target in targets}
    for _ in range(ROUNDS):
        for target in targets:
            times[target.name].append(await target.round_trip())
    return {name: statistics.median(values) for name, values in times.items()}


async def many(
    targets: list[Target], code: str, msg_type: str, count: int
) -> dict[str, tuple[float, float, int]]:
    """Median (messages/s, bytes/s) of REPEATS turns, and the fewest messages that came."""
    runs: dict[str, list[tuple[float, float, int]]] = {target.name: [] for target in targets}
    for _ in range(REPEATS):
        for target in targets:
            burst = await target.burst(code, msg_type, count)
            seconds = max(burst.seconds, 1e-9)
            runs[target.name].append((burst.count / seconds, burst.size / seconds, burst.count))
    return {
        name: (
            statistics.median(rate for rate, _, _ in values),
            statistics.median(size for _, size, _ in values),
            min(count for _, _, count in values),
        )
        for name, values in runs.items()
    }
