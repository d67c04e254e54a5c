"""Who may publish and subscribe what, as lists; the real server says in tests/integration whether they are enough."""

import pytest

from edgeagents import subjects
from edgeagents.permissions import (
    STANDBY_KEY,
    agent_user,
    called,
    for_agent,
    for_coordinator,
    for_edgex,
    for_everything,
    for_inference,
    inbox,
)


def matches(pattern: str, subject: str) -> bool:
    """Say whether NATS would match."""
    want, have = pattern.split("."), subject.split(".")
    if want[-1] == ">":
        want, have = want[:-1], have[: len(want) - 1] if len(have) >= len(want) else []
    return len(want) == len(have) and all(a in ("*", b) for a, b in zip(want, have, strict=True))


AIR = for_agent("gw", "air")


def may_publish(subject: str) -> bool:
    return any(matches(item, subject) for item in AIR.publish) and not any(
        matches(item, subject) for item in AIR.deny_publish
    )


@pytest.mark.parametrize(
    "subject",
    [
        subjects.session("gw", "air"),
        subjects.lease("gw", "air"),
        subjects.command("gw", "heat pump", "air"),
        subjects.audit("gw", "air", "i1"),
        subjects.trigger("gw", "air"),
        subjects.dead_letter("gw", "app-agent-air"),
        "edgex.telemetry.app-agent-air.x",
    ],
)
def test_an_agent_publishes_on_its_own_subjects(subject: str) -> None:
    assert may_publish(subject)


@pytest.mark.parametrize(
    "subject",
    [
        subjects.session("gw", "heat"),
        subjects.lease("gw", "heat"),
        subjects.command("gw", "valve", "heat"),
        subjects.command("gw", "valve", subjects.GUARD),
        subjects.audit("gw", "guard", "i1"),
        subjects.outcome("gw", "air", "valve"),
        subjects.trigger("gw", "heat"),
        subjects.session("other", "air"),
        "edgex.core.command.request.valve.Setpoint.set",
        "edgex.device.command.request.svc.valve.Setpoint.set",
        "edgex.events.device.svc.p.d.r",
        "edgex.system-events.core-metadata.device.add.x",
        "edgex.configs.edgex.v4.app-agent-air.Writable",
        "$JS.API.STREAM.DELETE.commands",
        "$JS.API.STREAM.PURGE.commands",
        "$JS.API.STREAM.MSG.GET.commands",
        "$JS.API.STREAM.INFO.commands",
        "$JS.API.DIRECT.GET.commands.gw.commands.valve.air",
        "$JS.API.DIRECT.GET.audit.gw.audit.air.i1",
        "$JS.API.CONSUMER.CREATE.commands.agent-air",
        "$JS.API.CONSUMER.CREATE.commands.agent-air.gw.outcomes.heat.*",
        "$JS.API.CONSUMER.DELETE.commands.guard",
        "$JS.ACK.commands.guard.1.2.3.4.5",
        "_INBOX.agent-heat.x",
        "_INBOX.agent-air.x",
        "$SYS.REQ.SERVER.PING",
    ],
)
def test_and_on_no_others(subject: str) -> None:
    assert not may_publish(subject)


def test_an_agent_hears_its_own_answers_and_edgexs_notices_only() -> None:
    heard = AIR.subscribe
    assert f"{inbox(agent_user('air'))}.>" in heard
    for subject in ("_INBOX.agent-heat.x", "gw.outcomes.heat.valve", "gw.commands.valve.air", "edgex.response.x.y"):
        assert not any(matches(item, subject) for item in heard), subject


def test_nothing_an_agent_may_ask_answers_with_bytes_of_its_own_choice_under_a_subject_of_its_own_choice() -> None:
    # The server asks no permission for a reply subject: see edgeagents/permissions.py.
    assert not [item for item in AIR.publish if "DIRECT" in item or "MSG.GET" in item]


def test_edgexs_services_keep_to_edgexs_subjects() -> None:
    edgex = for_edgex("gw", "site")
    assert any(matches(item, "site.core.command.request.d.r.set") for item in edgex.publish)
    assert not any(matches(item, "gw.commands.valve.air") for item in edgex.publish)
    assert not any(matches(item, "gw.outcomes.air.valve") for item in edgex.subscribe)


@pytest.mark.parametrize("topic_filter", ["edgex/#", "edgex/configs/#"])
def test_edgexs_services_may_subscribe_to_all_there_is_of_edgex_by_mqtt(topic_filter: str) -> None:
    # `#` stands for the level above it as well: nats-server makes two subscriptions of it.
    below = subjects.topic_to_subject(topic_filter)
    hears = for_edgex("gw").subscribe
    assert below in hears
    assert below.removesuffix(".>") in hears


def test_the_guard_and_the_owner_may_everything() -> None:
    assert for_everything().publish == (">",)


def test_an_agent_hears_the_guards_call_and_no_agent_can_hear_or_make_anothers() -> None:
    subject = called("air")
    prefix = inbox(agent_user("air"))
    assert subject.startswith(f"{prefix}.")
    assert f"{prefix}.>" in for_agent("gw", "air").subscribe
    other = for_agent("gw", "heat")
    assert not any(pattern.startswith(("_INBOX.>", prefix)) for pattern in (*other.subscribe, *other.publish))


def test_an_agent_hears_who_asks_what_it_is_and_answers_as_nobody_else() -> None:
    for subject in ("$SRV.PING", "$SRV.INFO.app-agent-air", "$SRV.STATS.app-agent-air.i1"):
        assert any(matches(item, subject) for item in AIR.subscribe), subject
    for subject in ("$SRV.PING.app-agent-heat", "$SRV.PING.app-guard", "$SRV.INFO.app-guard.i1", "$SRV.OTHER"):
        assert not any(matches(item, subject) for item in AIR.subscribe), subject
    assert may_publish("_INBOX.micro.x")
    assert not any(matches(item, "_INBOX.micro.x") for item in AIR.subscribe)


def test_no_subject_that_an_agent_publishes_on_reaches_an_agent() -> None:
    heat = for_agent("gw", "heat")
    for mine in AIR.publish:
        for theirs in (*AIR.subscribe, *heat.subscribe):
            assert not matches(theirs, mine.replace("*", "x").replace(">", "x.y")), (mine, theirs)
            assert not matches(mine, theirs.replace("*", "x").replace(">", "x.y")), (mine, theirs)


def test_an_agent_speaks_to_the_coordinator_in_its_own_name_alone() -> None:
    for subject in (
        subjects.act("gw", "coordinator", "air"), subjects.announcement("gw", "air"), subjects.task_ledger("gw", "air"),
        subjects.task_request("gw", "submit", "air"),
    ):  # fmt: skip
        assert may_publish(subject), subject
        assert not may_publish(subject.removesuffix("air") + "heat"), subject
        assert any(matches(item, subject) for item in for_coordinator("gw").subscribe), subject
    for subject in (subjects.act("gw", "heat", "air"), subjects.act("gw", "heat", "coordinator"),
                    subjects.task_record("gw", "t"), subjects.coordinator("gw")):  # fmt: skip
        assert not may_publish(subject), subject


def test_a_coordinator_commands_nothing_and_speaks_for_nobody_else() -> None:
    publish = for_coordinator("gw").publish
    for subject in (
        subjects.command("gw", "lamp", "air"), subjects.command("gw", "lamp", "guard"), subjects.session("gw", "air"),
        subjects.lease("gw", "air"), subjects.act("gw", "air", "heat"), subjects.task_ledger("gw", "air"),
        subjects.audit("gw", "guard", "i"), "edgex.core.command.x", "$JS.API.STREAM.DELETE.tasks",
        "$JS.API.STREAM.UPDATE.commands", "$JS.API.STREAM.CREATE.tasks", "$JS.API.STREAM.UPDATE.tasks",
        "$JS.API.STREAM.PURGE.commands", "$JS.API.DIRECT.GET.tasks", "$JS.API.CONSUMER.CREATE.commands.coordinator",
    ):  # fmt: skip
        assert not any(matches(item, subject) for item in publish), subject
    assert any(matches(item, subjects.task_record("gw", "t")) for item in publish)
    assert any(matches(item, subjects.act("gw", "air", "coordinator")) for item in publish)
    for subject in ("$JS.API.STREAM.INFO.tasks", "$JS.API.STREAM.PURGE.tasks"):
        assert any(matches(item, subject) for item in publish), subject


def test_the_coordinator_alone_asks_the_guard_in_its_own_name_who_holds_what() -> None:
    asks = subjects.lease("gw", subjects.COORDINATOR)
    assert any(matches(item, asks) for item in for_coordinator("gw").publish)
    for other in (for_agent("gw", "air"), for_inference("gw"), for_edgex("gw")):
        assert not any(matches(item, asks) for item in other.publish)
    assert not any(matches(item, asks) for item in for_coordinator("gw").subscribe)


def test_services_of_edgex_that_answer_are_named_one_by_one() -> None:
    edgex = for_edgex("gw", services=["device-world-home"])
    assert any(matches(item, "$SRV.PING.device-world-home") for item in edgex.subscribe)
    assert not any(matches(item, "$SRV.PING.app-agent-air") for item in edgex.subscribe)


def test_an_agent_asks_the_language_model_by_its_own_name_alone() -> None:
    assert may_publish(subjects.inference("gw", "air"))
    assert not may_publish(subjects.inference("gw", "heat"))
    assert not any(matches(item, subjects.inference("gw", "heat")) for item in AIR.subscribe)


def test_the_language_models_service_hears_questions_and_can_neither_command_nor_ask() -> None:
    model = for_inference("gw")
    assert any(matches(item, subjects.inference("gw", "air")) for item in model.subscribe)
    for subject in ("gw.commands.valve.air", "gw.leases.air", "gw.inference.air", "edgex.core.command.request.d.r.set"):
        assert not any(matches(item, subject) for item in model.publish), subject
    for subject in ("gw.outcomes.air.valve", "gw.sessions.air", "edgex.events.device.s.p.d.r", "_INBOX.agent-air.x"):
        assert not any(matches(item, subject) for item in model.subscribe), subject


def test_an_agent_of_a_linked_gateway_speaks_and_hears_in_its_own_name_alone() -> None:
    found = for_agent("gw", "*", peers=["south"])
    assert set(found.publish) - set(for_agent("gw", "*").publish) == {
        "south.acts.*.gw.=Kg", "south.tasks.*.gw.=Kg",
    }  # fmt: skip
    assert set(found.subscribe) - set(for_agent("gw", "*").subscribe) == {
        "gw.acts.=Kg.south.*", "gw.tasks.=Kg.south.*",
    }  # fmt: skip


def test_an_agent_consents_in_its_own_name_alone_and_only_the_guard_asks_it() -> None:
    assert may_publish(subjects.consent("gw", "air"))
    assert not may_publish(subjects.consent("gw", "heat"))
    for subject in (subjects.consent_request("gw", "air"), subjects.consent_request("gw", "heat")):
        assert not may_publish(subject), subject
        assert not any(matches(item, subject) for item in for_coordinator("gw").publish), subject
        assert not any(matches(item, subject) for item in for_edgex("gw").publish), subject
    assert any(matches(item, subjects.consent_request("gw", "air")) for item in AIR.subscribe)
    assert not any(matches(item, subjects.consent_request("gw", "heat")) for item in AIR.subscribe)
    assert not any(matches(item, subjects.consent("gw", "heat")) for item in AIR.subscribe)


def test_a_standby_has_the_rights_of_an_edgex_service_under_its_own_key() -> None:
    found, key = for_coordinator("gw"), STANDBY_KEY
    for subject in (subjects.dead_letter("gw", key), f"edgex.telemetry.{key}.x"):
        assert any(matches(item, subject) for item in found.publish), subject
    for subject in (f"edgex.configs.edgex.v4.{key}.Writable", f"$SRV.PING.{key}", f"$SRV.INFO.{key}.i1"):
        assert any(matches(item, subject) for item in found.subscribe), subject


def test_a_coordinator_hears_whether_another_one_is_there() -> None:
    assert any(matches(item, subjects.coordinator("gw")) for item in for_coordinator("gw").subscribe)


def reach(publish: tuple[str, ...], subscribe: tuple[str, ...]) -> set[str]:
    """Return the subjects between agents of a gateway that one may write and the other hears."""
    families = ("peer-acts", "peer-answers", "peer-ledger", "peer-ledger-told")
    names = ("air", "heat", "ada")
    every = [subjects.peer("gw", family, to, sender) for family in families for to in names for sender in names]
    every += [subjects.peer_task("gw", name, "submit", "owner") for name in names]
    return {
        subject for subject in every
        if any(matches(item, subject) for item in publish) and any(matches(item, subject) for item in subscribe)
    }  # fmt: skip


def test_only_an_agent_whose_owner_lets_it_lead_speaks_to_others_and_in_its_own_name() -> None:
    ada = for_agent("gw", "ada", leads=True)
    assert reach(ada.publish, AIR.subscribe) == {"gw.peer-acts.air.ada", "gw.peer-ledger-told.air.ada"}
    assert reach(AIR.publish, ada.subscribe) == {"gw.peer-answers.ada.air", "gw.peer-ledger.ada.air"}
    assert reach(AIR.publish, for_agent("gw", "heat").subscribe) == set()
    assert reach(AIR.publish, AIR.subscribe) == set()
    assert not any(matches(item, subjects.peer("gw", "peer-acts", "air", "heat")) for item in ada.publish)


def test_one_that_leads_bids_for_itself_by_the_same_subjects_and_hears_who_is_there() -> None:
    ada = for_agent("gw", "ada", leads=True)
    assert reach(ada.publish, ada.subscribe) == {
        "gw.peer-acts.ada.ada", "gw.peer-answers.ada.ada", "gw.peer-ledger.ada.ada", "gw.peer-ledger-told.ada.ada",
    }  # fmt: skip
    assert any(matches(item, subjects.announcement("gw", "air")) for item in ada.subscribe)
    assert not any(matches(item, subjects.announcement("gw", "heat")) for item in AIR.subscribe)


def test_only_the_owner_asks_an_agent_to_lead_and_no_agent_gets_a_task_meant_for_the_coordinator() -> None:
    ada, asks = for_agent("gw", "ada", leads=True), subjects.peer_task("gw", "ada", "submit", "owner")
    assert any(matches(item, asks) for item in ada.subscribe)
    for other in (AIR, ada, for_coordinator("gw"), for_edgex("gw"), for_inference("gw")):
        assert not any(matches(item, asks) for item in other.publish)
    assert not any(matches(item, subjects.task_request("gw", "submit", "air")) for item in ada.subscribe)
    assert not any(matches(item, subjects.act("gw", "coordinator", "air")) for item in ada.subscribe)
    assert not any(matches(item, subjects.coordinator("gw")) for item in ada.publish)
