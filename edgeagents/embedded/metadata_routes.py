"""The HTTP routes of the embedded core-metadata: requests in, calls of `Metadata`, EdgeX's answers out."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import yaml
from fastapi import FastAPI, Request, Response
from starlette.datastructures import UploadFile

from edgeagents.adapters.middleware import correlation_id
from edgeagents.embedded.contracts import (
    ADD_DEVICE,
    ADD_SERVICE,
    PROFILE,
    UPDATE_DEVICE,
    UPDATE_SERVICE,
    Item,
    read_many,
    read_profile_file,
)
from edgeagents.embedded.contracts import Request as Kind
from edgeagents.embedded.http import (
    answer,
    failure,
    flag,
    ok,
    paging,
    param,
    read_json,
    routes,
    write_json,
)
from edgeagents.embedded.metadata import UNITS, Metadata, has_labels
from edgeagents.embedded.storage import Row, Table
from edgeagents.errors import EdgeAgentsError, InvalidInputError

Work = Callable[[Item], Awaitable[str | None]]
Question = Callable[[Request], Callable[[Row], bool]]


def add_routes(app: FastAPI, metadata: Metadata) -> None:
    """Add all routes of core-metadata."""

    async def units(request: Request) -> Response:
        return ok(uom=UNITS)

    routes(app, ("GET", "/uom", units))
    _add_service_routes(app, metadata)
    _add_profile_routes(app, metadata)
    _add_profile_file_routes(app, metadata)
    _add_device_routes(app, metadata)


def _add_service_routes(app: FastAPI, metadata: Metadata) -> None:
    async def add(request: Request) -> Response:
        correlation = correlation_id.get()
        return await _each(request, ADD_SERVICE, lambda item: metadata.add_service(item, correlation))

    async def patch(request: Request) -> Response:
        correlation = correlation_id.get()
        return await _each(request, UPDATE_SERVICE, lambda item: metadata.patch_service(item, correlation))

    async def get(request: Request) -> Response:
        return ok(service=metadata.service(param(request, "name")))

    async def delete(request: Request) -> Response:
        await metadata.delete_service(param(request, "name"), correlation_id.get())
        return ok()

    routes(
        app,
        ("POST", "/deviceservice", add),
        ("PATCH", "/deviceservice", patch),
        ("GET", "/deviceservice/all", _lister(metadata, metadata.services, "services", _labelled)),
        ("GET", "/deviceservice/name/{name}", get),
        ("DELETE", "/deviceservice/name/{name}", delete),
    )


def _add_profile_routes(app: FastAPI, metadata: Metadata) -> None:
    async def add(request: Request) -> Response:
        correlation = correlation_id.get()
        return await _each(request, PROFILE, lambda item: metadata.add_profile(item, correlation))

    async def put(request: Request) -> Response:
        correlation = correlation_id.get()
        return await _each(request, PROFILE, lambda item: metadata.put_profile(item, correlation))

    async def get(request: Request) -> Response:
        return ok(profile=metadata.profile(param(request, "name")))

    async def delete(request: Request) -> Response:
        await metadata.delete_profile(param(request, "name"), correlation_id.get())
        return ok()

    profiles = metadata.profiles
    maker, model = _equal("manufacturer"), _equal("model")
    routes(
        app,
        ("POST", "/deviceprofile", add),
        ("PUT", "/deviceprofile", put),
        ("GET", "/deviceprofile/all", _lister(metadata, profiles, "profiles", _labelled)),
        ("GET", "/deviceprofile/manufacturer/{manufacturer}", _lister(metadata, profiles, "profiles", maker)),
        ("GET", "/deviceprofile/model/{model}", _lister(metadata, profiles, "profiles", model)),
        ("GET", "/deviceprofile/name/{name}", get),
        ("DELETE", "/deviceprofile/name/{name}", delete),
    )


def _add_profile_file_routes(app: FastAPI, metadata: Metadata) -> None:
    async def add(request: Request) -> Response:
        found = await metadata.add_profile(Item("", await _uploaded_profile(request)), correlation_id.get())
        return ok(201, id=found)

    async def put(request: Request) -> Response:
        await metadata.put_profile(Item("", await _uploaded_profile(request)), correlation_id.get())
        return ok()

    path = "/deviceprofile/uploadfile"
    routes(app, ("POST", path, add), ("PUT", path, put))


def _add_device_routes(app: FastAPI, metadata: Metadata) -> None:
    async def add(request: Request) -> Response:
        correlation, bypass, force = correlation_id.get(), flag(request, "bypassValidation"), flag(request, "force")
        return await _each(
            request, ADD_DEVICE, lambda item: metadata.add_device(item, correlation, bypass=bypass, force=force)
        )

    async def patch(request: Request) -> Response:
        correlation, bypass = correlation_id.get(), flag(request, "bypassValidation")
        return await _each(request, UPDATE_DEVICE, lambda item: metadata.patch_device(item, correlation, bypass=bypass))

    async def get(request: Request) -> Response:
        return ok(device=metadata.device(param(request, "name")))

    async def check(request: Request) -> Response:
        status = 200 if param(request, "name") in metadata.devices else 404
        return ok(status)

    async def delete(request: Request) -> Response:
        await metadata.delete_device(param(request, "name"), correlation_id.get())
        return ok()

    devices = metadata.devices
    routes(
        app,
        ("POST", "/device", add),
        ("PATCH", "/device", patch),
        ("GET", "/device/all", _lister(metadata, devices, "devices", _labelled)),
        ("GET", "/device/check/name/{name}", check),
        ("GET", "/device/service/name/{name}", _lister(metadata, devices, "devices", _equal("serviceName", "name"))),
        ("GET", "/device/profile/name/{name}", _lister(metadata, devices, "devices", _equal("profileName", "name"))),
        ("GET", "/device/name/{name}", get),
        ("DELETE", "/device/name/{name}", delete),
    )


async def _each(request: Request, kind: Kind, work: Work) -> Response:
    """Return 207 with one result per object of the request; a new object's result carries its id."""
    results = []
    for item in read_many(kind, await read_json(request)):
        try:
            found = await work(item)
        except EdgeAgentsError as error:
            results.append(failure(error, item.request_id))
        else:
            done = {} if found is None else {"id": found}
            results.append(answer(201 if done else 200, request_id=item.request_id, **done))
    return write_json(results, 207)


def _lister(metadata: Metadata, kind: Table, key: str, question: Question) -> Callable[[Request], Awaitable[Response]]:
    async def lister(request: Request) -> Response:
        offset, limit = paging(request)
        total, rows = metadata.listed(kind, offset, limit, question(request))
        parts: dict[str, Any] = {"totalCount": total, key: rows}
        return ok(**parts)

    return lister


def _labelled(request: Request) -> Callable[[Row], bool]:
    return has_labels(label for label in request.query_params.get("labels", "").split(",") if label)


def _equal(key: str, part: str = "") -> Question:
    def question(request: Request) -> Callable[[Row], bool]:
        wanted = param(request, part or key)
        return lambda row: row.get(key, "") == wanted

    return question


async def _uploaded_profile(request: Request) -> Row:
    """Return the profile in the form's field `file`.

    Raises:
        InvalidInputError: no such field, or no profile in it.
    """
    if "multipart/form-data" not in request.headers.get("content-type", ""):
        raise InvalidInputError("request Content-Type isn't multipart/form-data")
    async with request.form(max_files=1, max_fields=10) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidInputError("missing yaml file")
        text = await file.read()
    try:
        # Through JSON and back: what YAML reads as a date becomes text, as Go's YAML reader leaves it.
        body = json.loads(json.dumps(yaml.safe_load(text), default=str))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"failed to unmarshal request body as YAML. {str(error)[:200]}") from error
    return read_profile_file(body)
