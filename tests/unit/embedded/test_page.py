"""The demo's page as it is printed: what the owner ordered or set by hand is seen at once."""

import io
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from edgeagents.embedded.page import Story, render, told, told_home
from edgeagents.subjects import COORDINATOR

SITE_S = datetime(2026, 1, 14, 7, 12, tzinfo=UTC).timestamp()
WORLD: dict[str, Any] = {
    "site_s": SITE_S,
    "house": {"outdoor": -1.4},
    "rooms": {"living": {"temperature": 20.9, "setpoint": 22.0, "opening": 62.0, "co2": 712.0}},
    "score": {},
}


def printed(guard: dict[str, Any], world: dict[str, Any] | None = None) -> list[str]:
    """Return the page's lines on a terminal of 120 columns."""
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(WORLD if world is None else world, guard, Story(), "Ctrl-C ends it"))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_what_was_set_by_hand_is_shown_until_when_agents_stand_back() -> None:
    overrides = [
        {"deviceName": "radiator-living", "resourceName": "Setpoint", "value": "2.2e+01", "sinceSite": SITE_S,
         "untilSite": SITE_S + 1800, "by": "somebody"},
        {"deviceName": "light-office", "resourceName": "On", "value": "true", "sinceSite": SITE_S,
         "untilSite": SITE_S + 60, "by": "somebody"},
    ]  # fmt: skip
    lines = printed({"overrides": overrides})
    assert "✋ radiator-living/Setpoint set by hand to 22: agents stand back until 07:42" in lines
    assert "✋ light-office/On set by hand to true: agents stand back until 07:13" in lines


def test_pauses_and_modes_by_order_are_shown_with_who_and_why() -> None:
    guard = {
        "paused": [
            {"scope": "all", "name": "", "by": "ann", "reason": ""},
            {"scope": "agent", "name": "air", "by": "bob", "reason": "[b]window cleaning"},
            {"scope": "device", "name": "ventilation", "by": "ann", "reason": "filter"},
        ],
        "modeOrders": [{"agent": "energy", "mode": "observe", "by": "ann", "reason": "on holiday"}],
    }
    lines = printed(guard)
    for line in (
        "⏸ paused: everything, by ann",
        "⏸ paused: agent air, by bob: [b]window cleaning",
        "⏸ paused: device ventilation, by ann: filter",
        "◎ energy is in mode observe, by ann: on holiday",
    ):
        assert line in lines


def test_without_any_word_of_the_owner_no_line_is_spent_on_it() -> None:
    plain = printed({})
    assert printed({"paused": [], "modeOrders": [], "overrides": []}) == plain
    assert not any(sign in line for line in plain for sign in "⏸✋◎")
    assert any("living" in line and "20.9" in line for line in plain)


def test_a_pause_is_shown_also_while_the_world_is_away() -> None:
    lines = printed({"paused": [{"scope": "all", "name": "", "by": "ann", "reason": ""}]}, world={})
    assert "the world is away …" in lines
    assert "⏸ paused: everything, by ann" in lines


def test_tasks_are_shown_with_who_has_them_and_what_others_bid() -> None:
    task = {
        "id": "t", "state": "done", "winner": "comfort", "reason": "proven",
        "task": {"skill": "set", "deviceName": "radiator-living", "resourceName": "Setpoint", "value": "21"},
        "awards": [{"bids": {"energy": 2.0, "comfort": 0.5}}],
    }  # fmt: skip
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(render(WORLD, {}, Story(), "", {"tasks": [task]}))
    (line,) = (line for line in console.export_text().splitlines() if "radiator-living/Setpoint = 21" in line)
    assert "comfort" in line
    assert "bids: comfort 0.50, energy 2.00; proven" in line
    assert "tasks, and who does them" not in "\n".join(printed({}))


def test_settled_conflicts_are_shown_with_what_each_wanted_who_gives_it_and_why() -> None:
    story = Story()
    body: dict[str, Any] = {
        "device": "radiator-office", "resource": "Setpoint", "rung": "nash", "value": "20", "winner": "comfort",
        "because": "dear", "reasons": ["nash: best"],
        "parties": [{"agent": "energy", "said": "bargains", "way": "19"}, {"agent": "air", "said": "gives way"}],
    }  # fmt: skip
    story.take("conflict", {"conflict": "made up"}, "mallory")
    story.take("conflict", body, COORDINATOR)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(WORLD, {}, story, "Ctrl-C ends it"))
    text = console.export_text()
    for words in ("conflicts, and how they were settled", "energy 19, air gives way", "20 by comfort", "dear; nash"):
        assert words in text


def test_without_a_terminal_what_was_done_and_settled_is_a_line_each() -> None:
    command = {
        "status": "refused", "agent": "air", "device": "ventilation", "resource": "Level", "value": "3",
        "reason": "set 60 s ago: wait 60 s more",
    }  # fmt: skip
    assert told("command", command) == "✘ refused  air  ventilation/Level = 3: set 60 s ago: wait 60 s more"
    assert told("command", command | {"status": "proven", "reason": ""}) == "✔ proven  air  ventilation/Level = 3"
    settled: dict[str, Any] = {
        "device": "radiator-office", "resource": "Setpoint", "rung": "lease", "value": "", "winner": "",
        "because": "dear", "reasons": [], "parties": [{"agent": "energy", "said": "not heard"}],
    }  # fmt: skip
    line = "⚖ lease  radiator-office/Setpoint  energy not heard: as it was, dear"
    assert told("conflict", settled, COORDINATOR) == line
    assert told("conflict", settled, "mallory") == "", "how a conflict ended is the coordinator's to say"
    assert told("decision", {"agent": "air", "intents": []}) == "", "a wish alone has done nothing"


def test_without_a_terminal_the_home_is_one_line() -> None:
    assert told_home(WORLD) == "Wed 14 Jan  07:12  outdoors -1.4 °C; living 20.9 °C"
    assert told_home({}) == "the world is away …"
