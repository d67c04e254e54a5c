"""core-keeper's registry: who is registered, and whether it answers.

A registered service is asked every half interval until it answers for the first time, then every interval. `HALT`
means it said goodbye and is not asked. A status is on disk when it changes, its time only in memory: it is checked
anew after a restart.

Source: edgex-wire.md section 3.1; recordings of EdgeX 4.0.2.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx
from fastapi import FastAPI, Request, Response

from edgeagents.adapters.ports import host_in_url
from edgeagents.embedded.contracts import REGISTRATION, read_one
from edgeagents.embedded.http import empty, flag, ok, param, read_json, routes
from edgeagents.embedded.keeper import now_ms
from edgeagents.embedded.storage import Row, Table
from edgeagents.embedded.validation import duration_s
from edgeagents.errors import ConflictError, NotFoundError, StoreError

log = logging.getLogger(__name__)

Probe = Callable[[str], Awaitable[bool]]
_STATUSES: Final = ("UP", "DOWN", "UNKNOWN", "HALT")
_SHORTEST_S: Final = 0.05


class Registry:
    """The registered services and the tasks that ask after them."""

    def __init__(self, table: Table, probe: Probe) -> None:
        """Keep registrations in `table`; `probe(url)` says whether a service answers."""
        self._table = table
        self._probe = probe
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    def start(self, group: asyncio.TaskGroup) -> None:
        """Ask after every service that did not say goodbye, from now on."""
        self._group = group
        for name in self._table:
            self._watch(name)

    def stop(self) -> None:
        """End all asking."""
        for task in self._checks.values():
            task.cancel()
        self._checks.clear()

    def get(self, name: str) -> Row:
        """Return a registration.

        Raises:
            NotFoundError: there is none of that id.
        """
        if name not in self._table:
            raise NotFoundError("registration not found by serviceId")
        return _shown(self._table[name])

    def all(self, *, halted: bool) -> list[Row]:
        """Return all registrations, those that said goodbye only if asked for."""
        return [_shown(row) for row in self._table.values() if halted or row["status"] != "HALT"]

    async def add(self, given: Row) -> None:
        """Register a service.

        Raises:
            ConflictError: its id is registered already.
        """
        name = given["serviceId"]
        twice = ConflictError(f"registry with service id '{name}' already exists")
        if name in self._table:
            raise twice
        now = now_ms()
        try:
            await self._table.add(name, _row(given, now, now))
        except ConflictError as error:
            raise twice from error
        self._watch(name)

    async def update(self, given: Row) -> None:
        """Replace a registration; its status becomes what was sent.

        Raises:
            NotFoundError: its id is not registered.
        """
        name = given["serviceId"]
        if name not in self._table:
            raise NotFoundError(f"service id '{name}' not found from registry table")
        # Nothing that the old check still finds out may be written over what was sent now.
        self._unwatch(name)
        try:
            await self._table.write({name: _row(given, self._table[name]["created"], now_ms())})
        finally:
            self._watch(name)

    async def remove(self, name: str) -> None:
        """Forget a registration.

        Raises:
            NotFoundError: its id is not registered.
        """
        if name not in self._table:
            raise NotFoundError(f"service id '{name}' not found from registry table")
        self._unwatch(name)
        await self._table.write({}, [name])

    def enter_now(self, given: Row) -> None:
        """Register or replace one of the core's own services; at start."""
        now, name = now_ms(), given["serviceId"]
        created = self._table[name]["created"] if name in self._table else now
        self._table.write_now({name: _row(given, created, now)})

    def halt_now(self, names: list[str]) -> None:
        """Let the core's own services say goodbye; at the end."""
        now = now_ms()
        self._table.write_now(
            {name: self._table[name] | {"status": "HALT", "modified": now} for name in names if name in self._table}
        )

    def _unwatch(self, name: str) -> None:
        task = self._checks.pop(name, None)
        if task is not None:
            task.cancel()

    def _watch(self, name: str) -> None:
        self._unwatch(name)
        if self._group is not None and self._table[name]["status"] != "HALT":
            self._checks[name] = self._group.create_task(self._check(name), name=f"health of {name}")

    async def _check(self, name: str) -> None:
        check: dict[str, str] = self._table[name]["HealthCheck"]
        interval = max(_SHORTEST_S, duration_s(check["interval"]) or 0.0)
        url = health_url(self._table[name])
        was_up = False
        while True:
            await asyncio.sleep(interval if was_up else interval / 2)
            is_up = await self._probe(url)
            was_up = was_up or is_up
            await self._note(name, "UP" if is_up else "DOWN")

    async def _note(self, name: str, status: str) -> None:
        row = self._table[name]
        noted = row | {"status": status, "modified": now_ms()}
        if row["status"] == status:
            self._table.touch(name, noted)
            return
        log.info("service %s is %s", name, status)
        try:
            await self._table.write({name: noted})
        except StoreError as error:
            log.warning("status of %s: %s", name, error)


def _row(given: Row, created: int, modified: int) -> Row:
    status = given.get("status") or "UNKNOWN"
    return given | {
        "status": status if status in _STATUSES else "UNKNOWN",
        "created": created,
        "modified": modified,
    }


def _shown(row: Row) -> Row:
    keys = ("created", "modified", "serviceId", "status", "host", "port", "HealthCheck")
    return {key: row[key] for key in keys}


def health_url(row: Row) -> str:
    """Return the address that tells whether a registered service lives; the check's type is the scheme."""
    check = row["HealthCheck"]
    return f"{check['type']}://{host_in_url(row['host'])}:{row['port']}{check['path']}"


def http_probe(client: httpx.AsyncClient, timeout_s: float) -> Probe:
    """Return a probe that asks over HTTP: any 2xx answer in time means up."""

    async def probe(url: str) -> bool:
        try:
            response = await client.get(url, timeout=timeout_s)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            return False
        return response.is_success

    return probe


def own_registration(name: str, host: str, port: int) -> dict[str, Any]:
    """Return the registration of one of the core's own services, which listens by now."""
    check = {"interval": "10s", "path": "/api/v3/ping", "type": "http"}
    return {"serviceId": name, "status": "UP", "host": host, "port": port, "HealthCheck": check}


def add_routes(app: FastAPI, registry: Registry) -> None:
    """Add the registry's routes."""

    async def add(request: Request) -> Response:
        given = read_one(REGISTRATION, await read_json(request)).row
        await registry.add(given)
        return ok(201, serviceName=given["serviceId"])

    async def update(request: Request) -> Response:
        await registry.update(read_one(REGISTRATION, await read_json(request)).row)
        return empty(204)

    async def get(request: Request) -> Response:
        return ok(registration=registry.get(param(request, "name")))

    async def remove(request: Request) -> Response:
        await registry.remove(param(request, "name"))
        return empty(204)

    async def everything(request: Request) -> Response:
        found = registry.all(halted=flag(request, "deregistered"))
        return ok(totalCount=len(found), registrations=found)

    one = "/registry/serviceId/{name}"
    routes(app, ("POST", "/registry", add), ("PUT", "/registry", update))
    routes(app, ("GET", one, get), ("DELETE", one, remove), ("GET", "/registry/all", everything))
