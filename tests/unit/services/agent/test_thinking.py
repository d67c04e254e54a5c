"""The language stage: asked beside the loop, within a budget; its answer is stored; trouble leads to no command."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, Literal

import pytest

from edgeagents.adapters.files import load_agent
from edgeagents.errors import InvalidInputError, TooManyAttemptsError, UnavailableError, UpstreamError
from edgeagents.model.agent import Observation, Sample, Thinks
from edgeagents.model.answer import CommandAnswer
from edgeagents.model.completion import Completion, CompletionRequest
from edgeagents.model.message import Cause
from edgeagents.model.options import Options
from services.agent.prompts import question_prompt, situation_prompt
from services.agent.questions import Question, Why
from services.agent.thinking import MOST_AT_ONCE, Thinker, Thought, intent_of, read_thought, thought_of, words_of
from tests.bench.ask_model import home_options
from tests.bench.ask_set import HOME, home, state

HOUSE, OPTIONS = home(), home_options()
LAMP = '{"device":"light-office","resource":"Switch","value":true}'
OBSERVATION = Observation(
    Cause(stream="edgex-events", sequence=1), "sensor-office", {"CO2": Sample(1900.0, 1, 1.0)}, 1.0
)  # fmt: skip


class FakeClient:
    """A model that says what a test tells it to."""

    def __init__(self, answer: Completion | Exception | Literal["never"]) -> None:
        self.answer = answer
        self.asked: list[CompletionRequest] = []

    async def complete(self, request: CompletionRequest) -> Completion:
        self.asked.append(request)
        if self.answer == "never":
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        assert isinstance(self.answer, Completion)
        return self.answer

    async def close(self) -> None:
        return


class Rig:
    """A thinker with its neighbours in memory."""

    def __init__(self, answer: Completion | Exception | Literal["never"], **thinks: Any) -> None:
        self.client = FakeClient(answer)
        self.stored: list[Thought] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.now_s = 0.0
        settings = Thinks.model_validate({"when": ["asked", "silent"], "budget": 1.0, **thinks})
        self.given_up: list[tuple[str, Why]] = []
        self.is_full = self.has_too_many = False
        self.thinker = Thinker(
            settings, self.client, self._options, self._store, self._spawn, lambda: self.now_s,
            lambda question, why: self.given_up.append((question, why)),
        )  # fmt: skip

    def _options(self) -> Options:
        if self.has_too_many:
            raise InvalidInputError("agent 'a' may set 20001 resources")
        return OPTIONS

    async def _store(self, data: bytes, headers: dict[str, str]) -> None:
        assert headers == {"Trigger-Kind": "thought"}
        if self.is_full:
            raise UnavailableError("no room")
        self.stored.append(thought_of(data))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    def ask(self) -> bool:
        return self.thinker.begin(Question(text="it is odd in here", id="q"), HOUSE, state())

    async def thought(self) -> Thought:
        assert self.ask()
        await asyncio.gather(*self.tasks)
        return self.stored[-1]


def said(text: str, probability: float = -0.05, **more: Any) -> Completion:
    return Completion(text=text, log_probability=probability, free_tokens=1, model="m1", **more)


async def test_an_answer_is_stored_with_its_question_model_and_confidence() -> None:
    thought = await Rig(said(LAMP)).thought()
    assert (thought.question, thought.answer, thought.model, thought.trouble) == ("q", LAMP, "m1", "")
    assert thought.confidence == pytest.approx(0.951, abs=0.001)
    answer = read_thought(thought, OPTIONS)
    assert isinstance(answer, CommandAnswer)
    intent = intent_of(answer, thought)
    assert (intent.device, intent.value, intent.because) == ("light-office", True, "somebody said: it is odd in here")


@pytest.mark.parametrize(("answer", "trouble"), [
    (UnavailableError("no responders"), "away"), (TooManyAttemptsError("queue full"), "busy"),
    (UpstreamError("html"), "failed"), (InvalidInputError("schema"), "failed"),
    (OverflowError("intermediate overflow in fsum"), "failed"), (said(LAMP, float("nan")), "failed"),
    (said(LAMP, float("-inf")), "failed"),
    (said(LAMP, ending="budget"), "capped"), (said(LAMP, is_capped=True), "capped"),
    (said(LAMP, ending="failed"), "failed"),
    (said('{"device":"front-door","resource":"Lock","value":true}'), "illegal"),
    (said('{"device":"heat-pump","resource":"FlowSetpoint","value":55}'), "illegal"),
    (said("Sure! Turning on the light."), "illegal"), (said(""), "illegal"),
])  # fmt: skip
async def test_trouble_is_told_counted_and_leads_to_no_command(answer: Any, trouble: str) -> None:
    rig = Rig(answer)
    thought = await rig.thought()
    assert thought.trouble == trouble
    assert rig.thinker.counts == {"asked": 1, trouble: 1}
    assert read_thought(thought, OPTIONS) is None


async def test_a_model_that_is_killed_in_the_middle_of_an_answer_costs_no_more_than_the_budget() -> None:
    rig = Rig("never", budget=0.01)
    assert (await rig.thought()).trouble == "late"


async def test_the_person_is_told_when_what_a_model_said_cannot_be_stored() -> None:
    rig = Rig(said(LAMP))
    rig.is_full = True
    assert rig.ask()
    await asyncio.gather(*rig.tasks)
    assert rig.given_up == [("q", ("what the model answered could not be stored", "语言模型的回答没能存下来"))]


async def test_too_many_resources_for_a_model_end_no_later_look_at_news() -> None:
    rig = Rig(said('{"nothing":"all is well"}'), every="60s")
    rig.has_too_many = True
    with pytest.raises(InvalidInputError):
        rig.thinker.look(OBSERVATION, HOUSE, state())
    assert not rig.thinker.look(OBSERVATION, HOUSE, state())  # not with each event
    rig.has_too_many, rig.now_s = False, 61.0
    assert rig.thinker.look(OBSERVATION, HOUSE, state())
    await asyncio.gather(*rig.tasks)


async def test_asking_never_waits_and_more_than_a_few_at_once_are_not_asked() -> None:
    rig = Rig("never")
    for _ in range(MOST_AT_ONCE):
        assert rig.ask()
        await asyncio.sleep(0)
    assert not rig.ask()
    assert rig.thinker.counts["busy"] == 1
    for task in rig.tasks:
        task.cancel()
    await asyncio.gather(*rig.tasks, return_exceptions=True)


async def test_news_on_which_rules_are_silent_is_thought_about_now_and_then_alone() -> None:
    rig = Rig(said('{"nothing":"all is well"}'), every="60s")
    assert rig.thinker.look(OBSERVATION, HOUSE, state())
    await asyncio.gather(*rig.tasks)
    rig.now_s = 59.0
    assert not rig.thinker.look(OBSERVATION, HOUSE, state())
    rig.now_s = 61.0
    assert rig.thinker.look(OBSERVATION, HOUSE, state())
    await asyncio.gather(*rig.tasks)
    assert [thought.question for thought in rig.stored] == ["", ""]
    options = rig.client.asked[0].options
    assert options is not None
    assert not options.may_ask  # nobody is there
    assert not Rig(said(LAMP), when=["asked"]).thinker.look(OBSERVATION, HOUSE, state())
    assert not Rig(said(LAMP), when=["silent"]).ask()


def test_a_thought_that_cannot_be_read_is_refused() -> None:
    for data in (b"", b"[]", b'{"confidence": 7}', b"\xff", b'{"trouble": "tired"}'):
        with pytest.raises(InvalidInputError):
            thought_of(data)


def test_words_of_a_model_are_those_of_questions_and_reasons() -> None:
    asked = read_thought(Thought(answer='{"ask":"Which room?"}'), OPTIONS)
    nothing = read_thought(Thought(answer='{"nothing":"it is warm"}'), OPTIONS)
    assert asked is not None
    assert nothing is not None
    assert (words_of(asked), words_of(nothing)) == ("Which room?", "it is warm")


def test_the_beginning_of_a_prompt_is_the_same_whatever_is_said_and_whatever_is_so() -> None:
    one = question_prompt("it is odd", HOUSE, OPTIONS, state(), 8.0)
    other = situation_prompt("sensor-office", {"CO2": Sample(1900.0, 1, 1.0)}, HOUSE, OPTIONS, state(), 4.0)
    assert one.messages[0] == other.messages[0]
    assert (one.constant, other.constant) == (1, 1)
    head = one.messages[0].content
    assert '"light-office" (light, "office"): "Brightness" 1 to 100 "%"; "Switch" true or false' in head
    assert '"radiator-office" (heating, "office"): "Setpoint" 14 to 24 "C"' in head
    assert other.messages[1].content.endswith('changed at "sensor-office": "CO2": 1900\nIs anything to be done?')


def test_the_homes_assistant_asks_a_model_only_when_somebody_asked_it_and_acts_on_sure_answers_alone() -> None:
    thinks = load_agent(HOME / "agents" / "assistant.yaml").thinks
    assert thinks is not None
    assert (thinks.by, thinks.when, thinks.sure) == ("gateway", ("asked",), 0.9)


@pytest.mark.parametrize("wrong", [
    {"by": "ftp://x"}, {"by": "local"}, {"budget": "0s"}, {"budget": "10m"}, {"when": []}, {"when": ["always"]},
    {"sure": 0}, {"sure": 0.4}, {"shure": 0.5},
])  # fmt: skip
def test_a_thinks_section_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Thinks.model_validate(wrong)
    assert Thinks.model_validate(json.loads('{"by": "http://127.0.0.1:8080/v1", "budget": "4s"}')).budget == 4.0
