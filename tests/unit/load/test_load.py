"""The load test without a gateway: which event is whose, what was lost, which rate was reached, is memory flat."""

import json
import os
from array import array
from pathlib import Path

import pytest

from edgeagents import subjects
from edgeagents.adapters.events import decode_message
from edgeagents.adapters.files import load_agents, load_site
from edgeagents.embedded.tally import Tally
from edgeagents.model.envelope import EventMessage
from services.agent.rules import RuleBook
from tests.bench.events_traffic import event_id
from tests.load.gateway import FIRES_FROM, agent_name, plan_of
from tests.load.machines import inventory
from tests.load.processes import Usage, growing, memory_of, processor_of, usage_of
from tests.load.traffic import SHARE, Machinery, Seen
from tests.load.verdict import decision_ms, limit_of, lost_events, reached, set_ms, shortfall

LINES, MACHINES = 10, 20


def seen_of(count: int, *, first: int = 0, sent_in_s: float = 1.0, read_in_s: float = 1.0) -> Seen:
    """Return so many events, all stored at the place after their number."""
    return Seen(
        array("q", [1_000_000_000 + number for number in range(count)]), array("q", range(1, count + 1)),
        stored=count, first=first, sent_in_s=sent_in_s, read_in_s=read_in_s,
    )  # fmt: skip


def write_journals(folder: Path, machinery: Machinery, numbers: list[int]) -> None:
    """Have every agent's journal name those of the events that are of its line."""
    for line in range(machinery.lines):
        mine = [number for number in numbers if machinery.line(number) == line]
        text = "".join(json.dumps({"kind": "consumed", "id": event_id(number)}) + "\n" for number in mine)
        (folder / f"{agent_name(line)}.jsonl").write_text(text)


def test_the_first_event_of_every_machine_fires_then_one_in_a_hundred() -> None:
    machinery = Machinery(LINES, MACHINES)
    first = {machinery.message(number, 1)[0] for number in range(machinery.first)}
    assert len(first) == LINES * MACHINES
    assert all(machinery.is_marked(number) for number in range(machinery.first))
    later = range(machinery.first, machinery.first + 10 * SHARE)
    assert sum(machinery.is_marked(number) for number in later) == 10
    assert all((machinery.level(number) >= FIRES_FROM) is machinery.is_marked(number) for number in later)


def test_marked_events_come_to_all_machines_in_turn_with_levels_of_their_own() -> None:
    machinery = Machinery(LINES, MACHINES)
    marked = [number for number in range(machinery.first, 200 * SHARE + machinery.first) if number % SHARE == 0]
    assert len({machinery.message(number, 1)[0] for number in marked}) == LINES * MACHINES
    assert len({machinery.level(number) for number in marked}) == len(marked)


def test_an_event_is_what_edgex_publishes_and_its_agent_watches_it(tmp_path: Path) -> None:
    plan, machinery = plan_of(tmp_path, 2, 3), Machinery(2, 3)
    agents, site = load_agents(plan.profiles / "agents"), load_site(plan.profiles / "site.yaml")
    subject, data = machinery.message(5, 42)
    message = decode_message(subjects.subject_to_topic(subject), data, {})
    assert isinstance(message, EventMessage)
    device = next(item for item in inventory(2, 3).devices if item.name == message.event.device_name)
    agent = agents[agent_name(machinery.line(5))]
    assert any(watch.fits(device) for watch in agent.watches)
    assert not any(watch.fits(device) for watch in agents[agent_name(1 - machinery.line(5))].watches)
    assert len(RuleBook(agent, "a file").names) == 3
    assert site.rule_for(device, "Setpoint") is not None


def test_an_event_that_the_stream_holds_and_no_journal_names_is_lost(tmp_path: Path) -> None:
    machinery, seen, result = Machinery(LINES, MACHINES), seen_of(50), Tally()
    seen.sequences[7] = 0  # never stored: it does not count
    write_journals(tmp_path, machinery, [number for number in range(50) if number not in (7, 9)] + [3])
    assert lost_events(result, seen, machinery, tmp_path) == 1
    assert result.lost_events == [f"event 9 (sequence 10) never reached {agent_name(machinery.line(9))}"]


def test_an_event_in_another_agents_journal_is_lost_all_the_same(tmp_path: Path) -> None:
    machinery, result = Machinery(2, 1), Tally()
    (tmp_path / "line0.jsonl").write_text("".join(json.dumps({"id": event_id(n)}) + "\n" for n in range(4)))
    (tmp_path / "line1.jsonl").write_text("")
    lost_events(result, seen_of(4), machinery, tmp_path)
    assert len(result.lost_events) == 2


def test_latencies_are_of_marked_events_after_the_warm_up() -> None:
    machinery, seen = Machinery(1, 2), seen_of(201, first=2)
    seen.decided_ns = {0: 9_000_000_000, 100: 1_005_000_100, 150: 9_000_000_000}
    assert decision_ms(seen, machinery) == [5.0]
    world = [{"correlation": "c", "received_ns": 1_007_000_200, "applied": True},
             {"correlation": "d", "received_ns": 1, "applied": False}]  # fmt: skip
    assert set_ms(seen, machinery, {200: "c", 100: "d", 0: "c"}, world) == [7.0]


@pytest.mark.parametrize(
    ("count", "read_in_s", "held", "limit"),
    [
        (1000, 10.5, {}, ""),
        (1000, 15.0, {}, "agents"),
        (900, 10.5, {}, "publisher"),
        (500, 10.5, {"stream": 4.0, "agents": 1.0}, "stream"),
        (500, 12.0, {"agents": 4.0}, "agents"),
    ],
)
def test_what_held_the_rate_back_is_named(count: int, read_in_s: float, held: dict[str, float], limit: str) -> None:
    seen = seen_of(count, sent_in_s=10.0, read_in_s=read_in_s)
    seen.held_s |= held
    assert limit_of(seen, (100.0, 10.0)) == limit


def test_a_rate_that_was_not_reached_is_said_in_figures() -> None:
    seen = seen_of(500, sent_in_s=10.0, read_in_s=10.0)
    report = {"asked": {"events_per_s": 100.0, "seconds": 10.0}, "reached": reached(seen, (100.0, 10.0))}
    assert shortfall(report) == (
        "100 events/s for 10 s were asked for, 50/s were handled (50/s published, 0 not stored), limited by: publisher"
    )


def test_an_event_that_the_stream_refused_is_a_shortfall() -> None:
    seen = seen_of(1000, sent_in_s=10.0, read_in_s=10.0)
    seen.stored -= 1
    report = {"asked": {"events_per_s": 100.0, "seconds": 10.0}, "reached": reached(seen, (100.0, 10.0))}
    assert "1 not stored), limited by: stream" in shortfall(report)


def samples(sizes_mb: list[float]) -> list[tuple[float, Usage]]:
    """Return a sample a second."""
    return [(float(at), Usage(at / 4, at / 2, int(size * 1e6), 2)) for at, size in enumerate(sizes_mb)]


def test_memory_that_grew_before_the_warm_up_was_over_is_flat() -> None:
    assert growing({"guard": memory_of(samples([10.0, 20.0, 40.0, 60.0, *[60.0] * 8]))}) == []


def test_memory_that_goes_on_growing_is_named() -> None:
    found = growing({"guard": memory_of(samples([10.0 * at for at in range(20)]))})
    assert len(found) == 1
    assert found[0].startswith("guard grew by 80.0 MB")


def test_the_processor_is_a_percentage_of_one_core() -> None:
    assert processor_of(samples([1.0] * 9)) == {"used": 25.0, "waited": 50.0}


def test_usage_is_read_of_a_living_process() -> None:
    own = usage_of(os.getpid())
    assert own.cpu_s > 0
    assert 1_000_000 < own.pss <= own.rss
