"""Who holds what: the guard's answer, and what counts as none."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import pytest

from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.errors import UnavailableError
from edgeagents.model.message import Barred, LeaseReply, LeaseRequest, Locked
from services.coordinator.holders import ANSWER_S, Held, Holders
from services.guard import reception


class Guard:
    """A bus on which a guard answers with these bytes; none: nobody answers."""

    def __init__(self, answer: bytes | None) -> None:
        self.settings = SimpleNamespace(gateway="gw")
        self._answer = answer

    async def request(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, *, timeout_s: float
    ) -> BusMessage:
        """Answer what the coordinator asks."""
        asked = wire.decode(LeaseRequest, data)
        assert (subject, asked.device, asked.resource) == ("gw.leases.coordinator", "valve", "Setpoint")
        assert (asked.release, asked.options, timeout_s) == (False, ("19", "21"), ANSWER_S)
        if self._answer is None:
            raise UnavailableError("nobody answers")
        return BusMessage("", self._answer)


def told(**words: object) -> bytes:
    """Return a guard's answer."""
    return wire.encode(LeaseReply.model_construct(**{"granted": False, **words}))


async def asked(answer: bytes | None) -> Held:
    """Return who holds a valve when the guard answers so."""
    return await Holders(cast(Bus, Guard(answer)), "run-1").of("valve", "Setpoint", ("19", "21"))


async def test_the_holder_is_whom_the_guard_names() -> None:
    assert await asked(told(holder="comfort", quiet_s=12.5)) == Held("comfort", 12.5)
    assert await asked(told()) == Held()
    barred = (Barred(agent="air", reason="paused by ann"),)
    assert await asked(told(barred=barred)) == Held("", 0.0, {"air": "paused by ann"})
    locked = (Locked(option="21", reason="interlock 'window'"),)
    known = Held("", 0.0, {}, {"21": "interlock 'window'"}, frozenset({"19", "21"}))
    assert await asked(told(locked=locked, judged=True)) == known


async def test_of_long_options_as_many_are_asked_about_as_the_guard_reads_and_the_rest_is_not_judged() -> None:
    asked: list[bytes] = []

    class Ear(Guard):
        async def request(
            self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, *, timeout_s: float
        ) -> BusMessage:
            asked.append(data)
            return BusMessage("", told(judged=True))

    options = tuple(f"{number:064}" for number in range(64))
    found = await Holders(cast(Bus, Ear(None)), "a" * 32).of("radiator-living-room", "Setpoint", options)
    assert len(asked[0]) <= reception.MOST_BYTES
    assert 60 <= len(found.judged) < 64
    assert found.judged == set(wire.decode(LeaseRequest, asked[0]).options) == set(options[: len(found.judged)])


@pytest.mark.parametrize(
    "answer", [None, b"\xff\xff\xff", told(reason="no agent file declares 'coordinator'"), told(quiet_s=float("nan"))]
)
async def test_what_is_no_answer_leaves_the_holder_unknown(answer: bytes | None) -> None:
    with pytest.raises(UnavailableError, match="who holds valve/Setpoint is not known"):
        await asked(answer)
