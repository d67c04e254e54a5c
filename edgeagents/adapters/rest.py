"""One EdgeX service over HTTP: EdgeX's statuses and httpx's failures become our errors at once.

The address of a service is found when it is first needed and again after it could not be reached, so a core
service may start later than we do, or move.

Source: edgex-wire.md sections 3.1, 4 and 5.
"""

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from edgeagents.adapters import cbor, telemetry
from edgeagents.adapters.answers import whole_answer
from edgeagents.errors import MalformedMessageError, UnavailableError, UpstreamError, error_for_status

CORRELATION_HEADER = "X-Correlation-ID"
# Called when a request is about to be written to its connection; raises when it must not go out any more.
LastLook: TypeAlias = Callable[[], None]
_ABOUT_TO_SEND: Final = ".send_request_headers.started"
_NEVER_SENT = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.LocalProtocolError,
)  # fmt: skip


def make_http() -> httpx.AsyncClient:
    """Return the HTTP client a service shares among all it asks; the caller closes it."""
    # EdgeX services are neighbours: proxies of the environment are not for them. An idle connection is given up
    # before uvicorn's 5 s, else a request on a connection that the other side just closes has no definite answer.
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=2.0)
    return httpx.AsyncClient(trust_env=False, follow_redirects=False, limits=limits, timeout=httpx.Timeout(5.0))


class Address(Protocol):
    """Where a service answers."""

    async def base_url(self) -> str:
        """Return `http://host:port`.

        Raises:
            UnavailableError: it is not known (yet).
        """

    def forget(self) -> None:
        """Look it up again next time: nobody listened there."""


class Tokens(Protocol):
    """Where the tokens come from that our calls carry in secure mode."""

    async def bearer(self) -> SecretStr:
        """Return a token that holds now.

        Raises:
            UnavailableError: none can be had.
        """

    def forget(self, used: SecretStr) -> None:
        """Get another one next time: this one was refused."""


class FixedAddress:
    """An address that a setting names."""

    def __init__(self, url: str) -> None:
        """Use `url`, without a path."""
        self._url = url.rstrip("/")

    async def base_url(self) -> str:
        """Return the address."""
        return self._url

    def forget(self) -> None:
        """Keep it: there is no other."""


class Rest:
    """Requests to one EdgeX service."""

    def __init__(
        self,
        name: str,
        address: Address,
        http: httpx.AsyncClient,
        *,
        timeout_s: float = 5.0,
        token: SecretStr | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        """Use an address and a shared HTTP client; `token` is sent as a bearer, else one of `tokens`."""
        self.name = name
        self.timeout_s = timeout_s
        self._address = address
        self._http = http
        self._tokens = tokens
        self.token = token

    def use_tokens(self, tokens: Tokens) -> None:
        """Send one of `tokens` with every request from now on."""
        self._tokens = tokens

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        correlation_id: str = "",
        timeout_s: float | None = None,
        silent: type[UnavailableError] = UnavailableError,
        last_look: LastLook | None = None,
    ) -> Any:
        """Return the decoded answer; None for an empty one.

        Args:
            method: GET, PUT, ...
            path: below the address, its names already escaped (see `segment`).
            query: query parameters.
            body: sent as JSON unless None.
            correlation_id: made when empty.
            timeout_s: the whole request's deadline; the client's own when None.
            silent: what to raise when the request may have been carried out but no answer came.
            last_look: called as late as can be before it is sent; what it raises is raised, and nothing is sent.

        Raises:
            UnavailableError: not reachable or no token, so certainly not carried out; or `silent`.
            UpstreamError: an answer that is no JSON, too long, or of a status that EdgeX does not use.
            TheirError: what EdgeX's error answer means (`errors.error_for_status`), with its text.
        """
        with telemetry.span(f"{method} {self.name}", kind="client") as request:
            response = await self._send(
                method, path, query, body, correlation_id, timeout_s or self.timeout_s, silent, last_look
            )
            request.note({"http.response.status_code": response.status_code, "url.path": path})
        if response.is_success:
            return _decode(response, f"{self.name}: {method} {path}")
        raise error_for_status(response.status_code, f"{self.name}: {method} {path}: {_message(response)}")

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        correlation_id: str,
        timeout_s: float,
        silent: type[UnavailableError],
        last_look: LastLook | None,
    ) -> httpx.Response:
        headers = {CORRELATION_HEADER: correlation_id or str(uuid.uuid4()), **telemetry.carried()}
        end = asyncio.get_running_loop().time() + timeout_s
        used = await self._authorise(headers, end)
        response = await self._exchange(method, path, query, body, headers, timeout_s, end, silent, last_look)
        if response.status_code == 401 and used is not None and self._tokens is not None:
            self._tokens.forget(used)  # it expired on its way, so nothing was carried out
            await self._authorise(headers, end)
            response = await self._exchange(method, path, query, body, headers, timeout_s, end, silent, last_look)
        return response

    async def _authorise(self, headers: dict[str, str], end: float) -> SecretStr | None:
        """Put our token into the headers; return it when there may be a newer one."""
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token.get_secret_value()}"
        if self.token is not None or self._tokens is None:
            return None
        try:
            async with asyncio.timeout_at(end):
                token = await self._tokens.bearer()
        except TimeoutError as error:
            raise UnavailableError(f"{self.name}: no token of our own in time: is OpenBao up?") from error
        headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        return token

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        headers: Mapping[str, str],
        timeout_s: float,
        end: float,
        silent: type[UnavailableError],
        last_look: LastLook | None,
    ) -> httpx.Response:
        url = await self._address.base_url()
        where = f"{self.name} at {url}"
        # httpx counts each read anew; the outer deadline holds for the whole request.
        limits = httpx.Timeout(timeout_s, connect=min(2.0, timeout_s / 2))
        extensions = {"trace": _tracer(last_look)} if last_look is not None else None
        try:
            request = self._http.build_request(
                method, url + path, params=query, json=body, headers=headers, timeout=limits, extensions=extensions
            )
        except (httpx.InvalidURL, UnicodeError) as error:  # a host such as `xn--`
            self._address.forget()
            raise UnavailableError(f"{where} cannot be reached: {_text(error)}: is it up?") from error
        try:
            async with asyncio.timeout_at(end):
                if last_look is not None:
                    last_look()
                return await whole_answer(self._http, request, where)
        except (*_NEVER_SENT, httpx.InvalidURL) as error:
            self._address.forget()
            raise UnavailableError(f"{where} cannot be reached: {_text(error)}: is it up?") from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise silent(f"{where}: no answer to {method} {path} in {timeout_s:g} s") from error
        except UpstreamError as error:  # too long: what a request of doubt did is as open as without an answer
            raise error if silent is UnavailableError else silent(str(error)) from error
        except httpx.RequestError as error:
            self._address.forget()
            raise silent(f"{where}: connection broke during {method} {path}: {_text(error)}") from error


def _tracer(last_look: LastLook) -> Callable[[str, Mapping[str, Any]], Any]:
    # Getting a connection can take its time: what counts is the moment before the first byte.
    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(_ABOUT_TO_SEND):
            last_look()

    return trace


def segment(name: str) -> str:
    """Return a name as one level of a URL path."""
    return quote(name, safe="")


def check_items(answer: Any, what: str) -> list[dict[str, Any]]:
    """Return the items of a 207 answer when all of them succeeded.

    Raises:
        UpstreamError: not a list of results.
        TheirError: what the first failed item means.
    """
    if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
        raise UpstreamError(f"{what}: expected one result per item, got {str(answer)[:200]}")
    for item in answer:
        status = item.get("statusCode")
        if not isinstance(status, int) or status >= 300:
            raise error_for_status(status if isinstance(status, int) else 500, f"{what}: {item.get('message', item)}")
    return answer


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _decode(response: httpx.Response, what: str) -> Any:
    if not response.content.strip():
        return None
    kind = response.headers.get("content-type", "no content type")
    try:
        # An event with a Binary value is CBOR. Anything else is JSON, whatever it is called.
        return cbor.loads(response.content) if kind.startswith("application/cbor") else json.loads(response.content)
    except MalformedMessageError as error:
        raise UpstreamError(f"{what}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UpstreamError(f"{what}: the answer ({kind}) is not JSON") from error


def _message(response: httpx.Response) -> str:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict) and isinstance(body.get("message"), str) and body["message"]:
        return str(body["message"])
    return response.text[:500].strip() or f"status {response.status_code}"
