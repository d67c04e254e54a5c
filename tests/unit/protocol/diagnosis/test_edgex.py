"""Facts of EdgeX -> findings."""

from typing import Any

import pytest

from edgeagents.protocol.diagnosis.edgex import ServiceFacts, core_findings, is_ours, keeper_findings


def keeper(**changes: Any) -> ServiceFacts:
    return ServiceFacts(**{"key": "core-keeper", "url": "http://k", "version": "4.0.2", **changes})


def core(**changes: Any) -> ServiceFacts:
    return ServiceFacts(**{"key": "core-data", "url": "http://d", "version": "4.0.2", "registry": "UP", **changes})


def test_a_sound_keeper_is_ok() -> None:
    assert [finding.level for finding in keeper_findings(keeper(), True)] == ["ok", "ok"]


def test_a_keeper_that_is_away_names_the_settings() -> None:
    first, second = keeper_findings(keeper(state="away", text="no route"), None)
    assert (first.level, second.level) == ("failed", "skipped")
    assert "EDGEX_CONFIG_PROVIDER" in first.remedy


def test_another_service_at_keepers_address_is_named() -> None:
    first, _ = keeper_findings(keeper(state="other", text="core-keeper: core-data answers there"), None)
    assert first.level == "failed"
    assert "core-data answers there" in first.found
    assert "59890" in first.remedy


def test_without_the_common_configuration_the_bootstrapper_is_named() -> None:
    *_, last = keeper_findings(keeper(), False)
    assert last.level == "failed"
    assert "core-common-config-bootstrapper" in last.remedy


def test_secure_mode_is_a_warning() -> None:
    assert [finding.level for finding in keeper_findings(keeper(state="token", text="asks"), None)] == ["warning"]


@pytest.mark.parametrize("version", ["3.1.0", "5.0.0", "v3.2.1", "40.0.0"])
def test_another_major_version_fails_by_name(version: str) -> None:
    _, finding = keeper_findings(keeper(version=version), True)
    assert finding.level == "failed"
    assert version in finding.found
    assert "EdgeX 4" in finding.remedy
    levels = {finding.check: finding.level for finding in core_findings([core(version=version)])[1:]}
    assert levels == {"core-data": "failed"}


@pytest.mark.parametrize("version", ["4.0.2", "v4.1.0", "", "0.0.0", "master"])
def test_ours_and_what_is_built_from_source_is_fine(version: str) -> None:
    assert is_ours(version)


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, "ok", "answers, version 4.0.2"),
        ({"registry": ""}, "failed", "not in keeper's registry"),
        ({"registry": "HALT"}, "failed", "stopped in order"),
        ({"registry": None}, "skipped", "keeper does not say"),
        ({"state": "away", "text": "refused"}, "failed", "refused"),
        ({"state": "other", "text": "nginx"}, "failed", "nginx"),
        ({"state": "token"}, "ok", "secure mode"),
    ],
)
def test_a_core_service_is_told_as_it_is(changes: dict[str, Any], level: str, words: str) -> None:
    finding = core_findings([core(**changes)])[0]
    assert finding.level == level
    assert words in finding.found


def test_clocks_that_agree_are_one_line_and_one_that_does_not_is_named() -> None:
    good = [core(clock_ahead_s=0.4), core(key="core-command", clock_ahead_s=-0.2)]
    assert core_findings(good)[-1].check == "clock of EdgeX"
    bad = core_findings([*good, core(key="core-metadata", clock_ahead_s=90.0)])[-1]
    assert (bad.check, bad.level) == ("clock of core-metadata", "failed")
