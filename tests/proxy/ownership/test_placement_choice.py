"""Who gets a new kernel, and when a client is told that nobody has such a kernel."""

from __future__ import annotations

import pytest

from holdfast_proxy.ownership.nodes.placement import Candidate, NoPlace, place


def candidate(name: str, specs: set[str] | None, *, load: int = 0) -> Candidate:
    return Candidate(launcher_id=name, specs=specs, load=load, capacity=10)


def test_a_kernel_that_no_launcher_has_is_the_clients_mistake() -> None:
    with pytest.raises(NoPlace) as error:
        place([candidate("a", {"julia"})], spec_name="python3")
    assert error.value.unknown_spec


def test_a_launcher_that_was_not_asked_yet_may_have_it() -> None:
    """Found by the chaos run: a proxy that had just started said 400 to a good start."""
    with pytest.raises(NoPlace) as error:
        place([candidate("a", None), candidate("b", {"julia"})], spec_name="python3")
    assert not error.value.unknown_spec


def test_one_that_has_it_is_not_kept_waiting_for_one_that_may() -> None:
    found = place([candidate("a", None), candidate("b", {"python3"}, load=9)], spec_name="python3")
    assert found == "b"
