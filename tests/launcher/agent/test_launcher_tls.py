"""Off loopback: TLS with a certificate that is pinned, for launcher and keeper."""

from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp
import pytest
from launcher_process import LauncherProcess, new_id
from test_heartbeat import SmallProxy

from holdfast_launcher.config import KEEPER_ENTRY
from holdfast_launcher.network.tls import make_identity, obtain_identity


def test_an_identity_is_kept_and_private(tmp_path: Path) -> None:
    first = obtain_identity(tmp_path / "i.pem", name="node")
    again = obtain_identity(tmp_path / "i.pem", name="node")
    other = obtain_identity(tmp_path / "j.pem", name="node")
    assert first == again
    assert first.fingerprint != other.fingerprint
    assert (tmp_path / "i.pem").stat().st_mode & 0o777 == 0o600
    assert isinstance(first.context, ssl.SSLContext)


def test_an_identity_that_nobody_keeps_leaves_no_key_behind(tmp_path: Path) -> None:
    first = make_identity(tmp_path, name="keeper")
    assert first.fingerprint != make_identity(tmp_path, name="keeper").fingerprint
    assert list(tmp_path.iterdir()) == []


async def test_launcher_and_keeper_off_loopback(own_launcher: LauncherProcess) -> None:
    """The wildcard address is off loopback; what this test sends stays on it."""
    own_launcher.settings |= {
        "host": "0.0.0.0",  # noqa: S104 - off loopback is what is tested
        "advertise_host": "127.0.0.1",
        "keeper_entry": KEEPER_ENTRY,
        "join_token": "join",
    }
    async with SmallProxy().serving() as proxy:
        own_launcher.settings["proxies"] = [proxy.url]
        own_launcher.start()
        beat = await proxy.wait_beat()
    assert own_launcher.url.startswith("https://127.0.0.1:")
    own_launcher.pin = beat["fingerprint"]
    kernel_id = new_id()
    handle = (await own_launcher.put(kernel_id)).body
    assert handle["endpoint"]["host"] == "127.0.0.1"
    assert handle["fingerprint"] not in (None, beat["fingerprint"])
    url = f"https://127.0.0.1:{handle['endpoint']['port']}/v1/kernel"
    headers = {"Authorization": f"Bearer {handle['credential']}"}
    async with aiohttp.ClientSession() as session:
        right = aiohttp.Fingerprint(bytes.fromhex(handle["fingerprint"]))
        async with session.get(url, headers=headers, ssl=right) as answer:
            assert (await answer.json())["nonce"] == "n1"
        wrong = aiohttp.Fingerprint(bytes.fromhex(beat["fingerprint"]))
        with pytest.raises(aiohttp.ServerFingerprintMismatch):
            await session.get(url, headers=headers, ssl=wrong)
    own_launcher.process.kill()
    own_launcher.start()
    await own_launcher.wait_log("keeper adopted")
    assert (await own_launcher.get(kernel_id)).body == handle, "the same certificate as before"
    assert (await own_launcher.delete(kernel_id)).body == {"gone": True}
