"""The language model's desk behind a broker with users: who asks is certain, and nobody hears another's answer."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.inference_client import NatsInference
from edgeagents.embedded.nats import find_nats_server, write_config
from edgeagents.errors import TooManyAttemptsError, UnavailableError
from edgeagents.inference.engine import Engine
from edgeagents.model.answer import parse_answer
from edgeagents.model.completion import ChatMessage, CompletionRequest
from edgeagents.model.options import Options, Slot
from edgeagents.permissions import INFERENCE_USER, agent_user, for_agent, for_everything, for_inference, inbox
from edgeagents.settings import BusSettings
from services.inference import desk as desk_module
from services.inference.desk import Desk
from services.inference.shelf import Shelf
from tests.nats import free_port, until
from tests.tiny_model import tiny_model

OPTIONS = Options(slots=(Slot(device="lamp", resource="On", kind="Bool"),), most_text=12)


def asked(text: str = "it is dark") -> CompletionRequest:
    message = ChatMessage(role="user", content=text)
    return CompletionRequest(messages=(message,), options=OPTIONS, budget_s=60, most_tokens=150)


class Rig:
    """A broker with users, and a desk whose model may be away."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.buses = folder, free_port(), list[Bus]()
        users = {
            "owner": for_everything(), INFERENCE_USER: for_inference("gw"),
            **{agent_user(name): for_agent("gw", name) for name in ("air", "heat")},
        }  # fmt: skip
        config, self.passwords = write_config(folder, self.port, users, sync_always=False)
        with (folder / "nats.log").open("ab") as log:
            self.process = subprocess.Popen([find_nats_server(), "-c", str(config)], stdout=log, stderr=log)

    async def connect(self, user: str) -> Bus:
        settings = BusSettings(
            gateway="gw", nats_url=f"nats://127.0.0.1:{self.port}", nats_user=user,
            nats_password_file=self.passwords[user],
        )  # fmt: skip
        give_up_s = time.monotonic() + 30
        while True:
            try:
                self.buses.append(await Bus.connect(settings, user, inbox=inbox(user)))
                return self.buses[-1]
            except UnavailableError:
                if time.monotonic() > give_up_s:
                    raise
                await asyncio.sleep(0.1)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    found = Rig(tmp_path)
    yield found
    for bus in found.buses:
        await bus.close()
    found.process.kill()
    found.process.wait()


async def test_agents_ask_in_their_own_name_alone_and_nobody_hears_anothers_answer(rig: Rig) -> None:
    folder = tiny_model(rig.folder)

    def load(path: Path) -> Engine:
        return Engine.load(path, time.monotonic, rows=2, length=512, threads=1)

    shelf = Shelf(folder, load, look_again_s=60)
    async with asyncio.TaskGroup() as tasks:
        desk = Desk(await rig.connect(INFERENCE_USER), shelf, tasks)
        await desk.open()
        air, heat = await rig.connect("agent-air"), await rig.connect("agent-heat")
        with pytest.raises(UnavailableError, match="is being loaded"):
            await NatsInference(air, "air").complete(asked())
        keeping = tasks.create_task(shelf.keep())
        await until(lambda: not shelf.why_not, 60)

        heard: list[bytes] = []

        async def hear(message: BusMessage) -> None:
            heard.append(message.data)

        await heat.subscribe(f"{inbox('agent-heat')}.stolen", hear)
        done = await NatsInference(air, "air").complete(asked())
        parse_answer(done.text, OPTIONS)
        # In heat's name: the broker does not carry it. With heat's inbox for the answer: it is not answered.
        with pytest.raises(UnavailableError, match=r"no answer|nobody"):
            await air.request(subjects.inference("gw", "heat"), asked().model_dump_json().encode(), timeout_s=1.0)
        await air.publish(
            subjects.inference("gw", "air"), asked().model_dump_json().encode(), reply=f"{inbox('agent-heat')}.stolen"
        )
        await until(lambda: desk.refused[403] == 1, 30)
        assert not heard
        assert desk.requests == 2
        keeping.cancel()


async def test_questions_of_one_agent_have_an_end_and_another_is_answered(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "MOST_AT_ONCE", 3)
    engine = Engine.load(tiny_model(rig.folder), time.monotonic, rows=1, length=512, threads=1)
    shelf = Shelf(rig.folder / "tiny", lambda folder: engine, look_again_s=60)
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(shelf.keep())
        await until(lambda: not shelf.why_not, 60)
        await Desk(await rig.connect(INFERENCE_USER), shelf, tasks).open()
        air, heat = await rig.connect("agent-air"), await rig.connect("agent-heat")
        flood = [NatsInference(air, "air").complete(asked(f"x{number}")) for number in range(30)]
        flooding = asyncio.gather(*flood, return_exceptions=True)
        parse_answer((await NatsInference(heat, "heat").complete(asked())).text, OPTIONS)
        found = await flooding
        refused = [item for item in found if isinstance(item, TooManyAttemptsError)]
        assert refused
        assert all(isinstance(item, TooManyAttemptsError) for item in found if isinstance(item, BaseException))
        keeping.cancel()
