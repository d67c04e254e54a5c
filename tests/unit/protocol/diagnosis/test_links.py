"""Links to other gateways -> findings."""

from edgeagents.model.gateways import Gateways
from edgeagents.protocol.diagnosis.links import CopyFacts, LinkFacts, LinksFacts, link_findings

HERE = {"host": "127.0.0.1"}
TWO = Gateways.model_validate(
    {
        "gateway": "north",
        "listen": HERE,
        "peers": {"south": {}, "hub": {"address": "tls://hub:7422", "password_file": "p"}},
    }
)


def test_a_gateway_without_peers_has_nothing_to_tell() -> None:
    assert link_findings(LinksFacts()) == []


def test_a_link_that_is_up_is_ok_and_one_that_is_down_names_what_to_look_at() -> None:
    south, hub = link_findings(LinksFacts(TWO, links={"hub": LinkFacts("1.5ms", 3, 4)}))
    assert (south.level, hub.level) == ("warning", "ok")
    assert "peer-south.password" in south.remedy
    assert "round trip 1.5ms, 3 messages came and 4 went" in hub.found
    _, hub = link_findings(LinksFacts(TWO, links={"south": LinkFacts()}))
    assert "does tls://hub:7422 answer" in hub.remedy


def test_a_wrong_file_and_a_broker_that_knows_of_no_peers_fail() -> None:
    assert [(found.check, found.level) for found in link_findings(LinksFacts(problem="gateways.yaml: x"))] == [
        ("gateways.yaml", "failed")
    ]
    [found] = link_findings(LinksFacts(TWO, silent="nobody answers"))
    assert (found.level, found.found) == ("failed", "nobody answers")
    assert "gateways.yaml" in found.remedy


def test_copies_that_lag_or_fail_warn() -> None:
    copies = {"a": CopyFacts(5, 0), "b": CopyFacts(5, 5_000), "c": CopyFacts(problem="no consumer")}
    facts = LinksFacts(TWO, links={"south": LinkFacts(), "hub": LinkFacts()}, copies=copies)
    assert [found.level for found in link_findings(facts)] == ["ok", "ok", "ok", "warning", "warning"]


def test_passwords_that_travel_in_the_clear_are_told_and_those_on_loopback_are_not() -> None:
    opened = TWO.model_dump() | {
        "listen": {"host": "0.0.0.0"},
        "peers": {"hub": {"address": "nats-leaf://hub:7422", "password_file": "p"}},
    }
    facts = LinksFacts(Gateways.model_validate(opened), links={"hub": LinkFacts()})
    assert [(found.check, found.level) for found in link_findings(facts)] == [
        ("link to hub", "ok"), ("links", "warning"), ("links", "warning"),
    ]  # fmt: skip
