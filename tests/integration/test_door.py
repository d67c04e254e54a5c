"""The guard's door with a real guard and a real agent behind it, over an embedded core."""

import asyncio
import contextlib
import json
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from edgeagents.adapters.turnstile import Limits
from tests.contract.waiting import until
from tests.guarded import AGENTS, Client, Gateway, agent_file, client_of
from tests.nats import free_port
from tests.services import START_S, ServiceProcess

# By so much a flood may slow others, beside what the machine does: a new attempt of TCP takes 1 s, then 2 s.
SLOWER_S = 3.0
TOKENS = {"air": "token-of-agent-air-01", "heat": "token-of-agent-heat-1", "coordinator": "token-of-coordinator1"}


class Doors(Gateway):
    """A gateway whose guard has a door."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Of its own: coordinator and language model have fixed ports there, whoever else runs on this machine.
        self.host = "127." + ".".join(str(random.randint(1, 254)) for _ in range(3))
        self.url = f"http://{self.host}:{self.port}"
        self.door_port = free_port()
        self.door = f"http://127.0.0.1:{self.door_port}"
        self.write_tokens(TOKENS)
        skilled = agent_file("fitter", skills=[{"name": "set"}])  # nobody plays it: what is given to it waits
        (folder / "agents" / "fitter.yaml").write_text(yaml.safe_dump(skilled))
        self.agent: ServiceProcess | None = None
        self.coordinator: ServiceProcess | None = None

    def write_tokens(self, tokens: dict[str, str]) -> None:
        """Write the door's tokens, and agent air's own."""
        (self.folder / "door.tokens").write_text("".join(f"{name}: {token}\n" for name, token in tokens.items()))
        (self.folder / "door.token").write_text(tokens["air"])

    def spawn_guard(self, **environ: str) -> ServiceProcess:
        """Start a guard with a door."""
        own = {
            "EDGEAGENTS_DOOR_HOST": "127.0.0.1", "EDGEAGENTS_DOOR_PORT": str(self.door_port),
            "EDGEAGENTS_DOOR_TOKENS_FILE": str(self.folder / "door.tokens"), "SERVICE_HOST": self.host,
        }  # fmt: skip
        return super().spawn_guard(**own, **environ)

    def spawn_agent(self) -> ServiceProcess:
        """Start agent air behind the door."""
        file = self.folder / "agents" / "air.yaml"
        file.write_text(yaml.safe_dump(next(agent for agent in AGENTS if agent["name"] == "air")))
        own = {
            "EDGEAGENTS_GATEWAY": "gw", "EDGEAGENTS_AGENT_FILE": str(file),
            "EDGEX_CONFIG_PROVIDER": f"keeper.{self.door}",
            "EDGEAGENTS_EDGEX_TOKEN_FILE": str(self.folder / "door.token"),
        }  # fmt: skip
        self.agent = ServiceProcess(
            "services.agent", "app-agent-air", self.core, self.nats.url, self.folder, environ=own
        )
        return self.agent

    def spawn_coordinator(self) -> ServiceProcess:
        """Start a coordinator behind the door."""
        (self.folder / "coordinator.token").write_text(TOKENS["coordinator"])
        own = {
            "EDGEAGENTS_GATEWAY": "gw", "EDGEX_CONFIG_PROVIDER": f"keeper.{self.door}",
            "EDGEAGENTS_EDGEX_TOKEN_FILE": str(self.folder / "coordinator.token"),
            "EDGEAGENTS_COORDINATOR_AGENTS_DIR": str(self.folder / "agents"),
        }  # fmt: skip
        self.coordinator = ServiceProcess(
            "services.coordinator", "app-coordinator", self.core, self.nats.url, self.folder, environ=own
        )
        return self.coordinator

    def stop(self) -> None:
        """End everything."""
        for service in (self.agent, self.coordinator):
            if service is not None:
                service.kill()
        super().stop()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """One gateway for all tests here."""
    found = Doors(tmp_path_factory.mktemp("door"))
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
async def client(gateway: Doors) -> AsyncIterator[Client]:
    async with client_of(gateway) as found:
        await found.start_guard()
        yield found


@pytest.fixture
async def agent(gateway: Doors, client: Client) -> str:
    """Where EdgeX finds agent air, which runs behind the door."""
    started = gateway.agent or gateway.spawn_agent()

    async def where() -> str:
        assert started.process.poll() is None, started.log_path.read_text()[-2000:]
        found = await client.http.get(f"{gateway.core.urls['keeper']}/api/v3/registry/serviceId/app-agent-air")
        item = found.json().get("registration", {})
        return f"http://{item['host']}:{item['port']}" if item else ""

    url: str = await until(where, "the agent is registered", timeout_s=START_S)
    return url


async def ask(gateway: Doors, method: str, path: str, body: Any = None, token: str = TOKENS["air"]) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        headers = {"Authorization": f"Bearer {token}"}
        return await http.request(method, gateway.door + path, json=body, headers=headers)


async def test_edgex_reaches_an_agent_at_the_guard(gateway: Doors, client: Client, agent: str) -> None:
    found = (await ask(gateway, "GET", "/api/v3/registry/serviceId/app-agent-air")).json()["registration"]
    own = f"http://{found['host']}:{found['port']}"
    assert agent != own, "registered is a port of the guard"
    assert (await client.http.get(f"{agent}/api/v3/ping")).json()["serviceName"] == "app-agent-air"
    assert (await client.http.get(f"{agent}/api/v3/config")).json()["serviceName"] == "app-agent-air"
    assert (await client.http.get(f"{agent}/api/v3/version")).status_code == 200
    posted = await client.http.post(f"{agent}/api/v3/rule", json={"co2": 900})
    assert posted.status_code == 202
    for method, path in (("POST", "/api/v3/deciding/off"), ("GET", "/metrics"), ("DELETE", "/api/v3/config")):
        assert (await client.http.request(method, agent + path)).status_code == 404


async def test_an_agent_and_a_coordinator_answer_nobody_but_the_guard(
    gateway: Doors, client: Client, agent: str
) -> None:
    found = (await ask(gateway, "GET", "/api/v3/registry/serviceId/app-agent-air")).json()["registration"]
    own = f"http://{found['host']}:{found['port']}"
    assert (await client.http.get(f"{own}/api/v3/ping")).status_code == 200, "keeper and health checks have no token"
    for method, path in (("GET", "/api/v3/config"), ("POST", "/api/v3/rule"), ("POST", "/api/v3/deciding/off")):
        others = {"Authorization": f"Bearer {TOKENS['heat']}"}
        assert (await client.http.request(method, own + path, json={})).status_code == 401, path
        assert (await client.http.request(method, own + path, json={}, headers=others)).status_code == 401, path
    assert (await client.http.get(f"{agent}/api/v3/config")).status_code == 200, "the guard's port works"


async def test_keeper_finds_the_agent_up(gateway: Doors, client: Client, agent: str) -> None:
    async def is_up() -> bool:
        found = await client.http.get(f"{gateway.core.urls['keeper']}/api/v3/registry/serviceId/app-agent-air")
        return bool(found.json()["registration"]["status"] == "UP")

    await until(is_up, "its health check is relayed", timeout_s=60)


async def test_the_owner_reaches_a_coordinator_at_a_fixed_port_of_the_guard(gateway: Doors, client: Client) -> None:
    started = gateway.coordinator or gateway.spawn_coordinator()
    at = f"http://{gateway.host}:59741/api/v3"

    async def serves() -> bool:
        assert started.process.poll() is None, started.log_path.read_text()[-2000:]
        with contextlib.suppress(httpx.HTTPError):
            answer = await client.http.get(f"{at}/coordinator")
            return answer.status_code == 200 and answer.json()["isServing"]
        return False

    await until(serves, "the coordinator takes tasks", timeout_s=START_S)
    keeper = f"{gateway.core.urls['keeper']}/api/v3/registry/serviceId/app-coordinator"
    known = (await client.http.get(keeper)).json()["registration"]
    assert (known["host"], known["port"]) == (gateway.host, 59741), "EdgeX finds it there, too"

    wanted = {"skill": "set", "deviceName": "valve-1", "resourceName": "Setpoint", "value": 21, "deadlineS": 5}
    given = await client.http.post(f"{at}/task", json={"task": {**wanted, "deviceName": "nowhere"}})
    assert (given.status_code, "nowhere" in given.json()["message"]) == (400, True)
    task = (await client.http.post(f"{at}/task", json={"task": wanted})).json()["id"]
    states = []
    async with client.http.stream("GET", f"{at}/task/id/{task}/watch", timeout=60) as changes:
        states = [json.loads(line[6:])["state"] async for line in changes.aiter_lines() if line.startswith("data: ")]
    assert (states[0], states[-1]) == ("open", "failed"), "nobody bids for it here: it ends by its deadline"
    listed = (await client.http.get(f"{at}/task/all?state=failed&limit=1")).json()["tasks"]
    assert [item["id"] for item in listed] == [task]
    for method, path in (("GET", "/api/v3/task/id/.."), ("GET", "/openapi.json"), ("PUT", "/api/v3/config")):
        url = f"http://{gateway.host}:59741{path}"
        assert (await client.http.request(method, url)).status_code == 404, path


async def test_an_edit_of_its_configuration_reaches_the_agent(gateway: Doors, client: Client, agent: str) -> None:
    key = f"{gateway.core.urls['keeper']}/api/v3/kvs/key/edgex/v4/app-agent-air/Writable/LogLevel"
    await client.http.put(key, json={"value": "DEBUG"})

    async def is_taken_over() -> bool:
        page = (await client.http.get(f"{agent}/api/v3/config")).json()
        return bool(page["config"]["Writable"]["LogLevel"] == "DEBUG")

    await until(is_taken_over, "the agent has read it", timeout_s=30)
    await client.http.put(key, json={"value": "INFO"})


async def test_an_agent_finds_core_metadata_at_the_door(gateway: Doors, client: Client, agent: str) -> None:
    found = (await ask(gateway, "GET", "/api/v3/registry/serviceId/core-metadata")).json()["registration"]
    assert (found["host"], found["port"]) == ("127.0.0.1", gateway.door_port)
    devices = (await ask(gateway, "GET", "/api/v3/device/all?limit=100")).json()["devices"]
    assert "valve-1" in [device["name"] for device in devices]


async def test_a_second_agent_of_one_name_finds_the_first(gateway: Doors, client: Client, agent: str) -> None:
    found = (await ask(gateway, "GET", "/api/v3/registry/serviceId/app-agent-air")).json()["registration"]
    url = f"http://{found['host']}:{found['port']}"
    assert url != agent, "an agent is told where the other one itself answers"
    assert (await client.http.get(f"{url}/api/v3/ping")).json()["serviceName"] == "app-agent-air"


async def test_refusals_are_403_counted_and_audited_once_for_each_cause(
    gateway: Doors, client: Client, agent: str
) -> None:
    before = (await client.state())["door"]["refused"]
    for _ in range(3):
        assert (await ask(gateway, "PATCH", "/api/v3/device", [])).status_code == 403
        assert (await ask(gateway, "GET", "/api/v3/kvs/key/edgex/v4/app-agent-heat")).status_code == 403
    assert (await client.state())["door"]["refused"] == before + 6

    async def refusals() -> bool:
        found = [record for record in await client.audit() if record.kind == "door-refused"]
        causes = [yaml.safe_load(record.body)["cause"] for record in found]
        return sorted(causes) == ["another's key", "changing core-metadata"]

    await until(refusals, "each cause is audited once", timeout_s=30)


async def test_nobody_gets_in_without_a_token_or_with_bytes_that_are_none(gateway: Doors, client: Client) -> None:
    for token in ("x", "token-of-nobody-at-all", TOKENS["air"][:-1]):
        assert (await ask(gateway, "GET", "/api/v3/ping", token=token)).status_code == 401
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        headers = {"Authorization": f"Bearer {TOKENS['air']}"}
        put = f"{gateway.door}/api/v3/kvs/key/edgex/v4/app-agent-air/X"
        assert (await http.put(put, content=b"{no json", headers=headers)).status_code == 400
        assert (await http.put(put, content=b"x" * (2 << 20), headers=headers)).status_code == 413


async def test_one_agent_cannot_keep_the_guard_busy(gateway: Doors, client: Client) -> None:
    asked = (ask(gateway, "GET", "/api/v3/device/all?limit=100") for _ in range(60))
    found = await asyncio.gather(*asked, return_exceptions=True)
    answered = [answer.status_code for answer in found if isinstance(answer, httpx.Response)]
    assert set(answered) == {200, 429}
    assert len(answered) <= 2 * Limits().of_peer, "further connections are hung up on"
    assert all(isinstance(answer, (httpx.Response, httpx.TransportError)) for answer in found)
    assert (await ask(gateway, "GET", "/api/v3/ping")).status_code == 200


@pytest.mark.parametrize("how", ["silent", "dribbling"])
async def test_two_thousand_connections_of_one_agent_stop_neither_commands_nor_other_agents(
    gateway: Doors, client: Client, how: str
) -> None:
    before = (await client.state())["door"]

    async def work(times: int) -> tuple[list[float], list[float]]:
        """Have another agent ask at the door and one command a valve; return how long each took."""
        access_s, commanding_s = [], []
        async with client.agent("air") as air:
            for number in range(times):
                began_s = time.monotonic()
                assert (await ask(gateway, "GET", "/api/v3/ping", token=TOKENS["heat"])).status_code == 200
                access_s.append(time.monotonic() - began_s)
                began_s = time.monotonic()
                done = await air.do("valve-3", f"{20 + number % 3}")
                assert done.status == "proven", done.reason
                commanding_s.append(time.monotonic() - began_s)
        return access_s, commanding_s

    calm_s = [statistics.median(took_s) for took_s in await work(3)]

    async def turned_away() -> int:
        return int((await client.state())["door"]["turned-away"] - before["turned-away"])

    flood = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.flood", str(gateway.door_port), "2000", how
    )
    try:
        await until(lambda: _is_more(turned_away, 2000), "it has begun", timeout_s=60)
        under_flood_s = await work(12)
        assert flood.returncode is None
    finally:
        flood.kill()
        await flood.wait()
    print(f"\n{await turned_away()} turned away: access and commands took at most {[*map(max, under_flood_s)]} s")
    for took_s, without_s in zip(under_flood_s, calm_s, strict=True):
        # Nine of twelve: a machine that stands still for seconds slows some of them, whoever floods.
        assert sorted(took_s)[8] < without_s + SLOWER_S, (took_s, without_s)
    assert gateway.guard is not None
    assert open_files(gateway.guard) < Limits().of_peer + 100


async def _is_more(count: Callable[[], Awaitable[int]], than: int) -> bool:
    return await count() > than


def open_files(process: ServiceProcess) -> int:
    """Return how many descriptors a process has open."""
    return len(list(Path(f"/proc/{process.process.pid}/fd").iterdir()))


async def test_a_rotated_token_counts_at_once_and_the_old_one_no_more(gateway: Doors, client: Client) -> None:
    new = {**TOKENS, "heat": "another-token-of-heat-2"}
    gateway.write_tokens(new)
    assert (await ask(gateway, "GET", "/api/v3/ping", token=new["heat"])).status_code == 200
    assert (await ask(gateway, "GET", "/api/v3/ping", token=TOKENS["heat"])).status_code == 401
    gateway.write_tokens(TOKENS)


async def test_after_a_restart_of_the_guard_edgex_finds_agents_where_they_were(
    gateway: Doors, client: Client, agent: str
) -> None:
    await client.restart_guard()

    async def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (await client.http.get(f"{agent}/api/v3/ping")).status_code == 200
        return False

    await until(answers, "the relay is there again", timeout_s=30)
