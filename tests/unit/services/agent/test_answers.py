"""What people say on its way through the loop: decided on once, written down so that it replays, never acted on late."""

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeagents.adapters.bus import StoredMessage
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.files import load_agent, load_model
from edgeagents.audit import Audit
from edgeagents.journal import Journal
from edgeagents.model.agent import Decision, Observation
from edgeagents.model.device import Device
from edgeagents.model.message import Cause, CommandId, Outcome, SessionWelcome, SiteEntry
from edgeagents.model.words import Words
from edgeagents.protocol.chains import link
from edgeagents.settings import SiteTime
from services.agent.answers import Answers, read_words
from services.agent.commands import Commander, Given, asked_command_id
from services.agent.decision import stages_of
from services.agent.loop import AgentLoop, AskInput, OutcomeInput, ThoughtInput
from services.agent.perception import Twin
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
        self.welcome = SessionWelcome(generation=1, mode="act", site=ENTRIES)
        self.mode, self.decisions = "act", list[Decision]()

    async def give(self, decision: Decision, cause: Cause, site_s: float) -> Sequence[Given]:
        self.decisions.append(decision)
        return [
            Given(item, asked_command_id(AGENT.name, 1, decision.question, item.device, item.resource))
            for item in decision.intents
        ]

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

    def begin(self, question: Question, house: object, view: object) -> bool:
        self.asked.append(question.text)
        return True

    def look(self, observation: Observation, house: object, view: object) -> bool:
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
            all=lambda: tuple(devices().values()), devices_by_name=devices(), profiles_by_name=profiles()
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
