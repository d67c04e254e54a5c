"""What is found out from what is new alone is what all rules say of all readings."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.model.agent import AgentDefinition
from edgeagents.model.values import Value
from edgeagents.settings import SiteTime
from services.agent.perception import Twin
from services.agent.rules import RuleBook
from services.agent.wishes import Wishes, is_so

NOON_S = 20_480 * 86_400.0 + 43_200.0


def rule(name: str, when: str, value: Any, resource: str = "S", **given: Any) -> dict[str, Any]:
    """Return a rule that sets the valve."""
    target = {"device": "valve", "resource": resource, "value": value}
    return {"name": name, "given": given, "when": when, "set": target}


RULES = [
    rule("cold", "t < 20.0", 21.0, t="a/T"),
    rule("colder", "t < 18.0 && p", "=t + 4.0", t="a/T", p="a/P"),
    rule("empty", "!p", 15.0, p="a/P"),
    rule("fan", "t > 25.0", True, "F", t="b/T"),
    rule("late", "time.hour >= 13.0", False, "F"),
    rule("rising", "m > 20.0", 1.0, "G", m={"of": "b/T", "over": "1h", "take": "mean"}),
    rule("broken", "size(t) > 1", 2.0, "H", t="b/T"),
]
KEYS = [("a", "T"), ("a", "P"), ("b", "T"), ("valve", "S"), ("valve", "F"), ("valve", "G"), ("valve", "H")]


def an_agent(rules: list[dict[str, Any]]) -> AgentDefinition:
    """Return an agent with some rules."""
    return AgentDefinition.model_validate({"name": "a", "watches": [{"device": "*"}], "rules": rules})


def wants(book: RuleBook, twin: Twin, site_s: float) -> bool:
    """Say by asking everything whether something is to be set, or a rule fails."""
    failed = book.failures.total()
    found = [item for item in book.evaluate(twin, site_s) if not is_so(twin, item)]
    return bool(found) or book.failures.total() > failed


values: st.SearchStrategy[Value] = st.sampled_from([15.0, 17.0, 19.0, 21.0, 26.0, 1.0, True, False, "warm", None])
steps = st.lists(st.tuples(st.sampled_from(KEYS), values, st.sampled_from([0.0, 60.0, 4000.0])), max_size=12)


@given(st.lists(st.sampled_from(RULES), unique_by=lambda item: item["name"], max_size=7), steps)
def test_what_is_new_tells_what_everything_tells(
    rules: list[dict[str, Any]], news: list[tuple[tuple[str, str], Value, float]]
) -> None:
    agent = an_agent(rules)
    book, apart = RuleBook(agent, "a.yaml"), RuleBook(agent, "a.yaml")
    twin, wishes, site_s = Twin(SiteTime(), KEYS, 7200.0), Wishes(book), NOON_S
    assert wishes.any(twin, twin.take_touched(), site_s) == wants(apart, twin, site_s)
    for key, value, after_s in news:
        site_s += after_s
        twin.set_value(key, value, round(site_s * 1e9), site_s)
        found = wishes.any(twin, twin.take_touched(), site_s)
        # A failing rule hides behind an earlier wish that is so, or the other way round: both are to be told.
        assert found == wants(apart, twin, site_s) or (found and book.failures.total() == 0)
    assert book.failures.total() == 0  # counted by whoever asks all rules


def test_where_nothing_is_new_no_rule_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    book = RuleBook(an_agent(RULES[:4]), "a.yaml")
    twin, wishes, asked = Twin(SiteTime(), KEYS, 7200.0), Wishes(book), list[str]()
    tried = book.tried
    monkeypatch.setattr(book, "tried", lambda rule, *rest: (asked.append(rule.name), tried(rule, *rest))[1])
    for key, value in ((("a", "T"), 22.0), (("a", "P"), True), (("b", "T"), 20.0)):
        twin.set_value(key, value, 1, NOON_S)
    assert not wishes.any(twin, twin.take_touched(), NOON_S)
    asked.clear()
    assert not wishes.any(twin, twin.take_touched(), NOON_S + 5)
    assert asked == []
    twin.set_value(("b", "T"), 26.0, 2, NOON_S + 5)
    assert wishes.any(twin, twin.take_touched(), NOON_S + 5)
    assert asked == ["fan"]


def test_what_is_so_already_is_wanted_again_once_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    twin, wishes = Twin(SiteTime(), KEYS, 7200.0), Wishes(RuleBook(an_agent(RULES[:1]), "a.yaml"))
    twin.set_value(("a", "T"), 19.0, 1, NOON_S)
    twin.set_value(("valve", "S"), 21.0, 1, NOON_S)
    assert not wishes.any(twin, twin.take_touched(), NOON_S)
    twin.set_value(("valve", "S"), 16.0, 2, NOON_S)
    assert wishes.any(twin, twin.take_touched(), NOON_S)


def test_a_clock_that_was_set_makes_everything_new() -> None:
    twin = Twin(SiteTime(), KEYS, 7200.0)
    twin.set_value(("a", "T"), 19.0, 1, NOON_S)
    twin.take_touched()
    twin.shift(10**9)
    assert twin.take_touched() == set(KEYS)
