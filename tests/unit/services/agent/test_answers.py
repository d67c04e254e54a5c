"""What people say on its way through the loop: decided on once, written down so that it replays, not acted on late."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from edgeagents.adapters.bootstrap import EdgexService
from edgeagents.adapters.bus import BusMessage, StoredMessage
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.files import load_agent, load_model
from edgeagents.adapters.middleware import CorrelationMiddleware
from edgeagents.audit import Audit
from edgeagents.errors import InvalidInputError
from edgeagents.journal import Journal
from edgeagents.model.agent import Decision, Intent, Observation
from edgeagents.model.device import Device
from edgeagents.model.message import Cause, CommandId, Outcome, SessionWelcome, SiteEntry
from edgeagents.model.words import Words
from edgeagents.protocol.chains import link
from edgeagents.settings import SiteTime
from services.agent.answers import Answers, Door, read_words
from services.agent.command_ids import asked_command_id
from services.agent.commands import Commander, Given
from services.agent.decision import stages_of
from services.agent.loop import AgentLoop, AskInput, OutcomeInput, ThoughtInput
from services.agent.perception import Twin
from services.agent.pipeline import Pipeline
from services.agent.questions import Question
from services.agent.record import started_body
from services.agent.replay import Replayer
from services.agent.rules import RuleBook
from services.agent.thinking import Thinker, Thought
from tests.bench.ask_set import HOME, devices, home, profiles, state

AGENT = load_agent(HOME / "agents" / "assistant.yaml")
NOW_NS = 100_000_000_000
ENTRIES = tuple(
    SiteEntry(device=name, resource="Switch", risk_class="A", kind="absolute") for name in devices() if "light" in name
)


class FakeCommander:
    """Takes decisions and says that each was stored."""

    def __init__(self) -> None:
        self.session = self  # it plays its session as well
        self.welcome = SessionWelcome(generation=1, mode="act", site=ENTRIES)
        self.mode, self.decisions = "act", list[Decision]()
        self.pending: dict[tuple[str, str], Given] = {}

    def under_way(self, intent: Intent) -> Given | None:
        return self.pending.get((intent.device, intent.resource))

    async def give(self, decision: Decision, cause: Cause, site_s: float) -> Sequence[Given]:
        self.decisions.append(decision)
        return [
            Given(item, asked_command_id(AGENT.name, 1, decision.question, item.device, item.resource))
            for item in decision.intents if self.under_way(item) is None
        ]  # fmt: skip

    def ended(self, outcome: Outcome) -> None:
        return

    def forget_overdue(self) -> None:
        return


class FakeThinker:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.looked: list[str] = []
        self.counts: Counter[str] = Counter()
        self.error: Exception | None = None

    def begin(self, question: Question, house: object, view: object) -> bool:
        if self.error is not None:
            raise self.error
        self.asked.append(question.text)
        return True

    def look(self, observation: Observation, house: object, view: object) -> bool:
        if self.error is not None:
            raise self.error
        self.looked.append(observation.device)
        return True


class Rig:
    """A loop that answers people, with its neighbours in memory."""

    def __init__(self, thinks: bool = False) -> None:
        rules = RuleBook(AGENT, "assistant.yaml")
        twin = Twin(SiteTime(), rules.keys, 3600)
        for thing in home().things:
            for resource in thing.roles.values():
                sample = state().latest((thing.device, resource))
                if sample is not None:
                    twin.set_value((thing.device, resource), sample.value, 1, 1.0)
        self.commander, self.records = FakeCommander(), list[dict[str, Any]]()
        audit = SimpleNamespace(append=lambda kind, **body: self.records.append({"kind": kind, **body}))
        cache = SimpleNamespace(
            all=lambda: tuple(devices().values()), devices_by_name=devices(), profiles_by_name=profiles(),
            is_ready=True,
        )  # fmt: skip
        self.answers = Answers(
            cast(DeviceCache, cache), load_model(Words, HOME / "words.yaml"), twin, cast(Commander, self.commander),
            lambda: NOW_NS, lambda: 100.0, lambda site_s: site_s, AGENT,
        )  # fmt: skip
        self.thinker = FakeThinker()
        if thinks:
            self.answers.thinker = cast(Thinker, self.thinker)
        self.loop = AgentLoop(
            AGENT, twin, stages_of(AGENT, rules), cast(Commander, self.commander), cast(Audit, audit),
            Journal.in_folder(None, "a"), lambda: 100.0, self.answers,
        )  # fmt: skip
        self.acknowledged = 0

    def message(self, sequence: int, age_s: float = 0.0) -> StoredMessage:
        async def ack() -> None:
            self.acknowledged += 1

        time_ns = NOW_NS - int(age_s * 1e9)
        return cast(StoredMessage, SimpleNamespace(
            stream="triggers", sequence=sequence, time_ns=time_ns, headers={}, ack=ack))  # fmt: skip

    async def say(self, text: str, name: str = "q", sequence: int = 7, age_s: float = 0.0) -> dict[str, Any]:
        """Let the loop handle a stored question; return the answer as it is then."""
        question = Question(text=text, id=name)
        phrase = await self.answers.hear(question)
        await self.loop.handle(AskInput(self.message(sequence, age_s), question, phrase))
        return self.reply(name)

    async def think(self, **fields: Any) -> None:
        """Let the loop handle what a model answered."""
        await self.loop.handle(ThoughtInput(self.message(9), Thought(**fields)))

    def reply(self, name: str) -> dict[str, Any]:
        conversation = self.answers.questions.known(name)
        assert conversation is not None
        return self.answers.reply(conversation)

    def replayed(self) -> list[bool]:
        """Make every decision again from what was written down."""
        start = link(None, "assistant", "i", "started", started_body(AGENT), 1)
        replayer = Replayer()
        replayer.take(start)
        bodies = [{name: value for name, value in record.items() if name != "kind"} for record in self.records
                  if record["kind"] == "decision"]  # fmt: skip
        found = [replayer.take(link(start, "assistant", "i", "decision", body, 2)) for body in bodies]
        return [item is not None and item.is_equal for item in found]


LAMP = '{"device":"light-office","resource":"Switch","value":true}'


async def test_a_question_is_decided_on_written_down_acknowledged_and_replays() -> None:
    rig = Rig()
    answer = await rig.say("turn on the light in the kitchen")
    assert (answer["kind"], answer["by"], rig.acknowledged) == ("pending", "phrase", 1)
    (decision,) = rig.commander.decisions
    assert (decision.stage, decision.data_origin_ns) == ("phrase", NOW_NS)
    assert decision.question.startswith("q/")
    (record,) = rig.records
    assert record["asked"]["text"] == "turn on the light in the kitchen"
    outcome = Outcome(
        command_id=CommandId(answer["commands"][0]["commandId"]), device="light-kitchen", resource="Switch",
        status="proven",
    )  # fmt: skip
    await rig.loop.handle(OutcomeInput(rig.message(8), outcome))
    assert rig.reply("q")["kind"] == "done"
    assert rig.replayed() == [True]


async def test_asked_again_nothing_is_done_twice_and_another_run_would_make_the_same_command() -> None:
    first, second = Rig(), Rig()
    one = await first.say("turn on the light in the kitchen")
    again = await first.say("turn on the light in the kitchen", sequence=20)
    other = await second.say("turn on the light in the kitchen", sequence=99)
    assert len(first.commander.decisions) == 1
    assert one["commands"] == again["commands"]
    assert one["commands"][0]["commandId"] == other["commands"][0]["commandId"]


async def test_after_a_restart_the_same_id_with_another_text_is_another_question() -> None:
    first, second = Rig(), Rig()
    on = await first.say("turn on the light in the kitchen")
    off = await second.say("turn off the light in the living room")
    again = await Rig().say("turn on the light in the kitchen", sequence=99)
    one, other = first.commander.decisions[0], second.commander.decisions[0]
    assert one.id != other.id
    assert on["commands"][0]["commandId"] == again["commands"][0]["commandId"] != off["commands"][0]["commandId"]


async def test_what_was_said_half_a_minute_ago_is_not_done_any_more() -> None:
    rig = Rig()
    answer = await rig.say("turn on the light in the kitchen", age_s=31.0)
    assert (answer["kind"], rig.commander.decisions) == ("not-understood", [])
    assert "31 s old" in answer["answer"]


async def test_what_no_template_fits_goes_to_a_model_where_there_is_one() -> None:
    assert (await Rig().say("it is odd"))["kind"] == "not-understood"
    rig = Rig(thinks=True)
    assert (await rig.say("it is odd"))["kind"] == "pending"
    assert rig.thinker.asked == ["it is odd"]
    await rig.think(question="q", said="it is odd", answer=LAMP, confidence=0.95, model="m1")
    (decision,) = rig.commander.decisions
    assert (decision.stage, decision.confidence, decision.model_hash) == ("language-model", 0.95, "m1")
    assert rig.reply("q")["commands"][0]["deviceName"] == "light-office"
    await rig.think(question="q", said="it is odd", answer=LAMP, confidence=0.95, model="m1")  # delivered again
    assert len(rig.commander.decisions) == 1
    assert rig.replayed() == [True]


@pytest.mark.parametrize(("thought", "words"), [
    ({"answer": LAMP, "confidence": 0.5}, "50%: light-office/Switch = True?"),
    ({"trouble": "away"}, "the language model is away"),
    ({"answer": LAMP, "confidence": 0.99, "trouble": "capped"}, "did not come to an end"),
    ({"answer": '{"device":"radiator-office","resource":"Setpoint","value":99}', "confidence": 1.0}, "not possible"),
    ({"answer": '{"ask":"Which desk?"}', "confidence": 0.9}, "Which desk?"),
    ({"answer": '{"nothing":"the sun shines"}', "confidence": 0.9}, "the sun shines"),
])  # fmt: skip
async def test_an_answer_that_is_no_sure_command_is_told_and_nothing_is_done(thought: Any, words: str) -> None:
    rig = Rig(thinks=True)
    await rig.say("it is odd")
    await rig.think(question="q", said="it is odd", model="m1", **thought)
    assert words in rig.reply("q")["answer"]
    assert rig.commander.decisions == []
    assert [record["kind"] for record in rig.records] == ["question", "thought"]


async def test_a_thought_for_a_question_of_a_former_life_does_nothing() -> None:
    rig = Rig(thinks=True)
    await rig.think(question="gone", said="x", answer=LAMP, confidence=1.0)
    assert rig.commander.decisions == []


async def test_a_thought_on_news_is_a_decision_of_its_own() -> None:
    rig = Rig(thinks=True)
    await rig.think(answer=LAMP, confidence=0.95, model="m1")
    (decision,) = rig.commander.decisions
    assert (decision.question, decision.intents[0].because) == ("", "the rules were silent")
    assert rig.replayed() == [True]


def test_words_lie_above_the_folder_of_agents_or_nowhere() -> None:
    assert read_words(None, HOME / "agents" / "assistant.yaml").rooms
    assert read_words(None, HOME / "profiles" / "deep" / "er" / "x.yaml") == Words()
    # As Docker leaves it where there was no file to mount.
    assert read_words(HOME / "agents", HOME / "agents" / "assistant.yaml") == Words()


def test_names_follow_the_devices() -> None:
    rig = Rig()
    changes: list[Any] = []
    known = dict(devices())
    cache = cast(Any, rig.answers._devices)
    cache.on_change, cache.all = changes.append, lambda: tuple(known.values())
    rig.answers.watch()
    before = len(rig.answers.house.things)
    known["new"] = Device(name="new", profile_name="Light")
    changes[0](None)
    assert len(rig.answers.house.things) == before + 1


async def test_devices_that_are_known_later_can_be_spoken_of_though_somebody_asked_before() -> None:
    cache = DeviceCache(cast(Any, None))
    rig = Rig()
    rig.answers._devices = cache
    assert (await rig.say("turn on the light in the kitchen"))["kind"] == "refused"
    assert rig.answers.house.things == ()
    cache._profiles.update(profiles())
    cache._devices.update(devices())
    cache._ready.set()
    answer = await rig.say("turn on the light in the kitchen", "again", 8)
    assert answer["commands"][0]["deviceName"] == "light-kitchen"


async def test_names_of_an_old_house_are_not_kept_for_a_new_one() -> None:
    rig = Rig()
    old = rig.answers.house
    rig.answers._forget()
    new = replace(old, rooms={**old.rooms, "attic": {"en": ("attic",), "zh": ("阁楼",)}})
    rig.answers._house = new
    rig.answers._match(old, "en", "how warm is it in the attic")  # begun before the change, in its thread
    found = await rig.answers.hear(Question(text="how warm is it in the attic", id="q"))
    assert found is not None
    assert found.room == "attic"


@pytest.mark.parametrize(("error", "words"), [
    (InvalidInputError("agent 'a' may set 20001 resources"), "Nothing was done: agent 'a' may set 20001 resources."),
    (KeyError("switch"), "Nothing was done: the agent failed on it."),
])  # fmt: skip
async def test_a_question_that_nobody_foresaw_ends_with_an_answer_and_not_with_the_agent(
    error: Exception, words: str
) -> None:
    rig = Rig(thinks=True)
    rig.thinker.error = error
    answer = await rig.say("it is odd")
    assert (answer["kind"], answer["answer"], rig.acknowledged) == ("refused", words, 1)
    assert rig.loop.counts["not_worked_out"] == 1
    assert (await rig.say("turn on the light in the kitchen", "next", 8))["kind"] == "pending"
    rig.loop._silent(Observation(Cause(stream="edgex-events", sequence=1), "sensor-office", {}, 1.0))
    assert rig.loop.counts["not_worked_out"] == 2


@pytest.mark.parametrize("how", ["deciding", "pipeline"])
async def test_while_deciding_is_switched_off_nothing_that_is_said_or_thought_is_done(how: str) -> None:
    rig = Rig(thinks=True)
    await rig.say("it is odd", "thought")
    if how == "deciding":
        rig.loop.deciding = False
    else:
        rig.loop.pipeline = Pipeline(stages=frozenset())
    rig.answers.questions.open(Question(text="turn on the light in the kitchen", id="q"))
    answer = await rig.say("turn on the light in the kitchen", "q", 8)
    assert (answer["kind"], answer["answer"]) == ("refused", "Nothing was done: deciding is switched off.")
    await rig.think(question="thought", said="it is odd", answer=LAMP, confidence=0.99, model="m1")
    assert rig.reply("thought")["kind"] == "refused"
    assert (rig.commander.decisions, rig.acknowledged) == ([], 3)


async def test_a_thought_for_a_question_that_was_given_up_does_nothing() -> None:
    rig = Rig(thinks=True)
    await rig.say("it is odd")
    rig.answers.give_up("q", "it could not be stored")
    await rig.think(question="q", said="it is odd", answer=LAMP, confidence=0.99, model="m1")
    assert rig.commander.decisions == []
    assert rig.reply("q")["answer"] == "Nothing was done: it could not be stored."


async def test_what_no_stage_is_sure_of_is_said_not_to_be_done() -> None:
    rig = Rig(thinks=True)
    rig.answers._agent = AGENT.model_copy(update={"thinks": SimpleNamespace(sure=0.3)})  # as no file may say
    await rig.say("it is odd")
    await rig.think(question="q", said="it is odd", answer=LAMP, confidence=0.4, model="m1")
    answer = rig.reply("q")
    assert (answer["kind"], answer["commands"], rig.commander.decisions) == ("not-understood", [], [])
    assert "not sure enough" in answer["answer"]


@pytest.mark.parametrize(("status", "kind"), [("proven", "done"), ("failed", "failed")])
async def test_of_a_command_that_is_under_way_already_its_end_is_told(status: Any, kind: str) -> None:
    rig = Rig()
    lamp = Intent("light-kitchen", "Switch", True, "", "")
    rig.commander.pending[lamp.device, lamp.resource] = Given(lamp, command_id="before", text="true")
    answer = await rig.say("turn on the light in the kitchen")
    assert (answer["kind"], answer["commands"][0]["commandId"]) == ("pending", "before")
    outcome = Outcome(
        command_id=CommandId("before"), device="light-kitchen", resource="Switch", value="true", status=status
    )  # fmt: skip
    await rig.loop.handle(OutcomeInput(rig.message(8), outcome))
    assert rig.reply("q")["kind"] == kind


class FakeService:
    """What a door needs of its service."""

    def __init__(self) -> None:
        self.settings, self.bus = SimpleNamespace(gateway="gw"), self
        self.app, self.stored = FastAPI(), list[dict[str, Any]]()
        self.app.add_middleware(CorrelationMiddleware)
        self.error: BaseException | None = None
        self.answers: list[dict[str, Any]] = []

    async def store(self, subject: str, data: bytes, headers: dict[str, str]) -> int:
        if self.error is not None:
            raise self.error
        self.stored.append(json.loads(data))
        return 1

    async def subscribe(self, subject: str, handler: object, **limits: int) -> None:
        return

    async def respond(self, message: BusMessage, data: bytes) -> None:
        self.answers.append(json.loads(data))


def request(**body: Any) -> BusMessage:
    return BusMessage("gw.ask.assistant", json.dumps({"waitSeconds": 0, **body}).encode(), reply="_INBOX.micro.x")


async def test_a_question_over_nats_that_fails_is_answered_with_500(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, service = Rig(), FakeService()
    door = Door(cast(EdgexService, service), "assistant", rig.answers)
    await door._answer_message(request(text="turn on the light"))
    monkeypatch.setattr(rig.answers, "reply", lambda conversation: {"readings": [{"value": float("nan")}]})
    await door._answer_message(request(text="turn on the light"))
    assert [answer["statusCode"] for answer in service.answers] == [200, 500]
    assert "failed on this question" in service.answers[1]["message"]


async def test_a_correlation_id_that_comes_twice_does_not_make_two_questions_one() -> None:
    rig, service = Rig(), FakeService()
    await Door(cast(EdgexService, service), "assistant", rig.answers).open()
    transport, headers = httpx.ASGITransport(service.app), {"X-Correlation-ID": "the-same-each-time"}
    body = {"text": "turn on the light", "waitSeconds": 0}
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        answers = [(await client.post("/api/v3/ask", json=body, headers=headers)).json() for _ in range(2)]
    assert len({answer["requestId"] for answer in answers}) == len(service.stored) == 2


async def test_a_question_whose_storing_is_broken_off_takes_no_place() -> None:
    rig, service = Rig(), FakeService()
    door = Door(cast(EdgexService, service), "assistant", rig.answers)
    service.error = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await door.answer(Question(text="turn on the light", id="q", wait_s=0))
    assert rig.answers.questions.known("q") is None
