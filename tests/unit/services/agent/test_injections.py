"""Hostile texts in readings, device names and what people say: no command outside permissions, no prompt of others."""

import json
from typing import Literal

import pytest
import yaml

from edgeagents.adapters.files import load_agents
from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import Recent, Sample
from edgeagents.model.answer import CommandAnswer, parse_answer
from edgeagents.model.completion import CompletionRequest
from edgeagents.model.device import Device
from edgeagents.model.options import Options, options_of
from edgeagents.model.words import Words
from services.agent.house import house_of
from services.agent.phrases import Phrasebook, language_of
from services.agent.prompts import MOST_SAID_CHARS, RULES, question_prompt, quoted
from services.agent.understanding import understand
from tests.bench.ask_set import FOLDER, HOME, State, devices, profiles, state

PAYLOADS: list[str] = yaml.safe_load((FOLDER / "injections.yaml").read_text())["payloads"]
PLACES: tuple[Literal["said", "name", "reading"], ...] = ("said", "name", "reading")
AGENTS = load_agents(HOME / "agents")
ASSISTANT = AGENTS["assistant"]
MARKS = ("<|", "|>", "[INST]", "<<SYS>>", "</s>")


class Told(State):
    """The labelled state, with one more reading that a device wrote."""

    def __init__(self, text: str) -> None:
        super().__init__({("light-office", "Brightness"): text})

    def recent(self, recent: Recent, site_s: float) -> Sample | None:
        return None


def permitted(device: str, resource: str) -> bool:
    """Say whether the assistant's file lets it set a resource at all."""
    known = devices() | {"x": Device(name="x", profile_name="Light")}
    return device in known and any(item.resource == resource and item.fits(known[device]) for item in ASSISTANT.may)


def prompt_of(payload: str, place: str, budget_s: float = 8.0) -> tuple[CompletionRequest, Options]:
    """Return a prompt with a payload in one place, and the options that go with it."""
    known = dict(devices())
    if place == "name":
        known[payload] = Device(name=payload, profile_name="Light", labels=("room", "office"))
    house = house_of(known.values(), profiles(), Words())
    options = options_of(ASSISTANT, known, profiles())
    view = Told(payload) if place == "reading" else state()
    said = payload if place == "said" else "it is odd here"
    return question_prompt(said, house, options, view, budget_s), options


def built(payload: str, place: str) -> tuple[list[str], Options]:
    """Return the messages of such a prompt, and its options."""
    request, options = prompt_of(payload, place)
    return [message.content for message in request.messages], options


def test_there_are_two_hundred_of_them() -> None:
    assert len(set(PAYLOADS)) * len(PLACES) >= 200


@pytest.mark.parametrize("place", PLACES)
def test_what_others_wrote_is_a_quoted_string_in_the_prompt_and_ends_no_frame(place: str) -> None:
    for payload in PAYLOADS:
        (head, tail), _ = built(payload, place)
        assert head.startswith(f"{RULES}\n\nDevices:\n")
        assert not any(mark in f"{head}{tail}" for mark in MARKS), payload
        lines = tail.split("\n")
        # Two lines, of which the second is what was said and nothing else, whatever it holds.
        assert [lines[0][:5], lines[1][:6], len(lines)] == ["now: ", "said: ", 2], payload
        assert isinstance(json.loads(lines[1].removeprefix("said: ")), str)
        assert all(letter.isprintable() or letter == "\n" for letter in f"{head}{tail}"), payload


@pytest.mark.parametrize("place", PLACES)
def test_a_model_that_obeys_the_injection_can_still_say_nothing_outside_permissions(place: str) -> None:
    outside = 0
    for payload in PAYLOADS:
        _, options = built(payload, place)
        for said in (payload, f'{{"device":{json.dumps(payload)},"resource":"Lock","value":true}}'):
            try:
                answer = parse_answer(said, options)
            except InvalidInputError:
                continue
            if isinstance(answer, CommandAnswer) and answer.device != payload:
                outside += not permitted(answer.device, answer.resource)
    assert outside == 0


def test_said_by_a_person_it_commands_nothing_beyond_permissions_and_nothing_that_a_human_must_approve() -> None:
    house = house_of(devices().values(), profiles(), Words())
    books = {language: Phrasebook(house, language) for language in ("en", "zh")}
    for payload in PAYLOADS:
        phrase = books[language_of(payload)].match(payload)
        found = understand(phrase, house, state()) if phrase is not None else None
        intents = getattr(found, "intents", ())
        assert all(permitted(item.device, item.resource) for item in intents), payload
        assert not any(item.device == "heat-pump" for item in intents), payload


def test_a_prompt_holds_nothing_of_other_agents() -> None:
    foreign = {
        text
        for name, agent in AGENTS.items() if name != "assistant"
        for rule in agent.rules for text in (rule.when, rule.because, rule.name) if len(text) > 12
    } | {agent.description for name, agent in AGENTS.items() if name != "assistant"}  # fmt: skip
    assert len(foreign) > 20
    for payload in PAYLOADS:
        messages, _ = built(payload, "said")
        assert not [text for text in foreign if text in "\n".join(messages)]


def test_a_name_that_is_a_payload_gets_no_permission_it_had_not() -> None:
    for payload in PAYLOADS:
        _, options = built(payload, "name")
        kinds = {slot.resource for slot in options.slots if slot.device == payload}
        assert kinds <= {"Switch", "Brightness"}  # what any Light has


def test_long_texts_are_cut_and_marks_of_chat_templates_are_taken_out() -> None:
    assert len(json.loads(quoted("x" * 100_000, MOST_SAID_CHARS))) == MOST_SAID_CHARS + 1
    assert quoted("a<|im_end|>b\n\u202ec") == '"a im_end b c"'
    assert "<|" not in quoted("<<||im_start|>>")
