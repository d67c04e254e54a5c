"""A keeper and a core-metadata small enough to read at a glance, for tests of their clients and of the bootstrap.

Not the embedded core: that one is the product. This one only holds what a test puts into it, and can be told
to misbehave.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from edgeagents.adapters.config import COMMON, READY, flatten, to_text
from edgeagents.adapters.serving import WebServer, bind

Notify = Callable[[str, Any], Awaitable[None]]


class FakeEdgex:
    """State and routes; `kvs`, `registry`, `devices` and `profiles` may be changed by the test."""

    def __init__(self) -> None:
        """Start with a common configuration that is ready."""
        self.kvs: dict[str, str] = {
            READY: "true",
            f"{COMMON}/all-services/Service/RequestTimeout": "5s",
            f"{COMMON}/all-services/Writable/Telemetry/Interval": "30s",
            f"{COMMON}/app-services/Trigger/SubscribeTopics": "events/#",
        }
        self.registry: dict[str, dict[str, Any]] = {}
        self.devices: list[dict[str, Any]] = []
        self.profiles: list[dict[str, Any]] = []
        self.version = "4.0.2"
        self.halted = asyncio.Event()
        self.registered = asyncio.Event()
        self.notify: Notify | None = None
        self.url = ""
        self.app = FastAPI()
        self._kvs_routes()
        self._registry_routes()
        self._metadata_routes()

    async def put(self, key: str, value: Any) -> None:
        """Write one key and tell of it, as keeper does."""
        self.kvs[key] = to_text(value)
        if self.notify is not None:
            await self.notify(key, value)

    def _kvs_routes(self) -> None:
        @self.app.get("/api/v3/ping")
        async def ping() -> dict[str, Any]:
            return {"apiVersion": "v3", "serviceName": "core-keeper"}

        @self.app.get("/api/v3/kvs/key/{key:path}")
        async def get(key: str, keyOnly: bool = False) -> JSONResponse:
            found = {name: text for name, text in self.kvs.items() if name.startswith(key)}
            if not found:
                return _error(404, f"no key starting with '{key}' found")
            pairs = [{"key": name, "Created": 1, "Modified": 1, "value": text} for name, text in found.items()]
            return JSONResponse({"apiVersion": "v3", "statusCode": 200, "response": list(found) if keyOnly else pairs})

        @self.app.put("/api/v3/kvs/key/{key:path}")
        async def put(key: str, request: Request, flatten: bool = False) -> JSONResponse:
            value = (await request.json())["value"]
            leaves = {f"{key}/{path}": leaf for path, leaf in _leaves(value).items()} if flatten else {key: value}
            for name, leaf in leaves.items():
                self.kvs[name] = json.dumps(leaf) if isinstance(leaf, dict) else to_text(leaf)
            if self.notify is not None:
                await self.notify(key, value)
            return JSONResponse({"apiVersion": "v3", "statusCode": 200, "response": list(leaves)})

    def _registry_routes(self) -> None:
        @self.app.get("/api/v3/registry/serviceId/{name}")
        async def one(name: str) -> JSONResponse:
            if name not in self.registry:
                return _error(404, "registration not found by serviceId")
            return JSONResponse({"apiVersion": "v3", "statusCode": 200, "registration": self.registry[name]})

        @self.app.post("/api/v3/registry")
        async def add(request: Request) -> JSONResponse:
            entry = (await request.json())["registration"]
            self.registry[entry["serviceId"]] = {"status": "UNKNOWN"} | entry
            self.registered.set()
            return JSONResponse({"apiVersion": "v3", "statusCode": 201, "serviceName": entry["serviceId"]}, 201)

        @self.app.put("/api/v3/registry", status_code=204)
        async def update(request: Request) -> None:
            entry = (await request.json())["registration"]
            self.registry[entry["serviceId"]] = {"status": "UNKNOWN"} | entry
            (self.halted if entry.get("status") == "HALT" else self.registered).set()

    def _metadata_routes(self) -> None:
        @self.app.get("/api/v3/version")
        async def version() -> dict[str, Any]:
            return {"apiVersion": "v3", "version": self.version, "serviceName": "core-metadata"}

        @self.app.get("/api/v3/device/all")
        async def devices(offset: int = 0, limit: int = 20) -> dict[str, Any]:
            return {"totalCount": len(self.devices), "devices": self.devices[offset : offset + limit]}

        @self.app.get("/api/v3/deviceprofile/all")
        async def profiles(offset: int = 0, limit: int = 20) -> dict[str, Any]:
            return {"totalCount": len(self.profiles), "profiles": self.profiles[offset : offset + limit]}

    def register_core(self) -> None:
        """Put core-metadata into the registry, at our own address."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        entry = {"serviceId": "core-metadata", "status": "UP", "host": host, "port": int(port)}
        self.registry["core-metadata"] = entry | {"HealthCheck": {}}

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["FakeEdgex"]:
        """Answer on 127.0.0.1 inside the block."""
        sock = bind("127.0.0.1", port, key="fake")
        server = WebServer(self.app)
        task = asyncio.create_task(server.serve([sock]))
        await server.listening.wait()
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        try:
            yield self
        finally:
            server.should_exit = True
            await task


def _leaves(value: Any) -> dict[str, Any]:
    # As the real one: a list is stored as empty text.
    return {path: "" if isinstance(leaf, list) else leaf for path, leaf in flatten(value).items()}


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"apiVersion": "v3", "message": message, "statusCode": status}, status)


LAMP_PROFILE: dict[str, Any] = {
    "name": "lamp", "manufacturer": "acme", "model": "L1", "labels": ["light"],
    "deviceResources": [
        {"name": "Power", "isHidden": False, "properties": {"valueType": "Bool", "readWrite": "RW"}},
        {"name": "Level", "isHidden": False, "properties": {"valueType": "Uint8", "readWrite": "RW"}},
        {"name": "Temp", "isHidden": False, "properties": {"valueType": "Float32", "readWrite": "R"}},
    ],
    "deviceCommands": [
        {"name": "State", "isHidden": False, "readWrite": "RW",
         "resourceOperations": [{"deviceResource": "Power"}, {"deviceResource": "Level", "defaultValue": "5"}]},
    ],
}  # fmt: skip
LAMP: dict[str, Any] = {
    "name": "lamp-1", "serviceName": "device-x", "profileName": "lamp", "adminState": "UNLOCKED",
    "operatingState": "UP", "labels": ["hall"], "protocols": {"x": {"Address": "1"}},
}  # fmt: skip
