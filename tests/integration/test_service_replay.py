"""An agent and a world answer the requests that were recorded of an application and a device service of EdgeX 4.0.2.

What differs on purpose stands with its reason in `tests/recorded_answers.py`, and for the owner in
`docs/embedded-core.md`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.embedded_core import EmbeddedCore
from tests.nats import NatsServer
from tests.recorded_answers import DIFFERENCES, compared, renamed
from tests.recordings import ROOT, HttpLine, http_lines
from tests.services import ServiceProcess

pytestmark = [pytest.mark.recordings]

AGENT, WORLD = "app-agent-comfort", "device-world-home"
NAMES = {AGENT: "app-rules-engine", WORLD: "device-virtual"}


def service_lines() -> list[HttpLine]:
    """Return the recorded requests to the application and the device service, and to keeper about them, in order."""
    return [line for line in http_lines() if line.service in ("app", "device-virtual") or line.case == "app kv tree"]


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An agent and a world on an embedded core, and where they and keeper answer."""
    http_lines()  # skips here without recordings
    folder: Path = tmp_path_factory.mktemp("services")
    (folder / "nats").mkdir()
    server = NatsServer(folder / "nats")
    core = EmbeddedCore(folder / "core", server.url)
    processes: list[ServiceProcess] = []
    try:
        server.start()
        core.start()
        state = {"EDGEAGENTS_WORLD_STATE_DIR": str(folder / "world")}
        processes.append(ServiceProcess("services.world", WORLD, core, server.url, folder, environ=state))
        file = {"EDGEAGENTS_AGENT_FILE": str(ROOT / "edgex-profiles" / "home" / "agents" / "comfort.yaml")}
        processes.append(ServiceProcess("services.agent", AGENT, core, server.url, folder, environ=file))
        world, agent = (process.ready() for process in processes)
        yield {"device-virtual": world, "app": agent, "keeper": core.urls["keeper"]}
        assert [process.stop() for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
        core.kill()
        server.kill()


def test_answers_are_those_of_the_real_services(urls: dict[str, str]) -> None:
    wrong = []
    for line in service_lines():
        url = urls[line.service] + renamed(line.path, {theirs: ours for ours, theirs in NAMES.items()})
        body = line.request if isinstance(line.request, str) or line.request is None else json.dumps(line.request)
        answer = httpx.request(line.method, url, content=body, headers={"X-Correlation-ID": "c-1"}, trust_env=False)
        told = f"{line.case}: {line.method} {line.path}"
        differs = compared(line.case, renamed(answer.text, NAMES), line.answer)
        if answer.status_code != line.status:
            wrong.append(f"{told}: status {answer.status_code}, not {line.status}: {answer.text[:300]}")
        elif differs:
            wrong.append(f"{told}:\n{differs}")
        if answer.headers["content-type"] != line.content_type or answer.headers["x-correlation-id"] != "c-1":
            wrong.append(f"{told}: headers {dict(answer.headers)}")
    assert not wrong, "\n".join(wrong)


def test_every_difference_is_one_of_a_recorded_case() -> None:
    assert {line.case for line in http_lines()} >= DIFFERENCES.keys()


def test_documentation_shows_the_table_of_differences() -> None:
    text = (ROOT / "docs" / "embedded-core.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `([^`]+)` \| (.+) \|$", text, re.MULTILINE)
    assert shown == [(case, reason) for case, (_, reason) in DIFFERENCES.items()]
