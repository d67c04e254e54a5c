"""A person says something to a home: it happens and is proven, or is refused, or is asked back."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import BusMessage
from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.gateway import GATEWAY, Gateway, Plan
from edgeagents.model.completion import Completion
from tests.scenarios.conftest import ROOT, Deadline

# Resources: switch, brightness, blind and valve in each of four rooms, ventilation, heat pump.
COMMANDED = 18


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Return a home in which only the assistant runs: what it is told to do, nobody changes again."""
    played = frozenset(("air", "comfort", "energy"))
    gateway = Gateway(Plan(tmp_path, ROOT / "edgex-profiles" / "home", 60.0, WINTER_MORNING_S, played=played))
    gateway.start()
    try:
        await gateway.ready(100)
        # The guard tells what may be commanded as the devices come, one by one.
        deadline = Deadline(30)
        while (known := await may_command(gateway)) < COMMANDED:
            assert not deadline.is_over, f"the assistant may command {known} resources, not {COMMANDED}"
            await asyncio.sleep(0.1)
        while (await say(gateway, "turn on the light in the kitchen"))["kind"] != "done":
            assert not deadline.is_over, "the assistant never may switch a lamp"
            await asyncio.sleep(0.5)
        yield gateway
    finally:
        await gateway.stop()


async def may_command(gateway: Gateway) -> int:
    """Return how many resources the guard lets the assistant command."""
    url = (await gateway.agent_urls())["assistant"]
    async with httpx.AsyncClient(trust_env=False, timeout=40) as client:
        return int((await client.get(f"{url}/api/v3/agent")).json()["mayCommand"])


async def say(gateway: Gateway, text: str, **more: Any) -> dict[str, Any]:
    """Say something over HTTP."""
    url = (await gateway.agent_urls())["assistant"]
    async with httpx.AsyncClient(trust_env=False, timeout=40) as client:
        answer = await client.post(f"{url}/api/v3/ask", json={"text": text, "waitSeconds": 20, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_what_is_said_in_english_or_chinese_happens_and_is_proven(home: Gateway) -> None:
    english = await say(home, "Turn on the light in the bedroom, please.", requestId="lamp-1")
    assert english["kind"] == "done", english
    (command,) = english["commands"]
    assert (command["deviceName"], command["status"], command["readBack"]) == ("light-bedroom", "proven", "true")
    assert english["answer"] == "Done and proven: bedroom light: on."
    again = await say(home, "Turn on the light in the bedroom, please.", requestId="lamp-1")
    assert again["commands"] == english["commands"]

    chinese = await say(home, "卧室太闷了")
    assert (chinese["kind"], chinese["language"]) == ("done", "zh"), chinese
    assert [(item["deviceName"], item["status"]) for item in chinese["commands"]] == [("ventilation", "proven")]

    warm = await say(home, "卧室现在多少度？")
    assert warm["kind"] == "told"
    assert warm["readings"][0]["deviceName"] == "sensor-bedroom"

    guard = await home.state("guard", "/api/v3/guard")
    assert guard["outcomes"]["proven"] == 3  # the kitchen's lamp was the first


async def test_class_c_waits_for_the_approver_and_the_command_line_says_so(home: Gateway) -> None:
    folder = str(home.plan.folder)
    words = ("ask", "turn", "off", "the", "heat", "pump", "--folder", folder, "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgeagents.cli", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    answer = json.loads(out)
    assert answer["kind"] == "waits-for-approval", answer
    assert answer["answer"].startswith("Waits for somebody to approve it: heat pump: off")
    headers = {"Authorization": f"Bearer {home.token('approver')}"}
    async with httpx.AsyncClient(trust_env=False) as client:
        waiting = (await client.get(f"{home.url('guard')}/api/v3/approval", headers=headers)).json()
    assert answer["commands"][0]["commandId"] in json.dumps(waiting)

    nowhere = await say(home, "turn on the light")
    assert (nowhere["kind"], nowhere["options"]) == ("asked-back", ["bedroom", "kitchen", "living room", "office"])
    refused = await say(home, "set the bedroom to 27 degrees")
    assert refused["kind"] == "refused", refused
    assert "24" in refused["answer"]
    strange = await say(home, "open the garage door")
    assert (strange["kind"], strange["commands"]) == ("not-understood", [])


async def test_a_model_is_asked_for_the_rest_its_sure_answer_is_proven_and_its_death_is_told(home: Gateway) -> None:
    answers = ["sure", "unsure", "dies"]
    asked: list[dict[str, Any]] = []
    bus = await home.connect()

    async def model(message: BusMessage) -> None:
        asked.append(json.loads(message.data))
        word = answers.pop(0)
        if word == "dies":
            return  # in the middle of its answer
        text = '{"device":"light-office","resource":"Switch","value":true}'
        probability = -0.01 if word == "sure" else -3.0
        done = Completion(text=text, log_probability=probability, free_tokens=1, model="stand-in")
        await bus.respond(message, done.model_dump_json().encode())

    try:
        await bus.subscribe(subjects.inference(GATEWAY, "assistant"), model)
        await bus.flush()
        sure = await say(home, "my desk lies in darkness over in the study, alas")
        unsure = await say(home, "my desk lies in darkness over in the study, alas", requestId="again")
        dead = await say(home, "我的书桌那边黑漆漆的")
    finally:
        await bus.close()
    assert (sure["kind"], sure["by"]) == ("done", "language-model"), sure
    assert [(item["deviceName"], item["status"]) for item in sure["commands"]] == [("light-office", "proven")]
    assert (unsure["kind"], unsure["commands"]) == ("not-understood", []), unsure
    assert "5%: light-office/Switch = True?" in unsure["answer"]
    assert (dead["kind"], dead["commands"]) == ("not-understood", []), dead
    assert "语言模型没有及时回答" in dead["answer"]
    assert len(asked) == 3
    assert 'said: "my desk lies' in asked[0]["messages"][1]["content"]

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.agent", "--replay", "all", "--json",
        stdout=asyncio.subprocess.PIPE, env={**os.environ, **home._environment("owner")},
    )  # fmt: skip
    out, _ = await process.communicate()
    replayed = json.loads(out.splitlines()[-1])
    assert replayed["decisions"] == replayed["equal"] >= 1, replayed
