"""etcd's messages, loaded without the package that cannot be imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from holdfast_proxy.store.stubs import load_messages


def test_messages_that_the_package_has_round_trip() -> None:
    messages = load_messages()
    put = messages.PutRequest(key=b"k", value=b"v", lease=3)
    request = messages.TxnRequest(success=[messages.RequestOp(request_put=put)])
    again = messages.TxnRequest.FromString(request.SerializeToString())
    assert again.success[0].request_put.value == b"v"
    assert load_messages() is messages


def test_what_etcd_has_gained_since_is_on_the_wire_as_etcd_reads_it() -> None:
    """Field numbers from etcd's rpc.proto: tag = number << 3 | type."""
    messages = load_messages()
    progress = messages.WatchRequest(progress_request=messages.WatchProgressRequest())
    assert progress.SerializeToString() == bytes([3 << 3 | 2, 0])
    assert messages.WatchCreateRequest(fragment=True).SerializeToString() == bytes([8 << 3, 1])
    assert messages.WatchResponse.FromString(bytes([7 << 3, 1])).fragment is True
    assert messages.Member.FromString(bytes([5 << 3, 1])).isLearner is True


def test_the_new_request_is_in_the_union() -> None:
    messages = load_messages()
    request = messages.WatchRequest(create_request=messages.WatchCreateRequest(key=b"k"))
    request.progress_request.SetInParent()
    assert request.WhichOneof("request_union") == "progress_request"


def test_an_unknown_message_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = load_messages().Nonsense


def test_the_package_is_not_imported_nor_the_default_pool_touched() -> None:
    """So another etcd client, which registers the same files there, can live beside it."""
    program = """
import sys
from google.protobuf import descriptor_pool
from holdfast_proxy.store.stubs import load_messages
load_messages()
assert not [name for name in sys.modules if name.split(".")[0] == "etcd3"], "etcd3 was imported"
for name in ("rpc.proto", "kv.proto", "auth.proto"):
    try:
        descriptor_pool.Default().FindFileByName(name)
    except KeyError:
        continue
    raise SystemExit(f"{name} is in the default pool")
print("clean")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "clean", done.stderr
