"""The HTTP routes of the embedded core-metadata for profiles: whole, as YAML files, and in parts."""

import json
from collections.abc import Callable

import yaml
from fastapi import FastAPI, Request, Response
from starlette.datastructures import UploadFile

from edgeagents.adapters.middleware import correlation_id
from edgeagents.embedded.contracts import (
    ADD_COMMAND,
    ADD_RESOURCE,
    PATCH_BASICS,
    PATCH_COMMAND,
    PATCH_RESOURCE,
    PROFILE,
    Item,
    read_profile_file,
)
from edgeagents.embedded.contracts import Request as Kind
from edgeagents.embedded.device_profiles import Profiles, View, basic_view, profile_view
from edgeagents.embedded.http import ok, param, routes
from edgeagents.embedded.row_routes import each, equal, labelled, lister
from edgeagents.embedded.storage import Row
from edgeagents.errors import InvalidInputError


def add_routes(app: FastAPI, profiles: Profiles) -> None:
    """Add all routes of profiles."""
    _add_whole(app, profiles)
    _add_lists(app, profiles)
    _add_files(app, profiles)
    _add_basics(app, profiles)
    _add_parts(app, profiles, "deviceResources", "resource", ADD_RESOURCE, PATCH_RESOURCE)
    _add_parts(app, profiles, "deviceCommands", "deviceCommand", ADD_COMMAND, PATCH_COMMAND)


def _add_whole(app: FastAPI, profiles: Profiles) -> None:
    async def add(request: Request) -> Response:
        correlation = correlation_id.get()
        return await each(request, PROFILE, lambda item: profiles.add(item, correlation))

    async def put(request: Request) -> Response:
        profiles.check_changes()
        correlation = correlation_id.get()
        return await each(request, PROFILE, lambda item: profiles.put(item, correlation))

    async def get(request: Request) -> Response:
        (found,) = profiles.views([profiles.get(param(request, "name"))], profile_view)
        return ok(profile=found)

    async def delete(request: Request) -> Response:
        await profiles.delete(param(request, "name"), correlation_id.get())
        return ok()

    one = "/deviceprofile/name/{name}"
    routes(app, ("POST", "/deviceprofile", add), ("PUT", "/deviceprofile", put))
    routes(app, ("GET", one, get), ("DELETE", one, delete))


def _add_lists(app: FastAPI, profiles: Profiles) -> None:
    def shown_as(view: View) -> Callable[[list[Row]], list[Row]]:
        return lambda rows: profiles.views(rows, view)

    maker, model = equal("manufacturer"), equal("model")

    def both(request: Request) -> Callable[[Row], bool]:
        is_made, is_model = maker(request), model(request)
        return lambda row: is_made(row) and is_model(row)

    whole, table, root = shown_as(profile_view), profiles.table, "/deviceprofile"
    routes(
        app,
        ("GET", f"{root}/all", lister(table, "profiles", labelled, whole)),
        ("GET", f"{root}/basicinfo/all", lister(table, "profiles", labelled, shown_as(basic_view))),
        ("GET", f"{root}/manufacturer/{{manufacturer}}", lister(table, "profiles", maker, whole)),
        ("GET", f"{root}/model/{{model}}", lister(table, "profiles", model, whole)),
        ("GET", f"{root}/manufacturer/{{manufacturer}}/model/{{model}}", lister(table, "profiles", both, whole)),
    )


def _add_files(app: FastAPI, profiles: Profiles) -> None:
    async def add(request: Request) -> Response:
        found = await profiles.add(Item("", await _uploaded_profile(request)), correlation_id.get())
        return ok(201, id=found)

    async def put(request: Request) -> Response:
        profiles.check_changes()
        await profiles.put(Item("", await _uploaded_profile(request)), correlation_id.get())
        return ok()

    path = "/deviceprofile/uploadfile"
    routes(app, ("POST", path, add), ("PUT", path, put))


def _add_basics(app: FastAPI, profiles: Profiles) -> None:
    async def patch(request: Request) -> Response:
        correlation = correlation_id.get()
        return await each(request, PATCH_BASICS, lambda item: profiles.patch_basics(item, correlation))

    async def resource(request: Request) -> Response:
        return ok(resource=profiles.resource(param(request, "profile"), param(request, "resource")))

    routes(
        app,
        ("PATCH", "/deviceprofile/basicinfo", patch),
        ("GET", "/deviceresource/profile/{profile}/resource/{resource}", resource),
    )


def _add_parts(app: FastAPI, profiles: Profiles, kind: str, word: str, add_kind: Kind, patch_kind: Kind) -> None:
    """Add the routes of one kind of part: what the profile calls it, what the path calls it, and its requests."""

    async def add(request: Request) -> Response:
        correlation = correlation_id.get()
        return await each(request, add_kind, lambda item: profiles.add_part(kind, item, correlation), 201)

    async def patch(request: Request) -> Response:
        correlation = correlation_id.get()
        return await each(request, patch_kind, lambda item: profiles.patch_part(kind, item, correlation))

    async def delete(request: Request) -> Response:
        await profiles.delete_part(kind, param(request, "profile"), param(request, "part"), correlation_id.get())
        return ok()

    path = f"/deviceprofile/{word}"
    routes(app, ("POST", path, add), ("PATCH", path, patch))
    routes(app, ("DELETE", f"/deviceprofile/name/{{profile}}/{word}/{{part}}", delete))


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
