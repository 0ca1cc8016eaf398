"""What a kernel gets: the kernelspec's word, the client's within limits, and clear refusals."""

from __future__ import annotations

import pytest

from holdfast_launcher.engines.resources import (
    Limits,
    Resources,
    decide_resources,
    parse_memory,
    parse_time,
)
from holdfast_launcher.errors import BadRequest

ALL = frozenset(["cpus", "memory", "gpus", "time", "partition", "account", "qos", "labels"])
GIB = 2**30


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("8h", 28800), ("30", 1800), ("1-12:00:00", 129600), ("00:30:00", 1800)],
)
def test_times(text: str, seconds: int) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("512M", 512 * 2**20), ("16 GB", 16 * GIB), ("2GiB", 2 * GIB), ("1", 2**20)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size


def test_the_client_changes_what_the_kernelspec_says() -> None:
    found = decide_resources(
        {"cpus": 4, "memory": "16G", "labels": {"disk": "ssd"}},
        {"KERNEL_CPUS": "2", "KERNEL_QUEUE": "main", "KERNEL_USERNAME": "ada"},
        Limits(cpus=2),
        honoured=ALL,
    )
    assert found == Resources(cpus=2, memory=16 * GIB, partition="main", labels={"disk": "ssd"})


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"KERNEL_CPUS": "3"}, "limits.cpus = 2"),
        ({"KERNEL_MEMORY": "9G"}, "limits.memory = 8G"),
        ({"KERNEL_TIME": "2h"}, "limits.time = 1h"),
        ({"KERNEL_GPUS": "1"}, "limits.gpus = 0"),
        ({"KERNEL_PARTITION": "big"}, "limits.partitions allows main"),
        ({"KERNEL_PARTITION": "--uid=0"}, "expected a name"),
        ({"KERNEL_CPUS": "0"}, "at least 1"),
        ({"KERNEL_CPUS": "two"}, "whole number"),
        ({"KERNEL_MEMORY": "much"}, "512M"),
    ],
)
def test_what_is_refused(env: dict[str, str], words: str) -> None:
    limits = Limits(cpus=2, memory="8G", time="1h", gpus=0, partitions=("main",))
    with pytest.raises(BadRequest, match=words):
        decide_resources(None, env, limits, honoured=ALL)


def test_limits_are_the_clients_not_the_kernelspecs() -> None:
    found = decide_resources({"cpus": 8}, {}, Limits(cpus=2), honoured=ALL)
    assert found.cpus == 8


def test_what_an_engine_cannot_give_is_refused_unless_it_gives_nothing() -> None:
    with pytest.raises(BadRequest, match="cannot give what was asked for: gpus"):
        decide_resources(None, {"KERNEL_GPUS": "1"}, Limits(), honoured=frozenset(["cpus"]))
    assert (
        decide_resources({"cpus": 4}, {"KERNEL_MEMORY": "lots"}, Limits(), honoured=frozenset())
        == Resources()
    )
