"""The service answers before its model is there, and says why it is not."""

import asyncio
import hashlib
import threading
import weakref
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from pydantic import ValidationError

from edgeagents.adapters.model_shelf import Shelf
from edgeagents.adapters.web import WebContext, make_app
from edgeagents.errors import InvalidInputError, NotFoundError, UnavailableError
from edgeagents.inference.engine import Engine, Prepared
from edgeagents.inference.folder import MANIFEST, write_manifest
from edgeagents.model.completion import CompletionRequest
from services.inference.app import InferenceSettings
from services.inference.error_pages import OpenAiErrors
from services.inference.routes import add_routes
from tests.nats import until


class Panic(BaseException):
    """As packages in Rust raise: no `except Exception` sees it."""

    __module__ = "pyo3_runtime"


class Standing:
    """Stands for an engine."""

    def __init__(self) -> None:
        self.failure, self.digest, self.is_closed = "", "d" * 64, False

    def start(self) -> None:
        self.failure = ""

    def close(self) -> None:
        self.is_closed = True


class Slow(Standing):
    """Stands for an engine that is slow to prepare, and then is away."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on, self.now, self.most, self.budgets = threading.Event(), 0, 0, list[float]()

    def prepare(self, request: CompletionRequest, **_: Any) -> Prepared:
        self.now += 1
        self.most = max(self.most, self.now)
        assert self.goes_on.wait(30)
        self.now -= 1
        return Prepared((), 3, request.budget_s)

    def submit(self, client: str, prepared: Prepared, tell: Any) -> None:
        self.budgets.append(prepared.budget_s)
        raise UnavailableError("it is away")


def no_secret(*_: Any) -> Any:
    raise AssertionError("no secret is stored here")


def app_of(shelf: Shelf) -> FastAPI:
    app = make_app(WebContext(key="app-inference", version="1.0.0", config=dict, store_secret=no_secret))
    app.add_middleware(OpenAiErrors)
    add_routes(app, shelf, 10.0)
    return app


def test_only_the_model_whose_digest_the_owner_names_is_loaded(tmp_path: Path) -> None:
    write_manifest(tmp_path, "empty", None)
    digest = hashlib.sha256((tmp_path / MANIFEST).read_bytes()).hexdigest()
    with pytest.raises(InvalidInputError, match=f"is {digest[:12]}…, wanted is 000000000000…"):
        InferenceSettings(model=tmp_path, model_digest="0" * 64).load(tmp_path)
    for wanted in ("", digest):
        with pytest.raises(NotFoundError, match=r"names no file 'config\.json'"):
            InferenceSettings(model=tmp_path, model_digest=wanted).load(tmp_path)


def test_a_digest_comes_from_the_environment_and_must_be_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEAGENTS_INFERENCE_MODEL_DIGEST", "ab" * 32)
    assert InferenceSettings().model_digest == "ab" * 32
    for wrong in ("ab", "AB" * 32, "xy" * 32, "ab" * 32 + "\n"):
        monkeypatch.setenv("EDGEAGENTS_INFERENCE_MODEL_DIGEST", wrong)
        with pytest.raises(ValidationError, match="model_digest"):
            InferenceSettings()


async def test_what_cannot_be_prepared_in_time_is_too_late(tmp_path: Path) -> None:
    engine = Slow()
    shelf = Shelf(tmp_path / "tiny", lambda folder: cast(Engine, engine), look_again_s=60)
    keeping = asyncio.create_task(shelf.keep())
    await until(lambda: not shelf.why_not)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "budget_s": 0.05}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app_of(shelf)), base_url="http://here") as http:
        async with asyncio.timeout(20):
            # The second one waits for the first, whose thread goes on.
            answers = await asyncio.gather(*[http.post("/v1/chat/completions", json=body) for _ in range(2)])
        assert [answer.status_code for answer in answers] == [429, 429]
        assert "no time for it within 0.05 s" in answers[0].json()["error"]["message"]
        assert answers[0].headers["Retry-After"] == "1"
        assert engine.most == 1
        engine.goes_on.set()
        # What is left of the budget is all that the engine gets.
        answer = await http.post("/v1/chat/completions", json=body | {"budget_s": 30.0})
        assert (answer.status_code, engine.most) == (503, 1)
        assert 20.0 < engine.budgets[0] < 30.0
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_a_model_that_is_missing_or_changed_is_a_503_with_the_reason(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "tiny", InferenceSettings(model=tmp_path / "tiny").load, look_again_s=60)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app_of(shelf)), base_url="http://here") as http:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
        answer = await http.post("/v1/chat/completions", json=body)
        assert (answer.status_code, "is being loaded" in answer.json()["error"]["message"]) == (503, True)
        keeping = asyncio.create_task(shelf.keep())
        await until(lambda: "is being loaded" not in shelf.why_not)
        answer = await http.get("/v1/models")
        assert answer.status_code == 503
        assert answer.json()["error"]["message"].startswith("no language model: ")
        assert answer.json()["error"]["type"] == "server_error"
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def test_it_looks_again_until_the_model_is_there_and_again_when_it_stops(tmp_path: Path) -> None:
    made: list[Standing] = []

    def load(folder: Path) -> Engine:
        if not made and not load_later:
            load_later.append(True)
            raise InvalidInputError("a file was changed")
        made.append(Standing())
        return cast(Engine, made[-1])

    load_later: list[bool] = []
    shelf = Shelf(tmp_path / "m", load, look_again_s=0.0)
    keeping = asyncio.create_task(shelf.keep())
    await until(lambda: not shelf.why_not)
    assert shelf.engine() is cast(Engine, made[0])
    made[0].failure = "a bug"
    with pytest.raises(UnavailableError, match="a bug"):
        shelf.engine()
    await until(lambda: not shelf.why_not)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert made[1].is_closed


async def test_an_engine_that_stopped_is_gone_before_another_one_is_loaded(tmp_path: Path) -> None:
    made: list[weakref.ref[Standing]] = []

    def load(folder: Path) -> Engine:
        assert not [engine for engine in made if engine() is not None], "both may not fit into memory"
        engine = Standing()
        made.append(weakref.ref(engine))
        return cast(Engine, engine)

    shelf = Shelf(tmp_path / "m", load, look_again_s=0.0)
    keeping = asyncio.create_task(shelf.keep())
    await until(lambda: not shelf.why_not)
    shelf.engine().failure = "a bug"
    await until(lambda: len(made) == 2 and not shelf.why_not)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "no language model: MemoryError"), (OSError(12, "Cannot allocate memory"), "Cannot allocate"),
        (RecursionError("too deep"), "RecursionError: too deep"), (InvalidInputError("changed"), "model: changed"),
        (Panic("index out of bounds"), "Panic: index out of bounds"),
    ],
    ids=repr,
)  # fmt: skip
async def test_a_load_that_fails_for_want_of_anything_says_why_and_is_tried_again(
    tmp_path: Path, error: BaseException, why: str
) -> None:
    loads = 0

    def load(folder: Path) -> Engine:
        nonlocal loads
        loads += 1
        if loads == 2:
            raise error
        return cast(Engine, Standing())

    shelf = Shelf(tmp_path / "m", load, look_again_s=0.02)
    keeping = asyncio.create_task(shelf.keep())
    await until(lambda: not shelf.why_not)
    shelf.engine().failure = "a bug"
    assert shelf.why_not.endswith("stopped: a bug")
    await until(lambda: "stopped" not in shelf.why_not)
    assert why in shelf.why_not
    with pytest.raises(UnavailableError, match="no language model"):
        shelf.engine()
    await until(lambda: not shelf.why_not)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
