"""Start here: the gateway's shared language model, for agents over NATS and for any OpenAI client over HTTP.

It decides nothing and commands nothing: what it writes is a proposal of whoever asked.

Source: design.md sections 2 and 6.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgeagents import subjects
from edgeagents.adapters.bootstrap import EdgexService, ServiceSpec
from edgeagents.adapters.metrics import Metrics
from edgeagents.adapters.micro import Endpoint
from edgeagents.adapters.model_shelf import Shelf
from edgeagents.adapters.objects import Objects
from edgeagents.adapters.web_pages import shows
from edgeagents.errors import UnavailableError
from edgeagents.inference.admission import MOST_OF_CLIENT, MOST_WAITING
from edgeagents.inference.engine import Engine
from edgeagents.settings import PREFIX
from services.inference.desk import Desk
from services.inference.error_pages import OpenAiErrors
from services.inference.routes import add_routes
from services.inference.shown import InferenceState, Ready
from services.inference.stored_prefixes import StoredPrefixes

ROOT: Final = Path(__file__).resolve().parents[2]
KEY: Final = "app-inference"
PORT: Final = 59743
METRICS: Final = (
    "InferenceRequests", "InferenceWaiting", "InferenceTokens", "InferencePromptTokens", "InferenceCachedTokens",
    "InferenceRefused", "InferenceCapped", "InferencePrefillMicros", "InferenceStepMicros",
)  # fmt: skip


class InferenceSettings(BaseSettings):
    """What the owner chooses about the language model."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}INFERENCE_", frozen=True, protected_namespaces=())

    model: Path = Field(ROOT / "models" / "smollm2-135m-instruct", description="folder of the model (make model)")
    model_digest: str = Field(
        "", pattern=r"^([0-9a-f]{64})?$", description="SHA-256 of its manifest.json that is wanted; empty: any"
    )
    rows: int = Field(4, ge=1, le=16, description="texts written at once")
    length: int = Field(2048, ge=64, le=1 << 20, description="tokens of a prompt and its answer together")
    threads: int = Field(0, ge=0, le=256, description="0: as many CPUs as the container may use")
    prefix_mb: int = Field(64, ge=0, le=1 << 16, description="memory for kept beginnings of prompts")
    prefix_store: bool = Field(True, description="those used again lie in the object store for the next start")
    most_waiting: int = Field(MOST_WAITING, ge=1, le=1024, description="requests that wait; more are refused")
    most_of_client: int = Field(MOST_OF_CLIENT, ge=1, le=1024, description="of them, those of one agent or address")
    longest_s: float = Field(60.0, gt=0, le=600, description="an HTTP answer that takes longer is cut off")

    def load(self, folder: Path) -> Engine:
        """Return an engine; takes seconds, raises what `Engine.load` raises."""
        return Engine.load(
            folder, time.monotonic, rows=self.rows, length=self.length, threads=self.threads,
            prefix_bytes=self.prefix_mb << 20, most_waiting=self.most_waiting, most_of_client=self.most_of_client,
            digest=self.model_digest,
        )  # fmt: skip


SPEC: Final = ServiceSpec(
    key=KEY,
    kind="app",
    port=PORT,
    config={
        "Writable": {
            "LogLevel": "INFO",
            "InsecureSecrets": {},
            "Telemetry": {"Metrics": dict.fromkeys(METRICS, False)},
        },
        "Service": {
            "Host": "localhost",
            "Port": PORT,
            "StartupMsg": "edgeagents inference",
            "MaxRequestSize": 1024,
            "RequestTimeout": "660s",  # longer than any answer may take
        },
    },
    settings=(InferenceSettings,),
)


@asynccontextmanager
async def build(service: EdgexService) -> AsyncIterator[None]:
    """Wire a started EdgeX service: routes and desk at once, the model as soon as it is loaded."""
    settings = InferenceSettings()
    shelf = Shelf(settings.model, settings.load)
    desk = Desk(service.bus, shelf, service.tasks)
    stored = StoredPrefixes(Objects(service.bus, subjects.PREFIXES_BUCKET), shelf)
    service.app.add_middleware(OpenAiErrors)
    add_routes(service.app, shelf, settings.longest_s)
    add_state(service.app, shelf, desk, stored)
    _measure(service.metrics, shelf, desk)
    subject = subjects.inferences(service.settings.gateway)
    service.micro.endpoints.append(Endpoint("completions", subject, lambda: desk.requests))
    await desk.open()
    keeping = service.tasks.create_task(shelf.keep(), name="model")
    work = stored.keep() if settings.prefix_store else stored.forget()
    storing = service.tasks.create_task(work, name="kept prefixes")
    try:
        yield
    finally:
        storing.cancel()
        await asyncio.gather(storing, return_exceptions=True)  # before the engine and the bus go
        keeping.cancel()


def add_state(app: FastAPI, shelf: Shelf, desk: Desk, stored: StoredPrefixes) -> None:
    """Add the routes that tell whether the model is there, and what it does."""

    @app.get("/api/v3/ready", **shows(Ready, "It is there.", also={503: (Ready, "Not yet, and why.")}))
    async def ready() -> JSONResponse:
        """Say whether the model is there: 200, or 503 and why not."""
        why = shelf.why_not
        body = {"apiVersion": "v3", "statusCode": 503 if why else 200, "message": why or "ready"}
        return JSONResponse(body, 503 if why else 200)

    @app.get("/api/v3/inference", **shows(InferenceState, "What it does."))
    async def state() -> dict[str, Any]:
        """Tell what the model does, and how it went so far."""
        found: dict[str, Any] = {
            "apiVersion": "v3", "statusCode": 200, "model": shelf.name, "ready": not shelf.why_not,
            "why": shelf.why_not, "asked": desk.requests, "refusedByStatus": dict(desk.refused),
        }  # fmt: skip
        try:
            shown = described(shelf.engine())
            shown["prefixes"] |= {"stored": stored.stored, "restored": stored.restored}
            return found | shown
        except UnavailableError:
            return found


def described(engine: Engine) -> dict[str, Any]:
    """Return what is worth showing of an engine."""
    counts, speed, prefixes = engine.counts, engine.speed, engine.prefixes
    return {
        "digest": engine.digest, "waiting": engine.admission.waiting, "refused": dict(engine.admission.refused),
        "counts": {
            "requests": counts.requests, "promptTokens": counts.prompt_tokens, "cachedTokens": counts.cached_tokens,
            "tokens": counts.tokens, "capped": counts.capped, "endings": dict(counts.endings),
        },
        "speed": {
            "prefillTokensPerSecond": round(1 / max(speed.prefill_s, 1e-9), 1),
            "stepsPerSecond": round(1 / max(speed.step_s, 1e-9), 1),
        },
        "prefixes": {
            "bytes": prefixes.size_bytes, "hits": prefixes.hits, "misses": prefixes.misses, "evicted": prefixes.evicted,
        },
        "grammars": {"hits": engine.grammars.hits, "misses": engine.grammars.misses},
    }  # fmt: skip


def _measure(metrics: Metrics, shelf: Shelf, desk: Desk) -> None:
    """Tell of the model's figures (`METRICS`), all off until the owner switches them on."""

    def read(of: Any) -> Any:
        def value() -> int:
            return 0 if shelf.why_not else int(of(shelf.engine()))

        return value

    metrics.counter("InferenceRequests", read=read(lambda engine: engine.counts.requests))
    metrics.gauge("InferenceWaiting", read=read(lambda engine: engine.admission.waiting))
    metrics.counter("InferenceTokens", read=read(lambda engine: engine.counts.tokens))
    metrics.counter("InferencePromptTokens", read=read(lambda engine: engine.counts.prompt_tokens))
    metrics.counter("InferenceCachedTokens", read=read(lambda engine: engine.counts.cached_tokens))
    metrics.counter("InferenceCapped", read=read(lambda engine: engine.counts.capped))
    metrics.gauge("InferencePrefillMicros", read=read(lambda engine: 1e6 * engine.speed.prefill_s))
    metrics.gauge("InferenceStepMicros", read=read(lambda engine: 1e6 * engine.speed.step_s))
    for cause in ("full", "client-full", "too-late"):
        metrics.counter(
            "InferenceRefused", {"cause": cause}, read(lambda engine, cause=cause: engine.admission.refused[cause])
        )
