"""How the command line asks one of our services over HTTP: an address that is one, an end to each wait, and an answer
of another shape told as such.

Source: httpx 0.28; RFC 3986; docs/operations.md.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx

from edgeagents.adapters.answers import whole_answer
from edgeagents.errors import ConfigurationError, InvalidInputError, UnavailableError, UpstreamError, error_for_status

LIMIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Service:
    """A service and how the command line names it.

    Args:
        kind: a word for people, such as `guard`.
        option: that says where it is.
        url: where it is.
    """

    kind: str
    option: str
    url: str

    def __str__(self) -> str:
        """Return a name for people: guard http://127.0.0.1:59740."""
        return f"{self.kind} {self.url}"

    @property
    def base(self) -> str:
        """Return its address without a slash at the end.

        Raises:
            ConfigurationError: it is none.
        """
        return checked_url(self.option, self.url)


def checked_url(option: str, url: str) -> str:
    """Return an address of HTTP without a slash at the end; an option that holds none says what to write.

    Raises:
        ConfigurationError: no scheme, no host that can be looked up, a port that there is not, or what no path
            can follow.
    """
    try:
        parts = urlsplit(url)
        httpx.URL(url).host.encode("idna")
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        # A query or a fragment would swallow the path that is asked, and `/api/v3` is asked below it. Other paths stay:
        # a gateway of EdgeX's secure mode has each service below one.
        is_one = is_one and not {"?", "#"} & set(url) and not parts.path.rstrip("/").endswith("/api/v3")
    except (ValueError, httpx.InvalidURL):  # UnicodeError is a ValueError
        is_one = False
    if not is_one:
        raise ConfigurationError(f"{option} {url!r} is no address: write http://host:port, port 1 to 65535")
    return url.rstrip("/")


def segment(name: str) -> str:
    """Return a name as one level of a URL path.

    Raises:
        InvalidInputError: it is no text.
    """
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{name!r} is no UTF-8 text") from error


def call(
    service: Service,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    limit_s: float = LIMIT_S,
) -> dict[str, Any]:
    """Return a service's answer, an object, whole within `limit_s`.

    Raises:
        ConfigurationError: its address is none.
        InvalidInputError: what should be sent cannot be.
        UnavailableError: it cannot be reached, or takes too long.
        UpstreamError: what answers is no such service.
        EdgeAgentsError: what its error answer means.
    """
    url, content = f"{service.base}{path}", _written(body)
    try:
        answer = asyncio.run(exchange(method, url, dict(headers or {}), content, limit_s))
    except TimeoutError as error:
        text = f"{service}: no whole answer in {limit_s:g} s: is it up, is {service.option} right?"
        raise UnavailableError(text) from error
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, OverflowError) as error:
        text = f"{service}: {str(error) or type(error).__name__}: is it up, is {service.option} right?"
        raise UnavailableError(text) from error
    return content_of(service, answer)


async def exchange(
    method: str, url: str, headers: Mapping[str, str], content: bytes | None, limit_s: float
) -> httpx.Response:
    """Return what answers, read to its end within `limit_s`: httpx alone counts each read anew.

    Raises:
        UpstreamError: its answer is too long.
    """
    sent = {"Content-Type": "application/json", **headers} if content is not None else headers
    # As all that is asked of a gateway: no proxy of the environment hears an approver's token, or a pause.
    client = httpx.AsyncClient(timeout=limit_s, trust_env=False, verify=trusted(url))
    async with asyncio.timeout(limit_s), client as http:
        return await whole_answer(http, http.build_request(method, url, headers=sent, content=content), url)


def trusted(url: str) -> ssl.SSLContext | bool:
    """Return which certificates count for an address, those of SSL_CERT_FILE and SSL_CERT_DIR if they are set.

    Raises:
        ConfigurationError: they cannot be read.
    """
    if not url.startswith("https:"):
        return True
    try:
        return httpx.create_ssl_context()
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"SSL_CERT_FILE, SSL_CERT_DIR: {error}") from error


def _written(body: Mapping[str, Any] | None) -> bytes | None:
    try:
        return None if body is None else json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:  # bytes of a command line that are no UTF-8; numbers that JSON has not
        raise InvalidInputError(f"{body!r} cannot be sent: {error}") from error


def content_of(service: Service, answer: httpx.Response) -> dict[str, Any]:
    """Return an answer's object; raises as `call` does."""
    try:
        content = answer.json()
    except (ValueError, RecursionError) as error:
        text = f"{service}: answered {answer.status_code} without JSON: is it a {service.kind}?"
        raise UpstreamError(text) from error
    if not isinstance(content, dict):
        raise UpstreamError(f"{service}: answered {answer.status_code} with no object: is it a {service.kind}?")
    if answer.is_error:
        raise error_for_status(answer.status_code, str(content.get("message", content)))
    return content


@contextlib.contextmanager
def understood(who: object, kind: str) -> Iterator[None]:
    """Read an answer within: one that lacks a key, or has it in another shape, is not of that kind of service.

    Raises:
        UpstreamError: so it is.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UpstreamError(f"{who}: its answer is of another shape ({what}): is it a {kind}?") from error


def objects(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return a list of objects of an answer; to be read within `understood`.

    Raises:
        KeyError: it is not there.
        TypeError: it is none.
    """
    found = body[name]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise TypeError(f"{name!r} is no list of objects")
    return found
