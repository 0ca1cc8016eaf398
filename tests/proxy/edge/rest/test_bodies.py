"""Whatever JSON a client sends is understood or refused with 400: nothing else is raised."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_proxy.edge.rest.environment import MAX_VALUE_CHARACTERS, allowed_by_spec
from holdfast_proxy.edge.rest.kernels import read_start
from holdfast_proxy.edge.rest.sessions import read_changes, read_opening
from holdfast_proxy.errors import BadRequest

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "name", "path", "KERNEL_ID", "KERNEL_X", "PATH"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(["name", "path", "type", "env", "kernel", "notebook"]) | st.text(max_size=4)
BODIES = st.dictionaries(KEYS, JSON, max_size=6)


def sound(text: str | None) -> bool:
    """Etcd, a launcher's JSON and a file system can hold it."""
    return text is None or ("\0" not in text and bool(text.encode("utf-8")) | (text == ""))


@settings(deadline=None, max_examples=60)
@given(body=BODIES)
def test_any_start_is_understood_or_refused(body: dict[str, Any]) -> None:
    with contextlib.suppress(BadRequest):
        start = read_start(body, user="ann", whitelist=frozenset({"TEAM"}), request_id=None)
        assert sound(start.spec_name)
        assert sound(start.path)
        assert start.env["KERNEL_USERNAME"] == "ann"
        for name, value in start.env.items():
            assert name.startswith("KERNEL_") or name == "TEAM"
            assert sound(value)
            assert len(value) <= MAX_VALUE_CHARACTERS


@settings(deadline=None, max_examples=60)
@given(body=BODIES)
def test_any_session_is_understood_or_refused(body: dict[str, Any]) -> None:
    for read in (lambda: read_opening(body, user="ann"), lambda: read_changes(body)):
        with contextlib.suppress(BadRequest):
            found = read()
            for text in (found.path, found.name, found.kind):
                assert sound(text)
            if found.kernel is not None:
                assert sound(found.kernel.name)


@settings(deadline=None, max_examples=50)
@given(spec=JSON)
def test_any_kernelspec_is_read(spec: Any) -> None:
    assert allowed_by_spec(spec) == frozenset()
