"""An agent in TypeScript takes part in auctions of a whole gateway, by JSON alone; the guard proves what it does."""

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus
from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.gateway import GATEWAY, Gateway, Plan
from edgeagents.embedded.supervisor import Child
from edgeagents.model.message import Outcome
from edgeagents.permissions import agent_user
from tests.contract.waiting import until
from tests.homes import LAMPS, edit, home_with_lamps
from tests.scenarios.conftest import ROOT, patient

EXAMPLE = ROOT / "examples" / "typescript"
FILE: dict[str, Any] = yaml.safe_load((EXAMPLE / "agent.yaml").read_text())
NAME = FILE["name"]
SLOW = {**FILE, "name": "lamps-slow", "may": [LAMPS], "skills": [{"name": "set", "cost_s": 5.0}]}


def has_node() -> bool:
    """Say whether the program can be built and run here."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        return False
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    return said.startswith("v") and int(said[1:].partition(".")[0]) >= 20


pytestmark = [
    pytest.mark.skipif(not has_node(), reason="no npm, or no node 20 or newer here: apt-get install nodejs npm"),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def program() -> Path:
    """Return the compiled program: exactly what its lock file names, type-checked."""
    lock, installed = EXAMPLE / "package-lock.json", EXAMPLE / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        npm("ci")
    npm("run", "build")
    return EXAMPLE / "dist" / "main.js"


def npm(*words: str) -> None:
    done = subprocess.run(["npm", *words], cwd=EXAMPLE, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def specification(program: Path) -> dict[str, Any]:
    """Return AsyncAPI's own schema of its documents."""
    found: dict[str, Any] = json.loads((EXAMPLE / "node_modules/@asyncapi/specs/schemas/3.0.0.json").read_text())
    return found


def test_the_asyncapi_page_is_valid_by_the_specifications_own_schema(specification: dict[str, Any]) -> None:
    page = json.loads((ROOT / "docs/api/messages.asyncapi.json").read_text())
    validator = jsonschema_rs.Draft7Validator(specification)
    assert [
        f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in validator.iter_errors(page)
    ] == []
    broken = page | {"channels": {"sessions": {"addres": "x"}}}
    assert not validator.is_valid(broken)


def test_what_a_participant_may_never_do_it_does_not_whatever_its_gateway_does(program: Path) -> None:
    """Its own tests: deadlines, cancels, late guards, missing streams, against a gateway that is played."""
    npm("test")


class Program:
    """The program as a process, with the password of its own NATS user."""

    def __init__(self, gateway: Gateway, program: Path, log: Path) -> None:
        self.log = log
        environment = {
            "PATH": os.environ["PATH"], "EDGEAGENTS_NATS_URL": f"nats://127.0.0.1:{gateway.ports['nats']}",
            "EDGEAGENTS_GATEWAY": GATEWAY, "EDGEAGENTS_AGENT_NAME": NAME,
            "EDGEAGENTS_NATS_PASSWORD_FILE": str(gateway.passwords[agent_user(NAME)]),
        }  # fmt: skip
        with log.open("wb") as out:
            self.process = subprocess.Popen(["node", str(program)], env=environment, stdout=out, stderr=out)

    def stop(self) -> int:
        """End it as an owner would, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Return a home with a coordinator, a slow agent in Python, and the file and user of one in TypeScript."""
    files = home_with_lamps(tmp_path / "files", [FILE, SLOW])
    edit(files / "site.yaml", least_brightness)
    played = frozenset(("air", "comfort", "energy", "assistant", NAME))
    found = patient(Gateway(Plan(
        tmp_path, files, 60.0, WINTER_MORNING_S, played=played, coordinator=True, adapt=waiting_for_bids
    )))  # fmt: skip
    found.start()
    try:
        await found.ready(120)
        yield found
    finally:
        await found.stop()


def waiting_for_bids(child: Child) -> Child:
    """Have the coordinator wait for a slow machine: bidding is over once all have answered, and who is late loses."""
    if child.name != "coordinator":
        return child
    times = {"EDGEAGENTS_COORDINATOR_BID_S": "20", "EDGEAGENTS_COORDINATOR_TAKE_S": "20"}
    return replace(child, env={**child.env, **times})


def least_brightness(site: Any) -> None:
    """Have lamps never be darker than 5 %."""
    for rule in site["resources"]:
        if rule["resource"] == LAMPS["resource"]:
            rule["minimum"] = 5


@pytest.fixture
def running(gateway: Gateway, program: Path, tmp_path: Path) -> Iterator[Program]:
    """Return the program beside it."""
    found = Program(gateway, program, tmp_path / "typescript.log")
    yield found
    if found.process.poll() is None:
        found.process.kill()
        found.process.wait()


async def there(gateway: Gateway) -> set[str]:
    """Return the agents that the coordinator hears."""
    return {item["agent"] for item in (await gateway.state("coordinator", "/api/v3/roster")).get("agents", [])}


async def given(gateway: Gateway, name: str, **task: Any) -> dict[str, Any]:
    """Give a task and return it once it has ended."""
    url = gateway.url("coordinator")
    body = {"id": name, "skill": "set", "resourceName": "Brightness", "deadlineS": 40, **task}
    answer = await gateway.http.post(f"{url}/api/v3/task", json=body)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = {}

    async def has_ended() -> bool:
        nonlocal found
        with contextlib.suppress(KeyError):
            found = (await gateway.state("coordinator", f"/api/v3/task/id/{name}"))["task"]
        return found.get("state") in ("done", "failed", "cancelled")

    await until(has_ended, f"task {name} ends", timeout_s=60)
    return found


async def outcomes(bus: Bus, agent: str) -> list[tuple[str, Outcome]]:
    """Return how an agent's commands ended, each with the encoding it was told in."""
    found = []
    async for stored in bus.read(subjects.COMMANDS_STREAM, [subjects.outcomes(GATEWAY, agent)], name=f"look-{agent}"):
        content_type = stored.headers.get(CONTENT_TYPE, wire.PROTOBUF)
        found.append((content_type, wire.decode(Outcome, stored.data, content_type)))
    return found


async def check_task_answers(bus: Bus) -> None:
    """Fail when what is answered to requests about tasks over NATS is not what its page says."""
    page = json.loads((ROOT / "docs" / "api" / "messages.asyncapi.json").read_text())
    task = {"id": "asked", "skill": "set", "deviceName": "light-bedroom", "resourceName": "Brightness", "value": "60"}
    bodies: dict[str, dict[str, Any]] = {"submit": task, "get": {"id": "asked"}, "list": {}, "cancel": {"id": "asked"}}
    for verb, body in [*bodies.items(), ("get", {"id": "nobody's"})]:
        subject = subjects.task_request(GATEWAY, verb, "owner")
        answer = json.loads((await bus.request(subject, json.dumps(body).encode(), timeout_s=20)).data)
        told = list(page["channels"][f"task{verb.capitalize()}Answer"]["messages"])
        name = told[0] if answer["statusCode"] < 400 else "ErrorBody"
        assert name in told
        schema = {"$ref": f"#/components/schemas/{name}", "components": page["components"]}
        jsonschema_rs.Draft202012Validator(schema).validate(answer)


def routes(page: dict[str, Any]) -> set[tuple[str, str]]:
    """Return the routes of an OpenAPI page, as (path, method)."""
    return {(path, method) for path, item in page["paths"].items() for method in item}


def answers_to(service: str, path: str) -> jsonschema_rs.Draft202012Validator:
    """Return what holds an answer against the page of a service."""
    page = json.loads((ROOT / "docs" / "api" / f"{service}.openapi.json").read_text())
    schema = page["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    return jsonschema_rs.Draft202012Validator({**schema, "components": page["components"]})


async def test_it_wins_does_proves_and_reports_and_what_it_may_not_do_goes_to_another(
    gateway: Gateway, running: Program
) -> None:
    async def both() -> bool:
        assert running.process.poll() is None, running.log.read_text()
        return await there(gateway) >= {NAME, "lamps-slow"}

    await until(both, "both agents are there", timeout_s=60)
    won = await given(gateway, "desk", deviceName="light-office", value=40)
    assert (won["state"], won["winner"]) == ("done", NAME), (won, running.log.read_text())
    assert won["reason"].startswith("proven")
    (award,) = won["awards"]
    assert award["bids"][NAME] == 0.1
    assert all(cost >= 5.0 for name, cost in award["bids"].items() if name != NAME)  # if it bid in time
    # The owner's site.yaml begins at 5, which agents are not told: the guard's word counts, and is the task's reason.
    below = await given(gateway, "below", deviceName="light-kitchen", value=3)
    assert (below["state"], below["winner"]) == ("failed", NAME), below
    assert below["reason"].startswith("refused"), below
    # Its own file ends at 80: the other one does that.
    beyond = await given(gateway, "beyond", deviceName="light-kitchen", value=95)
    assert (beyond["state"], beyond["winner"]) == ("done", "lamps-slow"), beyond

    bus = await gateway.connect()
    try:
        told = await outcomes(bus, NAME)
        await check_task_answers(bus)
    finally:
        await bus.close()
    assert [(kind, item.status) for kind, item in told] == [(wire.JSON, "proven"), (wire.JSON, "refused")]

    async def counted() -> Any:
        return (await gateway.state("coordinator", "/api/v3/coordinator")).get("counts")

    counts = await until(counted, "the coordinator shows what it counts")
    assert not [word for word in counts if word.startswith("refused_not-")], counts

    # What services show of all this is what their pages say.
    for service, path in (
        ("coordinator", "/api/v3/task/all"), ("coordinator", "/api/v3/roster"), ("coordinator", "/api/v3/coordinator"),
        ("guard", "/api/v3/guard"), ("guard", "/api/v3/version"), ("coordinator", "/api/v3/config"),
    ):  # fmt: skip
        shown = await until(functools.partial(gateway.state, service, path), f"{service} answers")
        answers_to(service, path).validate(shown)
    agent = await gateway.http.get(f"{(await gateway.agent_urls())['lamps-slow']}/api/v3/agent")
    answers_to("agent", "/api/v3/agent").validate(agent.json())

    for service, url in (("coordinator", gateway.url("coordinator")), ("guard", gateway.url("guard")),
                         ("agent", (await gateway.agent_urls())["lamps-slow"])):  # fmt: skip
        live = (await gateway.http.get(f"{url}/openapi.json")).json()
        page = json.loads((ROOT / "docs" / "api" / f"{service}.openapi.json").read_text())
        assert routes(live) <= routes(page), service
        # As an agent's file (`assistant`, `leads`) and its Trigger.Type say.
        only_some = {
            ("/api/v3/ask", "post"), ("/api/v3/trigger", "post"), ("/api/v3/leading", "get"), ("/api/v3/task", "post"),
            ("/api/v3/task/all", "get"), ("/api/v3/task/id/{task}", "get"), ("/api/v3/task/id/{task}", "delete"),
        }  # fmt: skip
        assert routes(page) - routes(live) <= (only_some if service == "agent" else set()), service
        assert {path: live["paths"][path] for path in live["paths"]} == {
            path: page["paths"][path] for path in live["paths"]
        }

    assert running.stop() == 0, running.log.read_text()

    async def alone() -> bool:
        heard = await there(gateway)  # nobody, where the coordinator does not answer
        return bool(heard) and NAME not in heard

    await until(alone, "it is heard no more", timeout_s=20)
    other = await given(gateway, "later", deviceName="light-office", value=55)
    assert (other["state"], other["winner"]) == ("done", "lamps-slow")


async def test_without_a_password_it_says_so_and_ends(program: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        "node", str(program), env={"PATH": os.environ["PATH"], "EDGEAGENTS_NATS_URL": "nats://127.0.0.1:1"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert "EDGEAGENTS_GATEWAY is not set" in err.decode()
