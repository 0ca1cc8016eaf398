"""Wrong tokens are slowed down per address, in bounded memory."""

from __future__ import annotations

import pytest

from holdfast_proxy.page.attempts import LIMIT, WINDOW, Attempts, network_of


def test_the_eleventh_try_in_a_minute_waits_until_the_first_is_a_minute_old() -> None:
    attempts = Attempts()
    for n in range(LIMIT):
        assert attempts.wait("192.0.2.1", now=n) == 0
        attempts.failed("192.0.2.1", now=float(n))
    assert attempts.wait("192.0.2.1", now=20.0) == WINDOW - 20
    assert attempts.wait("192.0.2.1", now=59.5) == 0.5
    assert attempts.wait("192.0.2.1", now=60.0) == 0
    attempts.failed("192.0.2.1", now=60.0)
    assert attempts.wait("192.0.2.1", now=60.5) == 0.5  # the second one is still young


def test_others_do_not_wait_for_it() -> None:
    attempts = Attempts(limit=1)
    attempts.failed("192.0.2.1", now=0.0)
    assert attempts.wait("192.0.2.1", now=1.0) > 0
    assert attempts.wait("192.0.2.2", now=1.0) == 0


def test_memory_is_bounded_and_keeps_who_failed_last() -> None:
    attempts = Attempts(limit=1)
    for n in range(5000):
        attempts.failed(f"10.0.{n // 256}.{n % 256}", now=0.0)
    assert repr(attempts) == "<Attempts: 1024 addresses>"
    assert attempts.wait("10.0.19.135", now=1.0) > 0
    assert attempts.wait("10.0.0.0", now=1.0) == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a socket's name", "a socket's name"),
    ],
)
def test_an_ipv6_neighbourhood_is_one_address(address: str, network: str) -> None:
    assert network_of(address) == network
