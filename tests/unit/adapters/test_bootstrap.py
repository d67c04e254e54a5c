"""What is refused before a service starts: each with its exit code and a message that says what to do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgeagents.adapters.bootstrap import EdgexService, ServiceSpec, _write_place, run_service


class OwnSettings(BaseSettings):
    """Settings of a service of the tests."""

    model_config = SettingsConfigDict(env_prefix="EDGEAGENTS_TEST_", frozen=True)

    size: int = Field(1, ge=1)


SPEC = ServiceSpec("app-test", "app", 0, {}, settings=(OwnSettings,))


@asynccontextmanager
async def never_built(service: EdgexService) -> AsyncIterator[None]:
    pytest.fail("built although it could not start")
    yield


@pytest.fixture(autouse=True)
def insecure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEX_SECURITY_SECRET_STORE", "false")


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("EDGEX_DISABLE_JWT_VALIDATION", "perhaps", "EDGEX_DISABLE_JWT_VALIDATION"),
        ("EDGEAGENTS_JWT_LEEWAY_S", "61", "environment variable EDGEAGENTS_JWT_LEEWAY_S"),
        ("EDGEAGENTS_NATS_ULR", "nats://x", "did you mean EDGEAGENTS_NATS_URL?"),
        ("EDGEAGENTS_TEST_SIZE", "0", "environment variable EDGEAGENTS_TEST_SIZE"),
        ("EDGEAGENTS_CONNECT_TIMEOUT_S", "soon", "environment variable EDGEAGENTS_CONNECT_TIMEOUT_S"),
        ("EDGEAGENTS_SITE_TIME_FACTOR", "-1", "environment variable EDGEAGENTS_SITE_TIME_FACTOR"),
        ("EDGEX_USE_REGISTRY", "perhaps", "EDGEX_USE_REGISTRY"),
    ],
)
def test_a_wrong_environment_is_told_on_stderr_with_exit_code_1(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert run_service(SPEC, never_built, []) == 1
    assert told in capsys.readouterr().err


def test_an_unknown_flag_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_service(SPEC, never_built, ["--registy"]) == 1
    assert "--registy" in capsys.readouterr().err


def test_a_spec_is_a_value() -> None:
    fields: dict[str, Any] = {"key": "app-x", "kind": "app", "port": 1, "config": {}}
    assert ServiceSpec(**fields) == ServiceSpec(**fields)
    assert ServiceSpec(**fields).version == "4.0.0"


@pytest.mark.parametrize(("host", "place"), [("127.0.0.1", "127.0.0.1:59999\n"), ("::1", "[::1]:59999\n")])
def test_a_place_is_written_as_an_address_holds_it(tmp_path: Path, host: str, place: str) -> None:
    _write_place(tmp_path / "place", host, 59999)
    assert (tmp_path / "place").read_text() == place
