"""The HTTP routes of the embedded core-data: events and readings, counted, listed, aggregated and removed."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import FastAPI, Request, Response

from edgeagents.adapters import cbor
from edgeagents.adapters.middleware import correlation_id
from edgeagents.embedded.aggregates import aggregate_function, aggregated
from edgeagents.embedded.contracts import read_one
from edgeagents.embedded.data import Data
from edgeagents.embedded.event_contract import EVENT
from edgeagents.embedded.event_store import Kind, Selection
from edgeagents.embedded.http import (
    StatusError,
    check_range,
    ok,
    paging,
    param,
    path_number,
    read_json,
    routes,
)
from edgeagents.embedded.storage import Row
from edgeagents.embedded.validation import is_uuid
from edgeagents.errors import InvalidInputError, MalformedMessageError
from edgeagents.model.values import is_numeric, parse_value

Choose = Callable[[Request], Selection]
_MAX_SQL_INT: Final = 2**63 - 1
_RANGE: Final = "/start/{start}/end/{end}"


def add_routes(app: FastAPI, data: Data) -> None:
    """Add all routes of core-data."""
    _add_event_routes(app, data)
    _add_delete_routes(app, data)
    _add_reading_routes(app, data)


def _add_event_routes(app: FastAPI, data: Data) -> None:
    async def post(request: Request) -> Response:
        levels = (param(request, "profile"), param(request, "device"), param(request, "source"))
        item = read_one(EVENT, await _read_event(request, data.max_event_kb))
        found = await data.post(item, param(request, "service"), levels, correlation_id.get())
        return ok(201, request_id=item.request_id, id=found)

    async def get(request: Request) -> Response:
        event = await data.event(_event_id(request))
        # EdgeX's database holds numbers, and a single event's are not turned into text again; arrays are text there.
        return ok(event=event | {"readings": [_numeric(one) if _is_single(one) else one for one in event["readings"]]})

    routes(
        app,
        ("POST", "/event/{service}/{profile}/{device}/{source}", post),
        ("GET", "/event/id/{id}", get),
        ("GET", "/event/count", _counter(data, "events", _all)),
        ("GET", "/event/count/device/name/{device}", _counter(data, "events", _by_path)),
        ("GET", "/event/all", _lister(data, "events", _all)),
        ("GET", "/event/device/name/{device}", _lister(data, "events", _by_path)),
        ("GET", f"/event{_RANGE}", _lister(data, "events", _by_path)),
    )


def _add_delete_routes(app: FastAPI, data: Data) -> None:
    async def delete(request: Request) -> Response:
        await data.delete_event(_event_id(request))
        return ok()

    async def delete_of_device(request: Request) -> Response:
        data.delete_later(Selection(device=param(request, "device")))
        return ok(202)

    async def delete_by_age(request: Request) -> Response:
        try:
            end_ns = time.time_ns() - int(param(request, "age"))
        except ValueError as error:
            raise InvalidInputError("age format parsing failed") from error
        data.delete_later(Selection(end_ns=max(-_MAX_SQL_INT, min(end_ns, _MAX_SQL_INT))))
        return ok(202)

    routes(
        app,
        ("DELETE", "/event/id/{id}", delete),
        ("DELETE", "/event/device/name/{device}", delete_of_device),
        ("DELETE", "/event/age/{age}", delete_by_age),
    )


def _add_reading_routes(app: FastAPI, data: Data) -> None:
    device, resource = "/reading/device/name/{device}", "/resourceName/{resource}"
    routes(
        app,
        ("GET", "/reading/count", _counter(data, "readings", _all)),
        ("GET", "/reading/count/device/name/{device}", _counter(data, "readings", _by_path)),
        ("GET", "/reading/all", _lister(data, "readings", _all)),
        ("GET", f"/reading{_RANGE}", _lister(data, "readings", _by_path)),
        ("GET", device, _lister(data, "readings", _by_path)),
        ("GET", device + _RANGE, _lister(data, "readings", _by_path)),
        ("GET", f"/reading{resource}", _lister(data, "readings", _by_path)),
        ("GET", f"/reading{resource}{_RANGE}", _lister(data, "readings", _by_path)),
        ("GET", device + resource, _lister(data, "readings", _by_path)),
        ("GET", device + resource + _RANGE, _lister(data, "readings", _by_path)),
    )


def _counter(data: Data, kind: Kind, choose: Choose) -> Callable[[Request], Awaitable[Response]]:
    async def counter(request: Request) -> Response:
        return ok(count=await data.store.count(kind, choose(request)))

    return counter


def _lister(data: Data, kind: Kind, choose: Choose) -> Callable[[Request], Awaitable[Response]]:
    async def lister(request: Request) -> Response:
        offset, limit = paging(request, least_offset=-1)  # -1: from the start, and do not count
        function = request.query_params.get("aggregateFunc", "") if kind == "readings" else ""
        if function:
            return await _aggregated(data, function, choose(request), max(offset, 0), limit)
        numeric, which = _is_numeric_wanted(request), choose(request)
        total = await data.store.count(kind, which) if offset >= 0 else 0
        if limit == 0 or (offset >= 0 and not check_range(total, offset, limit)):
            return ok(**_listed(kind, total, []))
        rows = await (data.store.events if kind == "events" else data.store.readings)(which, max(offset, 0), limit)
        if numeric:
            rows = [_numeric_event(row) if kind == "events" else _numeric(row) for row in rows]
        return ok(**_listed(kind, total, rows))

    return lister


async def _aggregated(data: Data, function: str, which: Selection, offset: int, limit: int) -> Response:
    name = aggregate_function(function)
    rows = aggregated(await data.store.tallies(which), name)[offset : offset + limit]
    parts: dict[str, Any] = {"aggregateFunc": function}
    return ok(**parts, readings=[row | {"value": _plain(row["value"])} for row in rows])


def _is_numeric_wanted(request: Request) -> bool:
    """Return whether numbers are to be JSON numbers; as in EdgeX, what is no truth value counts as no."""
    return request.query_params.get("numeric", "").lower() in ("1", "t", "true")


async def _read_event(request: Request, max_kilobytes: int) -> Any:
    """Return a posted request, JSON or CBOR, in JSON's terms.

    Raises:
        StatusError: it is larger than core-data takes.
        InvalidInputError: it is no CBOR, though it says so.
        UndecodableError: it is no JSON.
    """
    if max_kilobytes and len(await request.body()) > 1024 * max_kilobytes:
        raise StatusError(413, f"request size exceed {max_kilobytes} KB")
    if "cbor" not in request.headers.get("content-type", "").lower():
        return await read_json(request)
    try:
        body = cbor.loads(await request.body())
    except MalformedMessageError as error:
        raise InvalidInputError(f"*requests.AddEventRequest cbor decoding failed: {error}") from error
    if not isinstance(body, dict):
        raise InvalidInputError("*requests.AddEventRequest cbor decoding failed: it is no map")
    return body


def _listed(kind: Kind, total: int, rows: list[Row]) -> dict[str, Any]:
    return {"totalCount": total, kind: rows}


def _all(request: Request) -> Selection:
    return Selection()


def _by_path(request: Request) -> Selection:
    names = request.path_params
    start, end = (path_number(request, name) if name in names else None for name in ("start", "end"))
    if start is not None and end is not None and end < start:
        raise InvalidInputError(f"end's value {end} is not allowed to be less than start's value {start}")
    return Selection(
        device=param(request, "device") if "device" in names else None,
        resource=param(request, "resource") if "resource" in names else None,
        start_ns=start if start is None else min(start, _MAX_SQL_INT),
        end_ns=end if end is None else min(end, _MAX_SQL_INT),
    )


def _event_id(request: Request) -> str:
    event_id = param(request, "id")
    if not is_uuid(event_id):
        raise InvalidInputError("fail to parse id as an UUID")
    return event_id


def _numeric_event(event: Row) -> Row:
    return event | {"readings": [_numeric(reading) for reading in event["readings"]]}


def _is_single(reading: Row) -> bool:
    return is_numeric(reading["valueType"])


def _numeric(reading: Row) -> Row:
    """Return a reading with its number, or list of numbers, as JSON numbers."""
    kind, text = reading["valueType"], reading.get("value")
    if not isinstance(text, str) or not is_numeric(kind.removesuffix("Array")):
        return reading
    value = parse_value(kind, text)
    plain = [_plain(item) for item in value] if isinstance(value, list) else _plain(value)
    return reading | {"value": plain}


def _plain(value: object) -> object:
    if not isinstance(value, float):
        return value
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)  # JSON has no word for it
    return int(value) if value.is_integer() and abs(value) < 1e15 else value
