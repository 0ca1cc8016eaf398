"""The nursery of keepers ends with the session's last test that needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.keeper_process import NURSERY


@pytest.fixture(scope="session", autouse=True)
def nursery_ends() -> Iterator[None]:
    yield
    NURSERY.end()
