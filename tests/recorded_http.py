"""An HTTP transport that answers from the recording of a real EdgeX, so that clients meet its very answers."""

import json
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx

from edgeagents.adapters.rest import FixedAddress, Rest
from tests.recordings import http_lines


class Recorded:
    """Answers a request as the recording does; several recordings of one request are told apart by `case`."""

    def __init__(self, service: str) -> None:
        """Answer as one recorded service: keeper, metadata, command, data."""
        self.lines = [line for line in http_lines() if line.service == service]
        self.asked: list[httpx.Request] = []
        self._case = ""

    def case(self, name: str) -> "Recorded":
        """Answer the next requests as in this case."""
        assert any(line.case == name for line in self.lines), f"no recorded case {name!r}"
        self._case = name
        return self

    def http(self) -> httpx.AsyncClient:
        """Return a client over this transport."""
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def rest(self, name: str = "service") -> Rest:
        """Return requests over this transport."""
        return Rest(name, FixedAddress("http://recorded"), self.http())

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        found = [
            line
            for line in self.lines
            if line.method == request.method
            and _same_place(line.path, request)
            and (not self._case or line.case == self._case)
        ]
        assert found, f"not recorded{f' as {self._case!r}' if self._case else ''}: {request.method} {request.url}"
        if request.content and isinstance(found[0].request, (dict, list)):
            found = [line for line in found if line.request == json.loads(request.content)] or found
        line = found[0]
        return httpx.Response(line.status, content=line.answer.encode(), headers={"content-type": line.content_type})


def _same_place(recorded: str, request: httpx.Request) -> bool:
    """Compare paths without their escapes; of the query only what the recording has must be there too."""
    parts = urlsplit(recorded)
    asked = parse_qsl(request.url.query.decode())
    return unquote(parts.path) == unquote(request.url.path) and set(parse_qsl(parts.query)) <= set(asked)
