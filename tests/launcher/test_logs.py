"""A log line that cannot be written raises nothing where it was to be written."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from holdfast_launcher.logs import unfailing


def test_a_line_on_a_full_disk_is_lost_and_nothing_else() -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115 - closing it fails, which is asserted
    with pytest.raises(OSError, match="No space left"):
        structlog.WriteLogger(full).error("a line")
    structlog.WriteLogger(unfailing(full)).error("a line")
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_other_lines_are_written_at_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        structlog.WriteLogger(unfailing(file)).error("a line")
        assert log.read_text() == "a line\n"
