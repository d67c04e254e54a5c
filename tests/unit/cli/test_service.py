"""What the command line makes of services that are away, odd or slow, and of words that cannot be sent."""

import asyncio
import contextlib
import json
import ssl
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeagents.cli import led, service
from edgeagents.cli.service import Service, call, checked_url, exchange
from edgeagents.cli.source import Broker
from edgeagents.cli.task import show
from edgeagents.errors import ConfigurationError, UnavailableError, UpstreamError
from tests.certificates import a_pair
from tests.dripping import dripping
from tests.pouring import answer_of, pouring
from tests.unit.cli.command import Done, run

ADDRESSES = ["http://[::1", "http://a..b:80", f"http://{'h' * 70}:80", "http://127.0.0.1:598900", "http://h:0", "h:80",
             "http://:80", "", "ftp://h", "http://h:80x", "http://h\n:80", "http://\udcff"]  # fmt: skip
GUARDS = [["orders"], ["approvals", "list"], ["approvals", "deny", "c"], ["pause", "all"], ["mode", "air", "act"]]
COORDINATORS = [["task", "list"], ["task", "show", "t"], ["task", "submit", "clean"], ["task", "watch"],
                ["conflict", "list"], ["conflict", "show", "c"]]  # fmt: skip
ODD: list[Any] = [[], 3, "x", {}, None, {"paused": 3}, {"approvals": {"a": 1}}, {"paused": [], "modes": 3},
                  {"paused": [{}], "modes": {}}, {"tasks": [{}], "task": 3, "conflicts": [3], "conflict": []},
                  {"tasks": 3, "conflicts": {}, "task": {"task": []}},
                  {"paused": [], "modes": {}, "overrides": [{"untilSite": 1e20}]}]  # fmt: skip


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("a-token-of-ann-000\n")
    monkeypatch.setenv("EDGEAGENTS_TOKEN_FILE", str(path))
    return path


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list whose last entry every service answers with."""
    answers: list[Any] = [{}]

    async def exchange(*_: object) -> httpx.Response:
        return httpx.Response(200, content=json.dumps(answers[-1]))

    monkeypatch.setattr(service, "exchange", exchange)
    return answers


def refused(done: Done) -> str:
    """Return what a command said that ended with an error of ours."""
    assert done.code == 1
    assert done.err.startswith("error: ")
    return done.err


@pytest.mark.parametrize("url", ADDRESSES)
@pytest.mark.parametrize("words", [*GUARDS[:1], *COORDINATORS[:1], *COORDINATORS[3:5]])
def test_an_address_that_is_none_says_what_to_write(
    capsys: pytest.CaptureFixture[str], words: list[str], url: str
) -> None:
    option = "--guard" if words in GUARDS else "--coordinator"
    said = refused(run(capsys, *words, option, url))
    assert f"{option} " in said
    assert "write http://host:port, port 1 to 65535" in said


@pytest.mark.parametrize("more", ["/api/v3", "/api/v3/", "?x=1", "/?x", "#f", "?"])
def test_an_address_that_no_path_can_follow_is_none(capsys: pytest.CaptureFixture[str], more: str) -> None:
    said = refused(run(capsys, "doctor", "--keeper", f"http://h:59890{more}"))
    assert "--keeper " in said
    assert "write http://host:port, port 1 to 65535" in said


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:59740",
        "https://[::1]:1/",
        "http://edge_core:65535",
        "http://bücher.example",
        "http://h.",
        "https://h:8443/core-keeper",
    ],
)
def test_an_address_that_is_one_is_kept(url: str) -> None:
    assert checked_url("--guard", url) == url.rstrip("/")


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("words", [*GUARDS, *COORDINATORS[:3], *COORDINATORS[4:]])
def test_an_answer_of_another_shape_is_no_such_services(
    capsys: pytest.CaptureFixture[str], answer: list[Any], words: list[str], odd: Any
) -> None:
    answer.append(odd)
    done = run(capsys, *words)
    if words[1:2] == ["deny"] and isinstance(odd, dict):
        assert done.code == 0  # nothing of the answer is shown
    else:
        assert f"is it a {'guard' if words in GUARDS else 'coordinator'}?" in refused(done)


def test_what_is_no_text_is_refused_before_anybody_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "exchange", None)
    for words in (["pause", "agent", "\udcff"], ["approvals", "approve", "\udcff"], ["task", "show", "\udcff"],
                  ["task", "submit", "clean", "--deadline", "nan"], ["conflict", "show", "\udcff"]):  # fmt: skip
        refused(run(capsys, *words))


@pytest.mark.parametrize("text", ["tökenöfänn", "a token\nof-ann"])
def test_a_token_that_cannot_be_sent_names_its_file(capsys: pytest.CaptureFixture[str], token: Path, text: str) -> None:
    token.write_text(text)
    assert str(token) in refused(run(capsys, "pause", "all")).replace("\n", "")


def test_a_service_that_sends_a_byte_now_and_then_is_given_up() -> None:
    began = time.monotonic()
    with dripping() as url, pytest.raises(UnavailableError, match=r"no whole answer in 0\.3 s"):
        call(Service("guard", "--guard", url), "GET", "/x", limit_s=0.3)
    assert time.monotonic() - began < 5


def test_nobody_there_is_told_with_the_option() -> None:
    with pytest.raises(UnavailableError, match=r"guard http://127\.0\.0\.1:1: .* is --guard right"):
        call(Service("guard", "--guard", "http://127.0.0.1:1"), "GET", "/x")


@pytest.mark.parametrize("odd", [{}, {"task": 3}, {"task": {}}, {"task": {"state": "done", "task": 3}}])
def test_an_agent_that_leads_and_answers_oddly_is_no_leader(monkeypatch: pytest.MonkeyPatch, odd: Any) -> None:
    async def asked(*_: object) -> list[bytes]:
        return [json.dumps({"statusCode": 200, **odd}).encode()]

    monkeypatch.setattr(led, "_asked", asked)
    with pytest.raises(UpstreamError, match="is it a leader"):
        show("t", leader="ada")
    if odd != {"task": {"state": "done", "task": 3}}:
        with pytest.raises(UpstreamError, match="is it a leader"):
            next(led.changes(Broker(), "ada", "t", 1.0))


def test_a_status_beyond_all_numbers_is_no_answer() -> None:
    with pytest.raises(UpstreamError):
        led.answer_of([b'{"statusCode": 1e999}'], "ada")


def test_an_address_is_checked_when_it_is_used() -> None:
    with pytest.raises(ConfigurationError):
        call(Service("guard", "--guard", "h:1"), "GET", "/x")


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names a proxy for all, at which nobody answers."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("proxies")
def test_a_gateway_is_asked_without_a_proxy_of_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    with pouring(answer_of(b'{"paused": [], "modes": {}}')) as guard:
        assert run(capsys, "pause", "all", "--guard", guard.url).code == 0
    assert b"a-token-of-ann-000" in guard.asked[0]
    told = b'data: {"state": "done", "id": "t", "winner": "", "reason": "", "task": {"skill": "clean"}}'
    with pouring(answer_of(told)) as coordinator:
        assert "done" in run(capsys, "task", "watch", "t", "--coordinator", coordinator.url).out
    assert coordinator.asked[0].startswith(b"GET /api/v3/task/id/t/watch")


@pytest.mark.parametrize("status", [b"200 OK", b"409 Conflict"])
def test_an_answer_without_end_is_given_up(capsys: pytest.CaptureFixture[str], status: bytes) -> None:
    with pouring(b"HTTP/1.1 " + status + b"\r\n\r\n", b" " * 65536) as endless:
        assert "is longer than 32 MB: is it" in refused(run(capsys, "orders", "--guard", endless.url))
        said = refused(run(capsys, "task", "watch", "t", "--coordinator", endless.url))
    assert ("a line of its answer does not end" if status == b"200 OK" else "without JSON") in said


async def test_the_owners_certificates_count_and_no_proxy_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = a_pair()
    own = tmp_path / "own.pem"
    own.write_text(certificate)
    (tmp_path / "key.pem").write_text(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, tmp_path / "key.pem")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
        writer.close()

    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(httpx.ConnectError):
            await exchange("GET", url, {}, None, 5.0)
        monkeypatch.setenv("SSL_CERT_FILE", str(own))
        assert (await exchange("GET", url, {}, None, 5.0)).text == "{}"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing.pem"))
        with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
            await exchange("GET", url, {}, None, 5.0)
