"""The HTTP routes of the embedded core-command, and the tokens that it may demand."""

import hmac
from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI, Request, Response

from edgeagents.adapters.middleware import correlation_id
from edgeagents.embedded.command import Commands, check_flags
from edgeagents.embedded.http import Guard, empty, ok, paging, param, routes, write_json
from edgeagents.embedded.validation import load_json
from edgeagents.errors import ConfigurationError, InvalidInputError


def add_routes(app: FastAPI, commands: Commands) -> None:
    """Add all routes of core-command."""

    async def everything(request: Request) -> Response:
        total, found = commands.all_commands(*paging(request))
        return ok(totalCount=total, deviceCoreCommands=found)

    async def of_device(request: Request) -> Response:
        return ok(deviceCoreCommand=commands.commands_of(param(request, "name")))

    async def get(request: Request) -> Response:
        check_flags(request.query_params)
        found = await commands.get(
            param(request, "name"), param(request, "command"), _query(request), correlation_id.get()
        )
        return empty(200) if found is None else write_json(found, _status(found))

    async def put(request: Request) -> Response:
        settings = await _settings(request)
        done = await commands.set(
            param(request, "name"), param(request, "command"), _query(request), settings, correlation_id.get()
        )
        return write_json(done, _status(done))

    routes(
        app,
        ("GET", "/device/all", everything),
        ("GET", "/device/name/{name}", of_device),
        ("GET", "/device/name/{name}/{command}", get),
        ("PUT", "/device/name/{name}/{command}", put),
    )


def _query(request: Request) -> str:
    return bytes(request.scope["query_string"]).decode("latin-1")


async def _settings(request: Request) -> object:
    try:
        settings: object = load_json(await request.body())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("failed to parse request body") from error
    if settings is not None and not isinstance(settings, dict):
        raise InvalidInputError("failed to parse request body")
    return settings


def _status(body: dict[str, object]) -> int:
    status = body.get("statusCode")
    return status if isinstance(status, int) and 200 <= status < 600 else 200


def read_tokens(path: Path) -> dict[str, str]:
    """Return name and token of each line `name: token` of a file.

    Raises:
        ConfigurationError: it cannot be read, holds no token, or a line that is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"token file {path}: {error}: does it exist, may we read it?") from error
    tokens: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, _, token = text.partition(":")
        name, token = name.strip(), token.strip().strip("\"'")
        if not name or not token or name in tokens or any(letter.isspace() for letter in token):
            raise ConfigurationError(f"token file {path}, line {number}: write 'name: token', each name once")
        tokens[name] = token
    if not tokens:
        raise ConfigurationError(f"token file {path} holds no token: write 'name: token' lines")
    return tokens


def bearer_guard(tokens: Mapping[str, str]) -> Guard:
    """Return the rule that a request carries one of these tokens, as they are then, as its bearer."""

    def allowed(headers: Mapping[bytes, bytes]) -> bool:
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        # Every token is compared, in constant time: neither which one matches nor how far shows in the time it takes.
        matches = [hmac.compare_digest(token.strip(), own.encode()) for own in tokens.values()]
        return kind.lower() == b"bearer" and any(matches)

    return allowed
