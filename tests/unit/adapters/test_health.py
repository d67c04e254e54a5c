"""The health check of containers."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from edgeagents.adapters.health import is_healthy, url_in


class Answers(BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:4]))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name for the library
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (204, True), (301, False), (404, False), (503, False)])
def test_a_success_is_healthy(url: str, status: int, healthy: bool) -> None:
    assert is_healthy(f"{url}/{status}?x=y") is healthy


@pytest.mark.parametrize("wrong", ["http://127.0.0.1:1/", "http://nowhere.invalid:80/", "nonsense", "http://x:y/"])
def test_nobody_and_nonsense_are_not_healthy(wrong: str) -> None:
    assert not is_healthy(wrong)


def test_a_service_is_asked_where_it_wrote_that_it_listens(url: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    assert not is_healthy(url_in(str(place), "/200")), "it has not started yet"
    place.write_text(url.removeprefix("http://") + "\n")
    assert is_healthy(url_in(str(place), "/200"))
    assert not is_healthy(url_in(str(place), "/503"))


def test_an_address_of_ipv6_is_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def connecting(address: tuple[str, int], timeout: float) -> None:
        asked.append(address)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", connecting)
    assert not is_healthy("http://[::1]:59999/api")
    assert asked == [("::1", 59999)]
