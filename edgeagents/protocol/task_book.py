"""All tasks that somebody leads, and what is done about each: a shell-less engine around `contract_net`, `task_ledger`.

An event goes in; what comes out is the record to be stored, and what may be told once it is. The ledger is a part of
the record, so an award and the state that knows of it are one write. No network and no clock here: `now_s` is the
ledger's own clock; the coordinator's, which stores its tasks, goes on over restarts, an agent's that leads does not.

Source: design.md section 5; docs/decisions/0017 and 0026.
"""

import json
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from edgeagents.errors import ConflictError, NotFoundError, TooLargeError, TooManyAttemptsError
from edgeagents.model.cooperation import CallForProposals, Param
from edgeagents.model.task import MOST_TASK_BYTES, TaskWanted
from edgeagents.protocol import contract_net, task_ledger
from edgeagents.protocol.contract_net import AskLedger, LedgerSaid
from edgeagents.protocol.conversation import Recovered, Refuse, Save, Tell, Tick, act, is_over
from edgeagents.protocol.effects import StartTimer
from edgeagents.protocol.sealed_bids import Terms
from edgeagents.protocol.task_ledger import (
    ENDED,
    CancelTask,
    CloseTask,
    Entry,
    LedgerAnswer,
    LedgerRequest,
    ReadTask,
    TaskLedger,
)
from edgeagents.protocol.task_record import AwardNote, Record, bounded
from edgeagents.subjects import COORDINATOR

GRACE_S: Final = 0.5  # between a task's deadline and its end in the ledger: a report that is on its way still counts
NOBODY_AGAIN_S: Final = 0.5  # until it is looked again whether somebody is there
LONGEST_BID_S: Final = 60.0
HEARING_S: Final = 2.0  # until what came in while we did not run has been heard
MOST_PAUSE_S: Final = 30.0  # between two rounds of calls in vain; the first pause is 1 s, each twice as long
MOST_OF_ONE: Final = 0.5  # so much of all places one giver may hold: the others' tasks are taken in still
Event: TypeAlias = contract_net.Event


@dataclass(frozen=True, slots=True)
class Times:
    """How long things may take, seconds; a task's own deadline cuts them."""

    bid_s: float = 1.0
    take_s: float = 5.0


@dataclass(slots=True)
class Turn:
    """What followed from an event.

    Args:
        record: the task as it is now.
        tells: acts to be sent once the record is stored.
        refusals: what was not listened to.
        due_s: when to look again, on the ledger's clock.
        is_changed: whether the record has to be stored.
        answer: what the ledger said, where it was asked.
        awarded: the award that was made just now.
    """

    record: Record
    tells: list[Tell] = field(default_factory=list)
    refusals: list[Refuse] = field(default_factory=list)
    due_s: list[float] = field(default_factory=list)
    is_changed: bool = False
    answer: LedgerAnswer | None = None
    awarded: AwardNote | None = None
    has_ended: bool = False


class Book:
    """The tasks that are under way, and those that ended lately."""

    def __init__(
        self, times: Times, most_open: int = task_ledger.MOST_TASKS, most_ended: int = 10_000,
        initiator: str = COORDINATOR,
    ) -> None:  # fmt: skip
        """Begin empty; `restored` takes in what was stored. `initiator` is who leads, by its subjects."""
        self._times = times
        self._initiator = initiator
        self._most_open, self._most_ended = most_open, most_ended
        self.open: dict[str, Record] = {}
        self.ended: OrderedDict[str, Record] = OrderedDict()
        self.evicted: list[str] = []  # remembered here no more: whoever stores them may drop them
        self._held: Counter[str] = Counter()

    def record(self, task: str) -> Record:
        """Return a task's record.

        Raises:
            NotFoundError: no such task is known (any more).
        """
        found = self.open.get(task) or self.ended.get(task)
        if found is None:
            raise NotFoundError(f"no task {task!r} is known here: it was never taken in, or ended long ago")
        return found

    def all(self) -> Iterable[Record]:
        """Return all records, those that ended first."""
        return (*self.ended.values(), *self.open.values())

    def restored(self, records: Iterable[Record]) -> None:
        """Take in what was stored before this start."""
        for record in sorted(records, key=lambda item: item.changed_unix_ns):
            self._keep(record)

    def accept(self, task: str, wanted: TaskWanted, giver: str, now_s: float, unix_ns: int) -> tuple[Record, bool]:
        """Return the record of a task and whether it is new; the same task given again by the same giver is one.

        Raises:
            ConflictError: the id is taken by another task.
            TooLargeError: it is too long.
            TooManyAttemptsError: too many are under way, of all or of this giver.
        """
        text = json.dumps(wanted.model_dump(mode="json", by_alias=True) | {"id": task}, sort_keys=True)
        known = self.open.get(task) or self.ended.get(task)
        if known is not None:
            if (known.wanted, known.giver) == (text, giver):
                return known, False
            raise ConflictError(f"task id {task!r} is taken by another task, of {known.giver!r}: choose a new one")
        if len(text) > MOST_TASK_BYTES:
            raise TooLargeError(f"a task of {len(text)} bytes: at most {MOST_TASK_BYTES}")
        if len(self.open) >= self._most_open:
            raise TooManyAttemptsError(f"{self._most_open} tasks are under way already: cancel some, or wait", 5.0)
        most = max(1, int(self._most_open * MOST_OF_ONE))
        if self._held[giver] >= most:
            raise TooManyAttemptsError(f"{most} tasks of {giver!r} are under way already: cancel some, or wait", 5.0)
        deadline_s = now_s + wanted.deadline_s
        call = CallForProposals(
            task=task, skill=wanted.skill, device=wanted.device_name, resource=wanted.resource_name,
            value=wanted.value, params=tuple(Param(name=name, value=item) for name, item in wanted.params.items()),
            accepted_unix_ns=unix_ns,
        )  # fmt: skip
        bid_s = min(self._times.bid_s, max(0.05, wanted.deadline_s / 3))
        # A third each for bids and for who wins and lets it pass: then there is time for the next.
        take_s = min(self._times.take_s, wanted.deadline_s / 3)
        terms = Terms(call, (), bid_s, take_s, deadline_s, wanted.reserve)
        entry = Entry(task, initiator=self._initiator, over_s=deadline_s + GRACE_S)
        record = Record(task, text, giver, entry, contract_net.Planned(terms), unix_ns, unix_ns, now_s)
        self._keep(record)
        return record, True

    def begin(self, record: Record, invited: tuple[str, ...], now_s: float, unix_ns: int) -> Turn:
        """Call for proposals; while nobody is there to be asked, say when to look again."""
        net = record.net
        if not isinstance(net, contract_net.Planned):
            return Turn(record)
        deadline_s = net.terms.deadline_s
        if now_s < min(record.again_s, deadline_s):
            return Turn(record, due_s=[min(record.again_s, deadline_s)])
        if not invited and record.asked and now_s < deadline_s:
            # All that are there were asked in this round: after a pause they are asked anew.
            pause_s = min(2.0**record.rounds, MOST_PAUSE_S)
            again_s = min(now_s + pause_s, deadline_s)
            record = replace(record, asked=frozenset(), rounds=record.rounds + 1, again_s=again_s)
            self._keep(record)
            return Turn(record, due_s=[again_s])
        if not invited and now_s < deadline_s:
            return Turn(record, due_s=[min(now_s + NOBODY_AGAIN_S, deadline_s)])
        terms = replace(net.terms, invited=invited)
        record = replace(record, net=contract_net.Planned(terms))
        turn = self._run(record, contract_net.Begin(now_s, record.entry.epoch), now_s, unix_ns)
        turn.due_s.append(record.entry.over_s + 0.01)
        if isinstance(turn.record.net, contract_net.Closed) and not turn.record.ended:  # it never began
            close = CloseTask(record.task, record.entry.epoch, "", "failed")
            return self._asked(turn, close, now_s, self._initiator, unix_ns)
        return turn

    def handle(self, task: str, event: Event, now_s: float, unix_ns: int) -> Turn:
        """Return what follows from an event of a task.

        Raises:
            NotFoundError: no such task is known.
        """
        return self._run(self.record(task), event, now_s, unix_ns)

    def look(self, task: str, now_s: float, unix_ns: int) -> Turn:
        """Return what time has made of a task: ticks for its contract net, and its end once its time is over."""
        record = self.record(task)
        if _is_silence(record.net, now_s):
            # As after a restart: all are called again under the same epoch, so that bids on their way count, too.
            return self._run(replace(record, net=_patient(record.net)), Recovered(now_s), now_s, unix_ns)
        turn = self._run(record, Tick(now_s), now_s, unix_ns)
        return turn if turn.has_ended else self._asked(turn, ReadTask(task), now_s, self._initiator, unix_ns)

    def ask(self, task: str, request: LedgerRequest, now_s: float, sender: str, unix_ns: int, reason: str = "") -> Turn:
        """Return what the ledger says to an agent, or the owner, and what follows from that.

        Args:
            task: which one.
            request: what is asked.
            now_s: the ledger's clock.
            sender: who asks, proven by the subject.
            unix_ns: wall clock, for people.
            reason: why it is ended, for people.

        Raises:
            NotFoundError: no such task is known.
        """
        return self._asked(Turn(self.record(task)), request, now_s, sender, unix_ns, reason)

    def cancel(self, task: str, reason: str, now_s: float, unix_ns: int, word: str = "cancelled") -> Turn:
        """End a task by the owner's hand, whoever has it, and tell those who were asked.

        Raises:
            NotFoundError: no such task is known.
            ConflictError: it has ended already.
        """
        record = self.record(task)
        if record.ended:
            raise ConflictError(f"task {task!r} is {record.ended} already")
        asked = _asked_agents(record.net)
        turn = Turn(replace(record, ended=word, reason=reason), is_changed=True)
        turn = self._asked(turn, CancelTask(task), now_s, task_ledger.OWNER, unix_ns, reason)
        told = act("cancel", task, reason=reason[:2000])
        turn.tells += [Tell(agent, told) for agent in sorted(asked)]
        return turn

    def _asked(
        self, turn: Turn, request: LedgerRequest, now_s: float, sender: str, unix_ns: int, reason: str = ""
    ) -> Turn:
        record, answer = _stepped(turn.record, request, now_s, sender)
        if reason and not answer.problem and record.entry.status in ENDED and not record.reason:
            record = replace(record, reason=reason)
        turn.is_changed |= record.entry != turn.record.entry
        turn.record = record
        after = self._run(record, LedgerSaid(answer, now_s), now_s, unix_ns, turn)
        after.answer = answer
        return after

    def _run(self, record: Record, event: Event, now_s: float, unix_ns: int, turn: Turn | None = None) -> Turn:
        """Drive the contract net until nothing is left to do; what goes to the ledger is answered here."""
        turn = turn if turn is not None else Turn(record)
        before = record.net
        events = deque([event])
        while events:
            net, effects = contract_net.step(record.net, events.popleft())
            if _may_be_placed_yet(record, net, now_s):
                record = _planned_again(record, net)
                turn.is_changed = True
                turn.due_s.append(now_s)
                continue
            record = bounded(replace(record, net=net))
            for effect in effects:
                match effect:
                    case Tell():
                        turn.tells.append(effect)
                    case Refuse():
                        turn.refusals.append(effect)
                    case StartTimer(after_s):
                        turn.due_s.append(now_s + after_s)
                    case Save():
                        turn.is_changed = True
                    case AskLedger(request):
                        entry = record.entry
                        record, answer = _stepped(record, request, now_s, self._initiator)
                        turn.is_changed |= record.entry != entry
                        events.append(LedgerSaid(answer, now_s))
        turn.record = self._noted(turn, record, before, now_s, unix_ns)
        self._keep(turn.record)
        return turn

    def _noted(self, turn: Turn, record: Record, before: contract_net.State, now_s: float, unix_ns: int) -> Record:
        """Return the record with what people will want to know: awards, the end, when."""
        net, entry = record.net, record.entry
        if isinstance(net, contract_net.Awarded) and (not record.awards or record.awards[-1].epoch < net.epoch):
            note = AwardNote(net.epoch, net.winner, net.price, dict(net.bidding.bids), unix_ns)
            record, turn.awarded = replace(record, awards=(*record.awards, note)), note
        was_open = record.task in self.open and not self.open[record.task].ended
        if entry.status in ENDED:
            reason = record.reason or _end_reason(record)
            record = replace(record, ended=record.ended or entry.status, reason=reason)
            turn.has_ended = was_open
        if turn.is_changed or type(before) is not type(net):
            record = replace(record, changed_unix_ns=unix_ns, changed_s=now_s)
        return record

    def _keep(self, record: Record) -> None:
        before = self.open.pop(record.task, None)
        if before is not None:
            self._held[before.giver] -= 1
        if record.ended and record.entry.status in ENDED:
            self.ended[record.task] = record
            while len(self.ended) > self._most_ended:
                self.evicted.append(self.ended.popitem(last=False)[0])
        else:
            self.open[record.task] = record
            self._held[record.giver] += 1
        if not self._held[record.giver]:
            del self._held[record.giver]

    def overslept(self, task: str, slept_s: float, now_s: float, unix_ns: int) -> Turn:
        """Return what is to be done after we did not run for a while: as after a restart, with that time given back.

        Only we may award it to another, and we have not: so the award lasts as much longer as nobody could take it.
        """
        record = self.record(task)
        net, entry = record.net, record.entry
        if isinstance(net, contract_net.Awarded) and entry.status == "awarded":
            until_s = min(max(net.until_s, entry.until_s) + slept_s, net.bidding.terms.deadline_s)
            net, entry = replace(net, until_s=until_s), replace(entry, until_s=until_s)
            self._keep(replace(record, net=net, entry=entry))
        elif entry.status == "taken":  # its report may have come in time, and waits to be heard
            over_s = max(entry.over_s, min(entry.over_s + slept_s, now_s + HEARING_S))
            self._keep(replace(record, entry=replace(entry, over_s=over_s)))
        return self.recover(task, now_s, unix_ns)

    def recover(self, task: str, now_s: float, unix_ns: int) -> Turn:
        """Return what is to be done about a task after a restart: the protocol's own `Recovered`, ledger first."""
        record = self.record(task)
        if isinstance(record.net, contract_net.Planned):
            return Turn(record, due_s=[now_s])
        turn = self._run(record, Recovered(now_s), now_s, unix_ns)
        turn.due_s.append(record.entry.over_s + 0.01)
        return turn


def _stepped(record: Record, request: LedgerRequest, now_s: float, sender: str) -> tuple[Record, LedgerAnswer]:
    """Ask the ledger of one task: a ledger of many would be copied with each change."""
    ledger = TaskLedger({record.task: record.entry})
    after, answer = task_ledger.step(ledger, request, now_s, sender)
    return replace(record, entry=after.of(record.task)), answer


def _is_silence(net: contract_net.State, now_s: float) -> bool:
    """Say whether bids are over without any, somebody has not answered at all, and there is time to call again."""
    if not isinstance(net, contract_net.Calling) or net.bids or len(net.refused) >= len(net.asked):
        return False
    return is_over(now_s, net.until_s) and now_s + net.terms.bid_s < net.terms.deadline_s


def _patient(net: contract_net.State) -> contract_net.State:
    """Return the state of a call with twice the time for bids: those who are slow would always come too late."""
    if not isinstance(net, contract_net.Calling):
        return net
    return replace(net, terms=replace(net.terms, bid_s=min(2 * net.terms.bid_s, LONGEST_BID_S)))


def _asked_agents(net: contract_net.State) -> frozenset[str]:
    match net:
        case contract_net.Calling(asked=asked):
            return asked
        case contract_net.Awarding() | contract_net.Awarded() | contract_net.Working():
            return net.bidding.asked
        case _:
            return frozenset()


def _may_be_placed_yet(record: Record, net: contract_net.State, now_s: float) -> bool:
    """Say whether a call that found nobody may be made again: there is time, and the ledger has not ended the task."""
    return (
        isinstance(net, contract_net.Closed) and net.status == "unplaced" and not record.ended
        and isinstance(record.net, contract_net.Calling | contract_net.Awarding | contract_net.Awarded)
        and record.entry.status == "open"
        and now_s + record.net_terms.bid_s < record.net_terms.deadline_s
    )  # fmt: skip


def _planned_again(record: Record, net: contract_net.State) -> Record:
    """Return a record whose task is to be called for again, first from those that were not asked yet."""
    assert isinstance(net, contract_net.Closed)
    terms = record.net_terms
    asked, earlier = record.asked | frozenset(terms.invited), (*record.earlier, *net.reasons)
    terms = replace(terms, invited=())
    return bounded(replace(record, net=contract_net.Planned(terms), asked=asked, earlier=earlier))


def _end_reason(record: Record) -> str:
    net = record.net
    if isinstance(net, contract_net.Closed) and net.reasons:
        last = f"; before: {record.earlier[-1]}" if record.earlier else ""
        return f"{net.reasons[-1]}{last}"
    return "its time was over before it was done"
