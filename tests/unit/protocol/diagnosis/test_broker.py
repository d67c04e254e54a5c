"""Facts of a broker -> findings."""

from collections.abc import Sequence
from typing import Any

import pytest

from edgeagents.model.finding import Finding
from edgeagents.protocol.diagnosis.broker import AccountFacts, BrokerFacts, StreamFacts, broker_findings

EXPECTED = {"commands": ["gw.commands.*.*"], "edgex-events": ["edgex.events.>"]}
STREAMS = {name: StreamFacts(frozenset(subjects), 5) for name, subjects in EXPECTED.items()}


def facts(**changes: Any) -> BrokerFacts:
    return BrokerFacts(**{"url": "nats://b:4222", "user": "owner", "server": "2.15.1", "account": AccountFacts(),
                          "streams": STREAMS, "clock_ahead_s": 0.1, **changes})  # fmt: skip


def found(**changes: Any) -> list[Finding]:
    return broker_findings(facts(**changes), EXPECTED)


def of(findings: Sequence[Finding], check: str) -> Finding:
    [only] = [finding for finding in findings if finding.check == check]
    return only


def test_a_sound_broker_is_ok_throughout() -> None:
    findings = found()
    assert {finding.level for finding in findings} == {"ok"}
    assert [finding.check for finding in findings] == [
        "broker", "credentials", "jetstream", "streams", "clock of broker",
    ]  # fmt: skip


@pytest.mark.parametrize("state", ["away", "no-address"])
def test_a_broker_that_is_away_is_one_failure_and_the_rest_is_skipped(state: str) -> None:
    findings = found(state=state, text="no connection")
    assert [finding.level for finding in findings] == ["failed", "skipped", "skipped", "skipped"]
    assert "EDGEAGENTS_NATS_URL" in findings[0].remedy


def test_refused_credentials_are_told_apart_from_a_broker_that_is_away() -> None:
    findings = found(state="refused", text="the server refused user or password (expired)")
    assert of(findings, "broker").level == "ok"
    assert of(findings, "credentials").level == "failed"
    assert "expired" in of(findings, "credentials").found
    assert "made anew" in of(findings, "credentials").remedy


def test_a_broker_that_asks_nobody_is_a_warning() -> None:
    assert of(found(asks_user=False), "credentials").level == "warning"


def test_without_jetstream_the_remedy_is_the_setting() -> None:
    findings = found(account=None, account_text="no responders", streams={})
    assert of(findings, "jetstream").level == "failed"
    assert "jetstream {" in of(findings, "jetstream").remedy
    assert of(findings, "streams").level == "skipped"


@pytest.mark.parametrize(
    ("stored", "level"), [(50, "ok"), (79, "ok"), (80, "warning"), (95, "failed"), (100, "failed")]
)
def test_a_filling_store_warns_then_fails(stored: int, level: str) -> None:
    assert of(found(account=AccountFacts(stored, 100)), "jetstream").level == level


def test_an_account_that_may_have_no_more_streams_is_a_warning() -> None:
    levels = [item.level for item in found(account=AccountFacts(streams=5, max_streams=5)) if item.check == "jetstream"]
    assert levels == ["ok", "warning"]


def test_streams_that_are_missing_are_named() -> None:
    finding = of(found(streams={"commands": STREAMS["commands"]}), "streams")
    assert (finding.level, finding.found) == ("failed", "not there: edgex-events")
    assert "guard" in finding.remedy


def test_a_stream_that_hears_messages_and_stores_none_is_stuck() -> None:
    stuck = StreamFacts(frozenset(EXPECTED["commands"]), 5, seen=3, grown=0)
    finding = of(found(streams={**STREAMS, "commands": stuck}), "streams")
    assert finding.level == "failed"
    assert "commands is stuck: 3 messages" in finding.found
    assert "restart nats-server" in finding.remedy


@pytest.mark.parametrize(("seen", "grown"), [(0, 0), (3, 3), (3, 1), (0, 2)])
def test_a_stream_that_grows_or_hears_nothing_is_not_stuck(seen: int, grown: int) -> None:
    stream = StreamFacts(frozenset(EXPECTED["commands"]), 5, seen=seen, grown=grown)
    assert of(found(streams={**STREAMS, "commands": stream}), "streams").level == "ok"


def test_a_stream_of_another_gateway_is_named() -> None:
    stream = StreamFacts(frozenset({"other.commands.*.*"}), 5)
    finding = of(found(streams={**STREAMS, "commands": stream}), "streams")
    assert finding.level == "failed"
    assert "other.commands" in finding.found
    assert "--gateway" in finding.remedy


def test_a_stream_that_does_not_answer_is_told() -> None:
    finding = of(found(streams={**STREAMS, "commands": StreamFacts(problem="timeout")}), "streams")
    assert "does not answer: timeout" in finding.found
