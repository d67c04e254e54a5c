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
from edgeagents.adapters.inference_local import LocalInference
from edgeagents.adapters.model_shelf import Shelf
from edgeagents.adapters.objects import Objects, object_stream
from edgeagents.embedded.nats import find_nats_server, write_config
from edgeagents.errors import TooManyAttemptsError, UnavailableError
from edgeagents.inference.engine import Engine
from edgeagents.model.answer import parse_answer
from edgeagents.model.completion import ChatMessage, Completion, CompletionRequest
from edgeagents.model.options import Options, Slot
from edgeagents.permissions import INFERENCE_USER, agent_user, for_agent, for_everything, for_inference, inbox
from edgeagents.settings import BusSettings
from services.guard.streams import ensure_prefixes
from services.inference import desk as desk_module
from services.inference.desk import Desk
from services.inference.stored_prefixes import StoredPrefixes
from tests.contract.waiting import until as until_so
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


class Served:
    """An engine of its own on a shelf, with what is stored of it."""

    def __init__(self, folder: Path, bus: Bus, *, every_s: float = 0.05) -> None:
        self.engine = Engine.load(folder, time.monotonic, rows=1, length=1024, threads=1)
        self.shelf = Shelf(folder, lambda path: self.engine, look_again_s=60)
        self.stored = StoredPrefixes(Objects(bus, subjects.PREFIXES_BUCKET), self.shelf, every_s)

    async def __aenter__(self) -> "Served":
        self.tasks = [asyncio.create_task(self.shelf.keep()), asyncio.create_task(self.stored.keep())]
        await until(lambda: not self.shelf.why_not, 60)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in reversed(self.tasks):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def ask(self, text: str, role: str = "You look after the air of this house. " * 12) -> Completion:
        messages = (ChatMessage(role="system", content=role), ChatMessage(role="user", content=text))
        wanted = CompletionRequest(messages=messages, constant=1, options=OPTIONS, budget_s=60, most_tokens=150)
        return await LocalInference(lambda: self.engine).complete(wanted)


async def _holds(store: Objects, names: set[str]) -> bool:
    return await store.names() == names


async def _is_as_many(store: Objects, stored: StoredPrefixes) -> bool:
    """Say whether so many are stored as are counted; asked in this order, as they are taken out before that counts."""
    names = await store.names()
    return len(names) == stored.stored


async def test_beginnings_that_are_used_again_outlive_the_service_and_no_other_do(rig: Rig) -> None:
    folder = tiny_model(rig.folder)
    owner, bus = await rig.connect("owner"), await rig.connect(INFERENCE_USER)
    await ensure_prefixes(owner)
    store = Objects(owner, subjects.PREFIXES_BUCKET)
    async with Served(folder, bus) as first:
        cold = await first.ask("it is dark")
        await first.ask("x", role="Of this nobody hears again. " * 12)
        assert cold.cached_tokens == 0
        await asyncio.sleep(0.3)
        assert await store.names() == set(), "what was never found again is not written"
        await first.ask("it is bright")
        await until(lambda: first.stored.stored > 0, 30)
    names = await store.names()
    assert len(names) == first.stored.stored
    # Of another model, and damaged: computed again, taken out.
    await store.put("0123456789abcdef.00", b"of another model")
    await store.put(f"{first.engine.digest[:16]}.00", b"damaged")
    async with Served(folder, bus) as second:
        await until(lambda: second.stored.restored > 0, 30)
        again = await second.ask("it is dark")
        assert (again.text, again.cached_tokens > 300) == (cold.text, True)
        await until(lambda: second.stored.stored == len(names), 30)
        await until_so(lambda: _holds(store, names), "what is none of it is taken out", timeout_s=30)
        second.engine.prefixes.budget_bytes = second.engine.prefixes.size_bytes
        for number in range(4):
            await second.ask("x", role=f"Something else: {number}. " * 30)
        await until(lambda: second.stored.stored < len(names), 30)
        await until_so(lambda: _is_as_many(store, second.stored), "what left memory leaves the store", timeout_s=30)


async def test_what_was_taken_over_is_not_pushed_out_by_prompts_that_come_once(rig: Rig) -> None:
    folder, bus = tiny_model(rig.folder), await rig.connect(INFERENCE_USER)
    await ensure_prefixes(await rig.connect("owner"))
    async with Served(folder, bus) as first:
        for text in ("it is dark", "it is bright"):
            await first.ask(text)
        await until(lambda: first.stored.stored > 0, 30)
    async with Served(folder, bus) as second:
        await until(lambda: second.stored.restored > 0, 30)
        second.engine.prefixes.budget_bytes = 3 * second.engine.prefixes.size_bytes
        for number in range(8):
            await second.ask("x", role=f"Of this nobody hears again: {number}. " * 12)
        assert second.engine.prefixes.evicted > 0
        assert (await second.ask("it is dark")).cached_tokens > 300


async def test_a_full_bucket_is_not_written_to_in_vain(rig: Rig) -> None:
    folder, owner = tiny_model(rig.folder), await rig.connect("owner")
    await Objects(owner, subjects.PREFIXES_BUCKET).ensure(64 << 10)
    async with Served(folder, await rig.connect(INFERENCE_USER)) as served:
        for text in ("it is dark", "it is bright"):
            await served.ask(text)
        await asyncio.sleep(0.5)
        assert served.stored.stored == 0
        last = (await owner.js.stream_info(object_stream(subjects.PREFIXES_BUCKET))).state.last_seq
        assert last == 0, "nothing was tried"


async def test_an_owner_who_wants_no_prompt_on_the_disk_has_what_was_there_taken_out(rig: Rig) -> None:
    owner = await rig.connect("owner")
    await ensure_prefixes(owner)
    store = Objects(await rig.connect(INFERENCE_USER), subjects.PREFIXES_BUCKET)
    await store.put("a", b"x" * 1_000)
    stored = StoredPrefixes(store, Shelf(rig.folder, lambda path: pytest.fail("no model is needed")))
    await stored.forget()
    assert (await owner.js.stream_info(object_stream(subjects.PREFIXES_BUCKET))).state.messages == 0


async def test_without_a_bucket_the_model_answers_and_the_bucket_is_found_when_it_comes(rig: Rig) -> None:
    folder, owner = tiny_model(rig.folder), await rig.connect("owner")
    async with Served(folder, await rig.connect(INFERENCE_USER)) as served:
        for text in ("it is dark", "it is bright"):
            await served.ask(text)
        assert served.stored.stored == 0
        await ensure_prefixes(owner)
        await until(lambda: served.stored.stored > 0, 30)


async def test_an_agent_reads_no_stored_beginning(rig: Rig) -> None:
    await ensure_prefixes(await rig.connect("owner"))
    air = Objects(await rig.connect("agent-air"), subjects.PREFIXES_BUCKET, wait_s=1.0)
    for attempt in (air.names(), air.get("a", 10), air.put("a", b"x"), air.delete("a")):
        with pytest.raises(UnavailableError):
            await attempt
