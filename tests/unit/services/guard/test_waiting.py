"""What waited in the ledger when the guard was stopped: it goes on in its time, once, and in order; else it ends."""

from typing import Any, cast

import pytest

from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.errors import UnavailableError
from edgeagents.model.message import Cause, Command, CommandId, Epoch, Outcome, OutcomeStatus
from services.guard.ledger import Intent
from services.guard.waiting import MOST_S, forget_unsure, still_due
from tests.unit.services.guard.bus import MemoryBus
from tests.unit.services.guard.rig import SITE_S, Rig

MAY_BE_OUT = ("uncertain", "taken in before state was lost or restored: nobody knows whether it went out")
UNKNOWN = ("expired", "waited while the guard was restarted: age unknown")


def command(name: str, *, value: str = "21", ttl_s: float = 10.0) -> Command:
    """Return a command for the valve."""
    return Command(
        id=CommandId(name), device="valve", resource="Setpoint", value=value, incarnation="i1",
        epoch=Epoch(generation=1, revision=1), ttl_s=ttl_s, cause=Cause(stream="s", sequence=1),
    )  # fmt: skip


class Restart:
    """A ledger with commands that an earlier guard had taken in."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.bus = rig, MemoryBus()

    def took_in(self, name: str, sequence: int, *, ttl_s: float = 10.0, agent: str = "air", value: str = "21") -> None:
        """Have a command received now."""
        until = Intent(deadline_s=self.rig.clocks.now_s + ttl_s, data_site_s=SITE_S)
        sent = command(name, ttl_s=ttl_s, value=value)
        assert self.rig.ledger.receive(sent, agent, sequence, 1.0, until=until)

    def told(self, name: str, sequence: int, status: OutcomeStatus = "proven") -> Outcome:
        """Have the stream hold the outcome of a command of `air` for the valve, and return it."""
        outcome = Outcome(
            command_id=CommandId(name), device="valve", resource="Setpoint", status=status, value="21",
            epoch=Epoch(generation=1, revision=1), sequence=sequence, finished_unix_ns=1,
        )  # fmt: skip
        self.bus.held.append(("gw.outcomes.air.valve", wire.encode(outcome), {}))
        return outcome

    async def starts(self, *, is_lost: bool = False) -> tuple[list[str], dict[str, tuple[str, str]]]:
        """Return the commands that go on, and how others ended."""
        await forget_unsure(cast(Bus, self.bus), self.rig.means, is_lost=is_lost)
        found = await still_due(self.rig.means, self.rig.ledger.unfinished())
        self.jobs = found
        return [str(job.command.id) for job in found], self.rig.told()


@pytest.fixture
def restart(rig: Rig) -> Restart:
    """Nothing waits yet."""
    rig.grant(sequence=1)
    return Restart(rig)


async def test_what_waited_goes_on_in_the_order_of_the_stream_until_its_own_deadline(restart: Restart) -> None:
    restart.took_in("first", 5)
    restart.took_in("brief", 6, ttl_s=2.0)
    restart.took_in("second", 7)
    restart.rig.clocks.now_s += 3
    went_on, told = await restart.starts()
    assert went_on == ["first", "second"]
    assert told == {"brief": ("expired", "deadline passed while the guard was restarted")}
    assert [(job.deadline_s, job.data_site_s) for job in restart.jobs] == [(110.0, SITE_S)] * 2


async def test_carried_out_after_a_restart_it_passes_the_gate_and_expires_in_its_lane_like_any_other(
    restart: Restart,
) -> None:
    rig = restart.rig
    restart.took_in("first", 5, value="21")
    restart.took_in("forbidden", 6, value="99")
    restart.took_in("last", 7, value="22")
    await restart.starts()
    rig.clocks.now_s += 1
    told = await rig.run(*restart.jobs)
    assert {name: status for name, (status, _) in told.items()} == {
        "first": "proven", "forbidden": "refused", "last": "proven",
    }  # fmt: skip
    assert rig.commands.sets == ["first", "last"]


async def test_what_was_received_long_ago_expires_however_long_it_may_live(restart: Restart) -> None:
    restart.took_in("long", 5, ttl_s=3600.0)
    restart.rig.clocks.now_s += MOST_S + 1
    assert await restart.starts() == (
        [],
        {"long": ("expired", "received more than 30 s before the guard was started again")},
    )


async def test_what_may_live_long_goes_out_soon_after_the_restart_or_not_at_all(restart: Restart) -> None:
    restart.took_in("long", 5, ttl_s=3600.0)
    restart.rig.clocks.now_s += 10
    assert await restart.starts() == (["long"], {})
    restart.rig.clocks.now_s += MOST_S
    assert (await restart.rig.run(*restart.jobs))["long"][0] == "expired"


async def test_a_lease_that_has_ended_since_or_is_anothers_by_now_lets_nothing_out(restart: Restart) -> None:
    restart.took_in("waits", 5)
    restart.rig.grant("heat", sequence=9)
    went_on, told = await restart.starts()
    assert (went_on, told["waits"][0], restart.rig.causes()) == ([], "refused", {"waits": "lease"})


async def test_of_another_boot_or_after_a_clock_that_was_set_every_age_is_unknown(
    restart: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    restart.took_in("before", 5)
    restart.rig.ledger.shift(-8.0, 77)  # also when that guard died before it had told how the command ended
    restart.took_in("after", 6)
    assert await restart.starts() == (["after"], {"before": UNKNOWN})
    monkeypatch.setattr("services.guard.ledger._boot_id", lambda: "another boot")
    assert await restart.starts() == ([], {"before": UNKNOWN, "after": UNKNOWN})


async def test_what_waited_for_a_consent_expires(restart: Restart) -> None:
    restart.took_in("asked", 5)
    restart.rig.ledger.enter("air", CommandId("asked"), "waiting", 1.0)
    text = "waited for somebody's consent while the guard was restarted"
    assert await restart.starts() == ([], {"asked": ("expired", text)})


async def test_with_a_ledger_that_is_older_than_the_stream_nothing_goes_out_also_after_a_second_start(
    restart: Restart,
) -> None:
    restart.took_in("first", 5)
    restart.took_in("second", 6)
    restart.told("first", 5)  # by a guard whose ledger was another copy
    await forget_unsure(cast(Bus, restart.bus), restart.rig.means, is_lost=False)
    restart.took_in("new", 7)  # and killed before anything had ended
    restart.bus.held.clear()
    restart.rig.ledger.shift(60.0, 77)  # nor does a clock that is set then make it any more certain
    restart.took_in("newest", 8)
    assert await restart.starts() == (["newest"], {"first": MAY_BE_OUT, "second": MAY_BE_OUT, "new": UNKNOWN})


async def test_after_state_was_lost_or_restored_nobody_knows_whether_what_waited_went_out(
    restart: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    restart.took_in("waits", 5)
    restart.took_in("asked", 6)
    restart.rig.ledger.enter("air", CommandId("asked"), "waiting", 1.0)
    monkeypatch.setattr("services.guard.ledger._boot_id", lambda: "another boot")
    assert await restart.starts(is_lost=True) == ([], {"waits": MAY_BE_OUT, "asked": MAY_BE_OUT})


async def test_a_ledger_that_knows_the_newest_outcome_is_believed_told_or_not(restart: Restart) -> None:
    restart.took_in("ended", 4)
    outcome = restart.told("ended", 4)
    restart.rig.ledger.finish("air", outcome, 1.0)
    restart.took_in("waits", 5)
    assert await restart.starts() == (["waits"], {})


@pytest.mark.parametrize("how", ["away", "garbage"])
async def test_while_the_stream_does_not_tell_nothing_goes_out(restart: Restart, how: str) -> None:
    restart.took_in("waits", 5)
    if how == "garbage":
        restart.bus.held.append(("gw.outcomes.air.valve", b"\xff no outcome", {}))
    else:

        async def away(*_: Any) -> None:
            raise UnavailableError("no answer")

        restart.bus.newest = away  # type: ignore[assignment]
    assert await restart.starts() == ([], {"waits": UNKNOWN})


async def test_what_was_given_before_a_pause_was_lifted_is_refused_and_what_came_after_goes_on(
    restart: Restart,
) -> None:
    restart.took_in("before", 5)
    restart.rig.ledger.resume("all", "")
    restart.rig.ledger.resumed(5)
    restart.took_in("after", 6)
    went_on, told = await restart.starts()
    assert went_on == ["after"]
    assert told == {"before": ("refused", "given before a pause was lifted, and the guard was restarted")}
    assert (await restart.starts())[0] == ["after"], "killed before it went out: the next guard knows the same"


async def test_killed_while_a_pause_was_lifted_all_that_waits_is_refused_and_only_that(restart: Restart) -> None:
    restart.took_in("before", 5)
    restart.rig.ledger.resume("all", "")
    restart.took_in("meanwhile", 6)
    restart.rig.restart()
    restart.took_in("new", 7)
    went_on, told = await restart.starts()
    assert (went_on, sorted(told)) == (["new"], ["before", "meanwhile"])
    assert {status for status, _ in told.values()} == {"refused"}
