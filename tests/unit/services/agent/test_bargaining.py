"""What options are worth to an agent: its owner's words, computed; what is wrong in the files is said at the start."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeagents.adapters.files import load_agent, load_agents
from edgeagents.errors import ConfigurationError, InvalidInputError
from edgeagents.model.agent import AgentDefinition, Recent, Sample
from edgeagents.model.values import Value
from services.agent.bargaining import Stance, load_bargaining, word_of

HOME = Path(__file__).resolve().parents[4] / "edgex-profiles" / "home"
VALVE = ("valve", "Setpoint")
SITE_S = 8 * 3600.0
PREFERENCES: dict[str, Any] = {
    "agent": "warm", "disagreement": 0.2,
    "parts": [{"of": "warmth", "shape": {"kind": "linear", "points": [[15, 0], [25, 1]]}}],
}  # fmt: skip
OVER: dict[str, Any] = {
    "device": "valve", "resource": "Setpoint", "minimum": 18, "maximum": 20, "step": 1,
    "given": {"t": "sensor/Temperature"}, "brings": {"warmth": "t + 0.5 * (value - t)"},
}  # fmt: skip


class Picture:
    """A view of a few values."""

    def __init__(self, **values: Value) -> None:
        self.values = {("sensor", name): Sample(value, 1, SITE_S) for name, value in values.items()}

    def latest(self, key: tuple[str, str]) -> Sample | None:
        return self.values.get(key)

    def recent(self, recent: Recent, site_s: float) -> Sample | None:
        return None


def files(folder: Path, preferences: dict[str, Any] = PREFERENCES, **over: Any) -> tuple[AgentDefinition, Path]:
    """Write an agent's file and its preferences, and load the first."""
    changed = {name: value for name, value in {**OVER, **over}.items() if value is not None}
    written = {
        "name": "warm", "watches": [{"device": "*"}],
        "negotiates": {"preferences": "warm-preferences.yml", "over": [changed]},
    }  # fmt: skip
    (folder / "warm-preferences.yml").write_text(yaml.safe_dump(preferences))
    path = folder / "warm.yaml"
    path.write_text(yaml.safe_dump(written))
    return load_agent(path), path


def test_each_option_is_worth_what_the_owner_wrote(tmp_path: Path) -> None:
    bargaining = load_bargaining(*files(tmp_path))
    assert bargaining is not None
    said = bargaining.appraisal(
        VALVE, ("17", "18", "20"), Stance("20", "17", 30.0), Picture(Temperature=19.0), SITE_S
    )  # fmt: skip
    assert {item.option: item.utility for item in said.worths} == pytest.approx({"17": 0.3, "18": 0.35, "20": 0.45})
    assert (said.way, said.holds, said.quiet_s, said.present, said.disagreement) == ("20", True, 30.0, "17", 0.2)


def test_who_wants_what_is_no_option_would_have_the_best_of_them(tmp_path: Path) -> None:
    bargaining = load_bargaining(*files(tmp_path))
    assert bargaining is not None
    said = bargaining.appraisal(VALVE, ("18", "19"), Stance("25", "24"), Picture(Temperature=19.0), SITE_S)
    assert (said.way, said.holds, said.present) == ("19", False, "")


def test_what_it_asks_about_is_how_things_are_what_it_wants_and_what_it_could_live_with(tmp_path: Path) -> None:
    bargaining = load_bargaining(*files(tmp_path))
    assert bargaining is not None
    assert bargaining.options(VALVE, Stance("20", "15.5")) == ("15.5", "20", "18", "19")


@pytest.mark.parametrize("values", [{}, {"Temperature": "warm"}, {"Temperature": float("nan")}])
def test_without_a_reading_or_with_one_that_is_none_it_says_so(tmp_path: Path, values: dict[str, Value]) -> None:
    bargaining = load_bargaining(*files(tmp_path))
    assert bargaining is not None
    with pytest.raises(InvalidInputError, match="warmth with '18'"):
        bargaining.worth(VALVE, "18", Picture(**values), SITE_S)


def test_what_it_does_not_negotiate_about_is_refused_by_name(tmp_path: Path) -> None:
    bargaining = load_bargaining(*files(tmp_path))
    assert bargaining is not None
    with pytest.raises(InvalidInputError, match="lamp/Switch is nothing that is negotiated about here"):
        bargaining.worth(("lamp", "Switch"), "true", Picture(), SITE_S)


@pytest.mark.parametrize(
    ("over", "complaint"),
    [
        ({"step": 0}, "step"),
        ({"step": 0.001}, "33 options: 2 to 32"),
        ({"maximum": 17}, "0 options: 2 to 32"),
        ({"values": ["18"]}, "give either values, or minimum, maximum and step"),
        ({"maximum": None}, "a range needs minimum, maximum and step"),
        ({"minimum": None, "maximum": None, "step": None, "values": ["a b", "c"]}, "option 'a b' cannot be told"),
        ({"given": {"value": "sensor/Temperature"}}, "`value` stands for the option"),
        ({"brings": {}}, "brings"),
        ({"given": {"t": {"of": "sensor/Temperature", "over": "14d", "take": "usual"}}}, "`take: usual` is for rules"),
    ],
)
def test_contradictory_concessions_are_refused_with_field_and_remedy(
    tmp_path: Path, over: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as raised:
        files(tmp_path, **over)
    assert "negotiates.over[0]" in str(raised.value)


@pytest.mark.parametrize(
    ("preferences", "over", "complaint"),
    [
        ({"agent": "other"}, {}, "those are of agent 'other'"),
        ({}, {"brings": {"cost": "value"}}, "the preferences look at 'warmth'"),
        ({}, {"brings": {"warmth": "value", "cost": "value"}}, "the preferences do not look at 'cost'"),
        ({}, {"brings": {"warmth": "value +"}}, "over: rules.0. 'brings-0-0': set.value"),
        ({"disagreement": 1.5}, {}, "disagreement"),
        ({"parts": PREFERENCES["parts"] * 2}, {}, "two opinions of one quantity"),
    ],
)
def test_preferences_that_do_not_fit_are_refused_when_the_agent_starts(
    tmp_path: Path, preferences: dict[str, Any], over: dict[str, Any], complaint: str
) -> None:
    agent, path = files(tmp_path, {**PREFERENCES, **preferences}, **over)
    with pytest.raises(ConfigurationError, match=complaint):
        load_bargaining(agent, path)


def test_a_preferences_file_that_is_missing_is_named(tmp_path: Path) -> None:
    agent, path = files(tmp_path)
    (tmp_path / "warm-preferences.yml").unlink()
    with pytest.raises(ConfigurationError, match=r"warm-preferences.yml.*does the file exist"):
        load_bargaining(agent, path)


def test_an_agent_that_says_nothing_of_it_does_not_negotiate(tmp_path: Path) -> None:
    agent, path = files(tmp_path)
    assert load_bargaining(agent.model_copy(update={"negotiates": None}), path) is None


@pytest.mark.parametrize(
    ("value", "word"),
    [(22.0, "22"), (20.1000003815, "20.1"), (True, "true"), ("auto", "auto"), ("a b", ""), (None, "")],
)
def test_a_value_is_one_word_or_none(value: Value, word: str) -> None:
    assert word_of(value) == word


@pytest.mark.parametrize("name", ["air", "comfort", "energy"])
def test_the_shipped_agents_bargain_about_what_they_may_command(name: str) -> None:
    agent = load_agents(HOME / "agents")[name]
    bargaining = load_bargaining(agent, HOME / "agents" / f"{name}.yaml")
    assert bargaining is not None
    assert {resource for _, resource in bargaining.terms} <= {entry.resource for entry in agent.may}


def test_no_more_options_are_asked_about_than_are_looked_at(tmp_path: Path) -> None:
    bargaining = load_bargaining(*files(tmp_path, minimum=1, maximum=32))
    assert bargaining is not None
    found = bargaining.options(VALVE, Stance("40", "15.5"))
    assert (len(found), found[:3]) == (32, ("15.5", "40", "1"))
