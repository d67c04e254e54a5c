"""Names as tokens, topics as subjects, and streams that do not overlap."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents import subjects
from edgeagents.errors import InvalidInputError

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
# What NATS takes as a token and every client as a part of a KV key.
SAFE = re.compile(r"[A-Za-z0-9_=-]+")


@given(names)
def test_a_name_becomes_a_safe_token_and_comes_back(name: str) -> None:
    part = subjects.token(name)
    assert SAFE.fullmatch(part)
    assert subjects.name_of(part) == name


@given(names, names)
def test_two_names_never_share_a_token(first: str, second: str) -> None:
    assert (subjects.token(first) == subjects.token(second)) == (first == second)


@given(st.text(max_size=30) | st.from_regex(r"=[A-Za-z0-9_-]{0,12}", fullmatch=True))
def test_only_the_one_spelling_of_a_name_is_a_token(part: str) -> None:
    try:
        name = subjects.name_of(part)
    except InvalidInputError:
        return
    assert subjects.token(name) == part


@pytest.mark.parametrize("part", ["", "=", "=YQ", "=YQ==", "=Y!Q", "a b", "a.b", "é", "*", ">", "=w", "=____"])
def test_what_no_name_is_written_as_is_refused(part: str) -> None:
    with pytest.raises(InvalidInputError):
        subjects.name_of(part)


@pytest.mark.parametrize("name", ["", "lone \ud800 surrogate"])
def test_what_is_no_name_has_no_token(name: str) -> None:
    with pytest.raises(InvalidInputError):
        subjects.token(name)


def test_plain_names_stand_as_they_are() -> None:
    assert subjects.command("gw-1", "heat_pump", "comfort") == "gw-1.commands.heat_pump.comfort"


@given(names, names, names)
def test_a_command_subject_tells_device_and_agent(gateway: str, device: str, agent: str) -> None:
    subject = subjects.command(gateway, device, agent)
    assert subjects.parse_command(subject) == (device, agent)
    assert len(subject.split(".")) == 4


@given(names, names)
def test_the_sender_is_a_token_of_the_subject(gateway: str, agent: str) -> None:
    assert subjects.sender(subjects.session(gateway, agent)) == agent
    assert subjects.sender(subjects.lease(gateway, agent)) == agent


@pytest.mark.parametrize("subject", ["", "gw", "gw.sessions", "gw.sessions.a.b", "gw.commands.d.a", "gw.sessions.=YQ"])
def test_a_sender_is_told_only_by_a_session_or_lease_subject(subject: str) -> None:
    with pytest.raises(InvalidInputError):
        subjects.sender(subject)


@pytest.mark.parametrize("subject", ["", "gw.commands.d", "gw.outcomes.a.d", "gw.commands.d.a.x", "gw.commands.=.a"])
def test_what_is_no_command_subject_is_refused(subject: str) -> None:
    with pytest.raises(InvalidInputError):
        subjects.parse_command(subject)


def matches(pattern: str, subject: str) -> bool:
    """Say whether a NATS filter matches a subject, or overlaps another filter."""
    left, right = pattern.split("."), subject.split(".")
    for one, other in zip(left, right, strict=False):
        if ">" in (one, other):
            return True
        if one != other and "*" not in (one, other):
            return False
    return len(left) == len(right)


@given(names, names, names)
def test_every_subject_of_ours_lies_in_its_filter_and_its_stream(gateway: str, device: str, agent: str) -> None:
    streams = subjects.stream_subjects(gateway)
    for subject, pattern, stream in (
        (subjects.command(gateway, device, agent), subjects.commands(gateway), subjects.COMMANDS_STREAM),
        (subjects.outcome(gateway, agent, device), subjects.outcomes(gateway), subjects.COMMANDS_STREAM),
        (subjects.outcome(gateway, agent, device), subjects.outcomes(gateway, agent), subjects.COMMANDS_STREAM),
        (subjects.audit(gateway, agent, "i1"), subjects.audits(gateway), subjects.AUDIT_STREAM),
        (subjects.session(gateway, agent), subjects.sessions(gateway), None),
        (subjects.lease(gateway, agent), subjects.leases(gateway), None),
        (subjects.trigger(gateway, agent), subjects.trigger(gateway, agent), subjects.TRIGGERS_STREAM),
        (subjects.dead_letter(gateway, agent), subjects.dead_letter(gateway, agent), subjects.DEAD_LETTERS_STREAM),
    ):
        assert matches(pattern, subject)
        holders = [name for name, captured in streams.items() if any(matches(one, subject) for one in captured)]
        assert holders == ([] if stream is None else [stream])


@pytest.mark.parametrize("base", ["edgex", "site/edgex", "my.edgex"])
@pytest.mark.parametrize("gateway", ["gw", "edgex", "edgex.events", "site"])
def test_streams_of_one_gateway_and_of_two_do_not_overlap(gateway: str, base: str) -> None:
    ours = subjects.stream_subjects(gateway, base)
    captured = [(name, one) for name, many in ours.items() for one in many]
    others = [one for name, many in subjects.stream_subjects("other", base).items() for one in many]
    for name, one in captured:
        for other_name, other in captured:
            assert (name, one) == (other_name, other) or not matches(one, other)
        if name != subjects.EVENTS_STREAM:  # EdgeX's own subjects have no gateway: `edgex.>` never crosses a link
            assert not any(matches(one, other) for other in others)


def test_the_events_stream_captures_device_events_and_rules_of_any_base() -> None:
    for base in ("edgex", "site/edgex", "my.edgex"):
        captured = subjects.stream_subjects("gw", base)[subjects.EVENTS_STREAM]
        event = subjects.topic_to_subject(f"{base}/events/device/svc/p.v1/d/r")
        rule = subjects.topic_to_subject(f"{base}/rules/agents")
        assert [any(matches(one, subject) for one in captured) for subject in (event, rule)] == [True, True]


# --- topics --------------------------------------------------------------------------------------

levels = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=" \t\n\v\f\r\0\x7f/+#*>"), min_size=1, max_size=12
)
topics = st.lists(levels, min_size=1, max_size=7).map("/".join)


@given(topics)
def test_a_topic_over_mqtt_comes_back_as_it_was(topic: str) -> None:
    subject = subjects.topic_to_subject(topic)
    assert all(subject.split("."))
    assert subjects.subject_to_topic(subject) == topic


@given(topics.filter(lambda topic: "." not in topic))
def test_a_topic_over_nats_comes_back_as_it_was(topic: str) -> None:
    subject = subjects.topic_to_subject(topic, "nats-core")
    assert subjects.subject_to_topic(subject, "nats-jetstream") == topic


@given(st.text(max_size=40))
def test_any_text_is_a_topic_or_refused_and_a_subject_is_well_formed(text: str) -> None:
    for bus in ("mqtt", "nats-core"):
        try:
            subject = subjects.topic_to_subject(text, bus)
        except InvalidInputError:
            continue
        parts = subject.split(".")
        assert all(parts)
        assert not re.search(r"[ \t\r\n]", subject)
        assert ">" not in parts[:-1]


@pytest.mark.parametrize(
    ("topic", "mqtt", "nats"),
    [
        ("edgex/events/device/s/p.v1/d/r", "edgex.events.device.s.p//v1.d.r", "edgex.events.device.s.p.v1.d.r"),
        ("t/.b/c.", "t.//b.c//", None),
        ("t/..", "t.////", None),
        ("edgex/events/#", "edgex.events.>", "edgex.events.>"),
        ("edgex/+/validate/device", "edgex.*.validate.device", "edgex.*.validate.device"),
        ("edgex/lamp%2Eone/温度", "edgex.lamp%2Eone.温度", "edgex.lamp%2Eone.温度"),
    ],
)
def test_topics_become_the_subjects_that_carry_them(topic: str, mqtt: str, nats: str | None) -> None:
    assert subjects.topic_to_subject(topic) == mqtt
    assert subjects.subject_to_topic(mqtt) == topic
    if nats is None:
        with pytest.raises(InvalidInputError):
            subjects.topic_to_subject(topic, "nats-core")
    else:
        assert subjects.topic_to_subject(topic, "nats-core") == nats


def test_an_empty_level_is_understood_but_not_made() -> None:
    assert subjects.subject_to_topic("a./.b") == "a//b"
    assert subjects.subject_to_topic("/.a") == "/a"
    assert subjects.subject_to_topic("a./") == "a/"


@pytest.mark.parametrize(
    "topic",
    ["", "/", "a//b", "a/", "/a", "a b", "a/\t", "a/*", "a/>", "a/#/b", "a/b#", "a/+b", "a\0b", "a\x7fb", "a\nb"],
)
def test_what_no_subject_can_carry_is_refused_by_its_topic(topic: str) -> None:
    for bus in ("mqtt", "nats-core"):
        with pytest.raises(InvalidInputError, match="topic"):
            subjects.topic_to_subject(topic, bus)


@given(names, names, names, names, st.sampled_from(["acts", "tasks"]))
def test_a_subject_between_gateways_tells_both_and_who_speaks(
    gateway: str, to: str, peer: str, sender: str, family: str
) -> None:
    subject = subjects.between(gateway, family, to, peer, sender)
    assert subjects.parse_between(subject) == (gateway, family, to, peer, sender)
    assert "*" not in subject


@pytest.mark.parametrize(
    "subject", ["north.acts.cool.air", "north.commands.cool.south.air", "north.acts.cool.south.*", "a.acts.b.c.d.e", ""]
)
def test_what_is_no_subject_between_gateways_is_refused(subject: str) -> None:
    with pytest.raises(InvalidInputError):
        subjects.parse_between(subject)


def test_what_a_peer_may_say_names_it_and_never_a_stream_of_ours() -> None:
    said = subjects.said_to("north", "south", ["acts", "tasks", "roster"])
    assert said == ["north.acts.*.south.*", "north.tasks.*.south.*", "south.roster.*"]
    captured = [filter_ for found in subjects.stream_subjects("north").values() for filter_ in found]
    assert not {filter_.split(".")[1] for filter_ in captured} & {filter_.split(".")[1] for filter_ in said}


@given(names, names, names)
def test_who_speaks_among_agents_and_to_whom_are_tokens_of_the_subject(gateway: str, to: str, sender: str) -> None:
    assert subjects.parse_peer(subjects.peer(gateway, "peer-acts", to, sender)) == (to, sender)
    assert subjects.parse_peer(subjects.peer_task(gateway, to, "submit", sender)) == (to, sender)


@pytest.mark.parametrize("subject", [
    "", "gw", "gw.peer-acts.a", "gw.peer-acts.a.b.c", "gw.peer-tasks.a.b", "gw.acts.a.b", "gw.peer-acts.=.b",
    "gw.peer-tasks.a.submit.=YQ",
])  # fmt: skip
def test_what_no_agent_says_to_another_is_refused(subject: str) -> None:
    with pytest.raises(InvalidInputError):
        subjects.parse_peer(subject)
