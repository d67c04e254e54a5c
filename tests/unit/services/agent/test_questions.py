"""Questions: taken, bounded, asked again; and what a person is told of what became of them."""

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.errors import ConflictError, InvalidInputError, TooLargeError, TooManyAttemptsError
from edgeagents.model.agent import Intent, Stage
from edgeagents.model.message import CommandId, Outcome, OutcomeStatus
from edgeagents.model.values import Value
from services.agent.commands import Given
from services.agent.phrases import Phrasebook, language_of
from services.agent.questions import (
    FAILED_ON_IT,
    MOST_BYTES,
    MOST_KNOWN,
    MOST_OPEN,
    NOT_SURE,
    SWITCHED_OFF,
    Conversation,
    Fate,
    Question,
    Questions,
    Wanted,
    question_of,
)
from services.agent.replies import reply_of
from services.agent.thinking import NOT_STORED, TROUBLES
from services.agent.understanding import Act, Understood, understand
from tests.bench.ask_set import State, home, state

HOUSE = home()
LAMP = Intent("light-kitchen", "Switch", True, "because", "on")
PUMP = Intent("heat-pump", "Enabled", False, "because", "off")


def body(**fields: Any) -> bytes:
    return json.dumps({"text": "turn on the light", **fields}).encode()


def test_a_question_gets_an_id_of_its_own_where_it_has_none() -> None:
    assert question_of(body(requestId="a-1")).id == "a-1"
    assert question_of(body()).id != question_of(body()).id


@pytest.mark.parametrize(("data", "error", "words"), [
    (b"", InvalidInputError, "not JSON"),
    (b"turn on the light", InvalidInputError, "not JSON"),
    (b'{"text": "\xff\xfe"}', InvalidInputError, "not UTF-8 at byte 10"),
    (b'{"text": ""}', InvalidInputError, "text"),
    (b'{"text": "  \\n "}', InvalidInputError, "text: is empty"),
    (b'{"text": "\\ud800"}', InvalidInputError, "text"),
    (b'{"text": 7}', InvalidInputError, "text"),
    (b'["text"]', InvalidInputError, "body"),
    (b"[" * 20_000, InvalidInputError, "not JSON"),
    (body(tekst="x"), InvalidInputError, "tekst"),
    (body(requestId="a b"), InvalidInputError, "requestId"),
    (body(waitSeconds=1e9), InvalidInputError, "waitSeconds"),
    (body(text="x" * 2_001), InvalidInputError, "text"),
    (b'{"text": "' + b"x" * 10_000_000 + b'"}', TooLargeError, str(MOST_BYTES)),
])  # fmt: skip
def test_what_is_no_question_is_refused_with_what_is_wrong(data: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        question_of(data)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 600


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_question_or_a_clear_refusal(data: bytes) -> None:
    try:
        assert question_of(data).text.strip()
    except (InvalidInputError, TooLargeError):
        return


def asked(text: str = "turn on the light in the kitchen", name: str = "q") -> Question:
    return Question(text=text, id=name)


def test_asked_again_under_its_id_it_is_the_same_question_and_another_one_may_not_have_it() -> None:
    questions = Questions()
    first, is_new = questions.open(asked())
    again, is_second = questions.open(asked())
    assert (is_new, is_second, again is first) == (True, False, True)
    with pytest.raises(ConflictError):
        questions.open(asked("turn off the light in the kitchen"))


def test_so_many_are_open_at_a_time_and_so_many_answers_are_remembered() -> None:
    questions = Questions()
    for number in range(MOST_OPEN):
        questions.open(asked(name=f"q{number}"))
    with pytest.raises(TooManyAttemptsError):
        questions.open(asked(name="one-more"))
    for number in range(MOST_KNOWN * 2):
        conversation = questions.taken(asked(name=f"other{number}"))
        assert conversation is not None
        questions.decided(conversation, "phrase")
    assert questions.known("q0") is None
    assert questions.known(f"other{MOST_KNOWN * 2 - 1}") is not None


def test_questions_without_an_end_are_closed_with_why_and_take_no_place_for_ever() -> None:
    now_s = [0.0]
    questions = Questions(lambda: now_s[0], patience_s=40.0)
    conversations = [questions.open(asked(name=f"q{number}"))[0] for number in range(MOST_OPEN)]
    given_to(questions, conversations[0], Given(LAMP, command_id="c", text="true"))
    now_s[0] = 40.0
    with pytest.raises(TooManyAttemptsError):
        questions.open(asked(name="one-more"))
    now_s[0] = 40.1
    questions.open(asked(name="one-more"))
    assert (questions.counts["overdue"], questions.counts["turned_away"]) == (MOST_OPEN, 1)
    lost, undecided = told(conversations[0]), told(conversations[1])
    assert (lost["kind"], lost["commands"][0]["reason"]) == ("uncertain", "no outcome came in 40 s")
    assert (undecided["kind"], undecided["answer"]) == (
        "refused", "Nothing was done: it was not decided on in 40 s."
    )  # fmt: skip
    assert questions.taken(asked(name="q1")) is None  # it is done neither afterwards
    questions.ended(outcome("proven").model_copy(update={"value": "true"}))
    assert told(conversations[0])["kind"] == "done"


FATES: list[tuple[set[Fate | None], str]] = [
    ({"proven"}, "done"), ({"unproven"}, "done"), ({"settled"}, "done"), ({"proven", "settled"}, "done"),
    ({None}, "pending"), ({"under-way"}, "pending"), ({"proven", None}, "pending"), ({"failed", None}, "pending"),
    ({"waits-for-approval", "proven"}, "waits-for-approval"), ({"unproven", "failed"}, "partly"),
    ({"proven", "refused"}, "partly"), ({"settled", "expired"}, "partly"), ({"uncertain"}, "uncertain"),
    ({"failed"}, "failed"), ({"expired"}, "expired"), ({"refused"}, "refused"), ({"uncertain", "refused"}, "uncertain"),
]  # fmt: skip


@pytest.mark.parametrize(("fates", "kind"), FATES)
def test_each_end_of_a_command_has_its_own_honest_word(fates: set[Fate | None], kind: str) -> None:
    conversation = Conversation(asked(), is_decided=True, wanted=[Wanted(LAMP, fate) for fate in fates])
    assert told(conversation)["kind"] == kind


def test_what_nobody_judged_is_said_to_have_failed() -> None:
    questions = Questions()
    conversation, _ = questions.open(asked())
    given_to(questions, conversation, Given(LAMP, held_back="no lease came in time", is_lost=True))
    assert told(conversation)["answer"] == "It failed: kitchen light: on (no lease came in time)."


@pytest.mark.parametrize(("value", "answer"), [
    (float("nan"), "Office temperature: unknown (read 3 s ago)."), (b"jpeg", "Nothing was read of that yet."),
    ({"a": b"jpeg"}, "Nothing was read of that yet."),
    ("x" * 9_999, f"Office temperature: {'x' * 200} °C (read 3 s ago)."),
])  # fmt: skip
def test_a_reading_that_is_no_figure_breaks_no_answer(value: Value, answer: str) -> None:
    questions = Questions()
    conversation, _ = questions.open(asked("how warm is it in the office"))
    questions.decided(conversation, "phrase", understood("how warm is it in the office"))
    view = State({("sensor-office", "Temperature"): value})
    found = reply_of(conversation, HOUSE, view, 4.0, "assistant", lambda site_s: site_s)
    assert found["answer"] == answer
    json.dumps(found, allow_nan=False)


def test_a_question_that_was_decided_on_is_not_decided_on_again() -> None:
    questions = Questions()
    conversation, _ = questions.open(asked())
    assert questions.taken(asked()) is conversation
    questions.decided(conversation, "phrase")
    assert questions.taken(asked()) is None


def given_to(questions: Questions, conversation: Conversation, *given: Given, waits: bool = False) -> None:
    intents = [item.intent for item in given]
    conversation.understood = Act(tuple(intents))
    questions.given(conversation, "phrase", given, intents, {("heat-pump", "Enabled"): waits})


def outcome(status: OutcomeStatus, reason: str = "") -> Outcome:
    return Outcome(
        command_id=CommandId("c"), device="light-kitchen", resource="Switch", status=status, reason=reason,
        read_back="true",
    )  # fmt: skip


def told(conversation: Conversation) -> dict[str, Any]:
    return reply_of(conversation, HOUSE, state(), 4.0, "assistant", lambda site_s: site_s)


@pytest.mark.parametrize("is_early", [False, True])
def test_the_answer_waits_for_the_outcome_and_says_what_is_proven(is_early: bool) -> None:
    questions = Questions()
    conversation, _ = questions.open(asked())
    assert told(conversation)["kind"] == "pending"
    if is_early:
        questions.ended(outcome("proven"))
    given_to(questions, conversation, Given(LAMP, command_id="c"))
    assert conversation.done.is_set() is is_early
    questions.ended(outcome("proven"))
    assert conversation.done.is_set()
    answer = told(conversation)
    assert (answer["kind"], answer["answer"]) == ("done", "Done and proven: kitchen light: on.")
    assert answer["commands"][0] | {"because": ""} == {
        "deviceName": "light-kitchen", "resourceName": "Switch", "value": True, "status": "proven", "reason": "",
        "readBack": "true", "commandId": "c", "because": "",
    }  # fmt: skip


@pytest.mark.parametrize("other", [{"device": "light-office"}, {"resource": "Brightness"}, {"value": "false"}])
@pytest.mark.parametrize("is_early", [False, True])
def test_an_outcome_of_anything_else_proves_nothing(other: dict[str, str], is_early: bool) -> None:
    questions = Questions()
    conversation, _ = questions.open(asked())
    told_of = outcome("proven").model_copy(update={"value": "true", **other})
    if is_early:
        questions.ended(told_of)
    given_to(questions, conversation, Given(LAMP, command_id="c", text="true"))
    if not is_early:
        questions.ended(told_of)
    (command,) = told(conversation)["commands"]
    assert (command["status"], command["readBack"]) == ("uncertain", None)
    assert next(iter(other.values())) in command["reason"]


def test_what_is_not_proven_in_time_is_said_to_be_on_its_way() -> None:
    questions = Questions()
    conversation, _ = questions.open(asked())
    given_to(questions, conversation, Given(LAMP, command_id="c"))
    answer = told(conversation)
    assert (answer["kind"], answer["answer"]) == ("pending", "On its way, not proven yet: kitchen light: on.")


def test_a_refusal_says_why_in_either_language() -> None:
    questions = Questions()
    english, _ = questions.open(asked())
    given_to(questions, english, Given(LAMP, held_back="mode observe"))
    assert told(english)["answer"] == "Not done, refused: kitchen light: on (mode observe)."
    chinese, _ = questions.open(asked("打开厨房的灯", "z"))
    given_to(questions, chinese, Given(LAMP, command_id="c"))
    questions.ended(outcome("failed", "no device"))
    answer = told(chinese)
    assert (answer["kind"], answer["answer"]) == ("failed", "执行失败：厨房灯开着 (no device)。")


def test_what_a_human_must_approve_is_not_waited_for_and_what_is_under_way_is_said_to_be() -> None:
    questions = Questions()
    conversation, _ = questions.open(asked())
    given_to(questions, conversation, Given(PUMP, command_id="c"), waits=True)
    assert conversation.done.is_set()
    assert told(conversation)["answer"] == "Waits for somebody to approve it: heat pump: off."
    second, _ = questions.open(asked(name="second"))
    questions.given(second, "phrase", [], [LAMP], {})
    assert (told(second)["kind"], told(second)["answer"]) == (
        "pending", "The same is under way already: kitchen light: on."
    )  # fmt: skip


def understood(text: str) -> Understood:
    phrase = Phrasebook(HOUSE, asked(text).language).match(text)
    assert phrase is not None
    return understand(phrase, HOUSE, state())


@pytest.mark.parametrize(("text", "kind", "answer"), [
    ("how warm is it in the office", "told", "Office temperature: 18.7 °C (read 3 s ago)."),
    ("书房现在多少度", "told", "书房温度18.7 °C（3秒前读取）。"),
    ("is the kitchen window open", "told", "Kitchen: the window is open (read 3 s ago)."),
    ("are the blinds in the study closed", "told", "Office blind: 60 % open (read 3 s ago)."),
    ("turn on the light", "asked-back", "In which room: bedroom, kitchen, living room, office?"),
    ("开灯", "asked-back", "哪个房间：卧室、厨房、客厅、书房？"),
    ("turn on the heating in the kitchen", "asked-back", "To which value? Say a number, such as 21 degrees."),
    ("set the bedroom to 95 degrees", "refused", "That is out of range: 5–28. Nothing was done."),
])  # fmt: skip
def test_answers_without_a_command(text: str, kind: str, answer: str) -> None:
    questions = Questions()
    conversation, _ = questions.open(asked(text))
    questions.decided(conversation, "phrase", understood(text))
    found = told(conversation)
    assert (found["kind"], found["answer"], found["commands"]) == (kind, answer, [])
    assert conversation.done.is_set()


def test_what_was_not_understood_is_said_with_why_and_what_one_may_say() -> None:
    questions = Questions()
    conversation, _ = questions.open(asked("sing"))
    questions.decided(conversation, "language-model", problem="the language model is away")
    answer = told(conversation)
    assert answer["kind"] == "not-understood"
    assert answer["answer"].startswith("I did not understand that (the language model is away). Nothing was done. Say")


@pytest.mark.parametrize("why", [*TROUBLES.values(), NOT_SURE, SWITCHED_OFF, FAILED_ON_IT, NOT_STORED])
def test_why_nothing_was_done_is_said_in_the_language_of_the_question(why: tuple[str, str]) -> None:
    for text, language in (("sing", 0), ("唱歌", 1)):
        for stage, kind in (("language-model", "not-understood"), (None, "refused")):
            questions = Questions()
            conversation, _ = questions.open(asked(text))
            questions.decided(conversation, cast(Stage | None, stage), problem=why)
            answer = told(conversation)
            assert answer["kind"] == kind
            assert [word in answer["answer"] for word in why] == [language == 0, language == 1]
    assert language_of(why[1]) == "zh"


def test_a_chinese_question_that_is_closed_is_told_so_in_chinese() -> None:
    now_s = [0.0]
    questions = Questions(lambda: now_s[0], patience_s=40.0)
    conversation, _ = questions.open(asked("唱歌"))
    now_s[0] = 41.0
    questions.open(asked(name="next"))
    assert told(conversation)["answer"] == "什么都没有做：40秒内没有作出决定。"
