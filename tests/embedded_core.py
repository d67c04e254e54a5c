"""The embedded EdgeX core as a process of one test: free ports on 127.0.0.1, a state folder of its own."""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

WAIT_S = 30.0
START_S = 90.0
STOP_S = 30.0
LAMP = {
    "name": "lamp",
    "deviceResources": [{"name": "Power", "properties": {"valueType": "Bool", "readWrite": "RW"}}],
}


class EmbeddedCore:
    """One core process; `kill` and `start` again keep its state and, once known, its ports."""

    def __init__(self, folder: Path, nats_url: str, *flags: str, environ: dict[str, str] | None = None) -> None:
        """Prepare a core whose state lives in `folder`; `start` starts it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.urls: dict[str, str] = {}
        self.ready: dict[str, Any] = {}
        self._flags = flags
        self._environ = {"EDGEAGENTS_NATS_URL": nats_url} | (environ or {})
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for it."""
        ports = []
        for name in ("keeper", "metadata", "data", "command"):
            port = self.urls[name].rsplit(":", 1)[1] if self.urls else "0"
            ports += [f"--{name}-port", port]
        command = [sys.executable, "-m", "edgeagents.embedded.core", "--state", str(self.folder / "state"), *ports]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("EDGEAGENTS_")}
        with (self.folder / "core.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._flags], stdout=subprocess.PIPE, stderr=log, env=clean | self._environ
            )
        return self._process

    def start(self) -> "EmbeddedCore":
        """Start the process and wait for its ready line."""
        process = self.spawn()
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if readable else b""
        if not line:
            self.kill()
            pytest.fail(f"the core did not say that it is ready:\n{self.log()[-3000:]}")
        self.ready = json.loads(line)
        self.urls = {name: self.ready[name] for name in ("keeper", "metadata", "data", "command")}
        return self

    def linked(self) -> "EmbeddedCore":
        """Wait for its link to the broker: it is ready half a second after its start, and what it misses is lost."""
        give_up = time.monotonic() + START_S
        while self.ready["bus"] != "connected" and not self._hears():
            if time.monotonic() > give_up:
                pytest.fail(f"the core has no link to the broker:\n{self.log()[-3000:]}")
            time.sleep(0.1)
        return self

    def _hears(self) -> bool:
        """Ask it something over the broker; say whether it answers."""
        at, word = urlsplit(self._environ["EDGEAGENTS_NATS_URL"]), uuid.uuid4().hex
        asked = envelope(None, word)
        lines = (
            f'CONNECT {{"verbose":false}}\r\nSUB edgex.response.core-command.{word} 1\r\n'
            f"PUB edgex.core.commandquery.request.nobody {len(asked)}\r\n"
        )
        heard = b""
        with contextlib.suppress(OSError), socket.create_connection((at.hostname, at.port), 2.0) as link:
            link.sendall(lines.encode() + asked + b"\r\n")
            while b"\nMSG " not in heard and (more := link.recv(65_536)):
                heard += more
        return b"\nMSG " in heard

    def log(self) -> str:
        """Return what the core wrote to stderr."""
        return (self.folder / "core.log").read_text()

    def stop(self) -> tuple[int, float]:
        """End the process as a supervisor does; return its exit code and how long it took."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(STOP_S)
        self._forget()
        return code, time.monotonic() - began

    def kill(self) -> None:
        """End the process as a power cut would: SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._forget()

    def _forget(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is true."""
    give_up = time.monotonic() + WAIT_S
    while not await holds():
        assert time.monotonic() < give_up, "did not come true in time"
        await asyncio.sleep(0.02)


async def add_lamp(core: EmbeddedCore, http: httpx.AsyncClient, address: str, name: str = "lamp-1") -> None:
    """Add service, profile and one device, not validated."""
    service = {"name": "device-lamp", "baseAddress": address, "adminState": "UNLOCKED"}
    device = {
        "name": name, "serviceName": "device-lamp", "profileName": "lamp", "adminState": "UNLOCKED",
        "operatingState": "UP", "protocols": {"p": {"a": "1"}},
    }  # fmt: skip
    for path, part, given in (("deviceservice", "service", service), ("deviceprofile", "profile", LAMP)):
        await http.post(f"{core.urls['metadata']}/api/v3/{path}", json=[{"apiVersion": "v3", part: given}])
    url = f"{core.urls['metadata']}/api/v3/device?bypassValidation=true"
    response = await http.post(url, json=[{"apiVersion": "v3", "device": device}])
    assert response.json()[0]["statusCode"] == 201, response.text


def event(device: str = "lamp-1", value: str = "true") -> dict[str, Any]:
    """Return an event of a lamp, now."""
    now = time.time_ns()
    reading = {
        "id": str(uuid.uuid4()), "origin": now, "deviceName": device, "profileName": "lamp", "resourceName": "Power",
        "valueType": "Bool", "value": value,
    }  # fmt: skip
    return {
        "apiVersion": "v3", "id": str(uuid.uuid4()), "deviceName": device, "profileName": "lamp",
        "sourceName": "Power", "origin": now, "readings": [reading],
    }  # fmt: skip


def envelope(payload: Any, request_id: str = "") -> bytes:
    """Return a message of EdgeX's bus."""
    return json.dumps(
        {"apiVersion": "v3", "correlationID": str(uuid.uuid4()), "requestID": request_id, "errorCode": 0,
         "payload": payload, "contentType": "application/json"}
    ).encode()  # fmt: skip


async def count(core: EmbeddedCore, http: httpx.AsyncClient) -> int:
    """Return how many events core-data has."""
    return int((await http.get(f"{core.urls['data']}/api/v3/event/count")).json()["count"])
