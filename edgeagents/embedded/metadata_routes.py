"""The HTTP routes of the embedded core-metadata for device services and devices; `profile_routes.py` has the rest."""

from fastapi import FastAPI, Request, Response

from edgeagents.adapters.middleware import correlation_id
from edgeagents.embedded import profile_routes
from edgeagents.embedded.contracts import ADD_DEVICE, ADD_SERVICE, UPDATE_DEVICE, UPDATE_SERVICE
from edgeagents.embedded.device_profiles import UNITS
from edgeagents.embedded.http import flag, ok, param, routes
from edgeagents.embedded.metadata import Metadata
from edgeagents.embedded.row_routes import each, equal, labelled, lister


def add_routes(app: FastAPI, metadata: Metadata) -> None:
    """Add all routes of core-metadata."""

    async def units(request: Request) -> Response:
        return ok(uom=UNITS)

    routes(app, ("GET", "/uom", units))
    _add_service_routes(app, metadata)
    _add_device_routes(app, metadata)
    profile_routes.add_routes(app, metadata.profiles)


def _add_service_routes(app: FastAPI, metadata: Metadata) -> None:
    async def add(request: Request) -> Response:
        correlation = correlation_id.get()
        return await each(request, ADD_SERVICE, lambda item: metadata.add_service(item, correlation))

    async def patch(request: Request) -> Response:
        correlation = correlation_id.get()
        return await each(request, UPDATE_SERVICE, lambda item: metadata.patch_service(item, correlation))

    async def get(request: Request) -> Response:
        return ok(service=metadata.service(param(request, "name")))

    async def delete(request: Request) -> Response:
        await metadata.delete_service(param(request, "name"), correlation_id.get())
        return ok()

    routes(
        app,
        ("POST", "/deviceservice", add),
        ("PATCH", "/deviceservice", patch),
        ("GET", "/deviceservice/all", lister(metadata.services, "services", labelled)),
        ("GET", "/deviceservice/name/{name}", get),
        ("DELETE", "/deviceservice/name/{name}", delete),
    )


def _add_device_routes(app: FastAPI, metadata: Metadata) -> None:
    async def add(request: Request) -> Response:
        correlation, bypass, force = correlation_id.get(), flag(request, "bypassValidation"), flag(request, "force")
        return await each(
            request, ADD_DEVICE, lambda item: metadata.add_device(item, correlation, bypass=bypass, force=force)
        )

    async def patch(request: Request) -> Response:
        correlation, bypass = correlation_id.get(), flag(request, "bypassValidation")
        return await each(request, UPDATE_DEVICE, lambda item: metadata.patch_device(item, correlation, bypass=bypass))

    async def get(request: Request) -> Response:
        return ok(device=metadata.device(param(request, "name")))

    async def get_by_id(request: Request) -> Response:
        return ok(device=metadata.device_by_id(param(request, "id")))

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
        ("GET", "/device/all", lister(devices, "devices", labelled)),
        ("GET", "/device/check/name/{name}", check),
        ("GET", "/device/service/name/{name}", lister(devices, "devices", equal("serviceName", "name"))),
        ("GET", "/device/profile/name/{name}", lister(devices, "devices", equal("profileName", "name"))),
        ("GET", "/device/id/{id}", get_by_id),
        ("GET", "/device/name/{name}", get),
        ("DELETE", "/device/name/{name}", delete),
    )
