"""The book: what follows from an event of a task, with the ledger's clock given."""

from collections.abc import Mapping

import pytest

from edgeagents.errors import ConflictError, MalformedMessageError, NotFoundError, TooLargeError, TooManyAttemptsError
from edgeagents.model.cooperation import Act, Bid
from edgeagents.model.task import TaskRef, TaskWanted
from edgeagents.protocol import contract_net
from edgeagents.protocol.conversation import Heard, act
from edgeagents.protocol.explanation import award_body, end_body
from edgeagents.protocol.roster import Run
from edgeagents.protocol.task_award import Standing, award_problem, standing_of
from edgeagents.protocol.task_book import GRACE_S, Book, Times, Turn
from edgeagents.protocol.task_ledger import CloseTask, ReadTask, TakeTask
from edgeagents.protocol.task_record import Record, from_bytes, shown, to_bytes

WANTED = TaskWanted(skill="set", device_name="valve", resource_name="Setpoint", value="21", deadline_s=30.0)
AGENTS = ("ada", "bob")


def given(book: Book, task: str = "t", wanted: TaskWanted = WANTED, now_s: float = 100.0) -> Turn:
    """Take a task in and call for proposals."""
    record, is_new = book.accept(task, wanted, "http", now_s, 1)
    assert is_new
    return book.begin(record, AGENTS, now_s, 1)


def bids(book: Book, costs: Mapping[str, float], now_s: float = 100.1, task: str = "t") -> Turn:
    """Have agents bid."""
    turn = Turn(book.record(task))
    for agent, cost in costs.items():
        turn = book.handle(task, Heard(agent, act("propose", task, bid=Bid(cost=cost)), now_s), now_s, 2)
    return turn


def told(turn: Turn, performative: str) -> list[str]:
    """Return who is told something."""
    return [tell.to for tell in turn.tells if tell.act.performative == performative]


def test_a_task_is_called_for_and_says_what_it_is_about() -> None:
    turn = given(Book(Times()))
    assert told(turn, "cfp") == ["ada", "bob"]
    assert turn.is_changed
    call = turn.tells[0].act.call
    assert call is not None
    assert (call.device, call.resource, call.value, call.left_s) == ("valve", "Setpoint", "21", 30.0)


def test_all_bids_make_an_award_in_one_turn_that_is_noted_with_its_price() -> None:
    book = Book(Times())
    given(book)
    turn = bids(book, {"ada": 3.0, "bob": 2.0})
    assert told(turn, "accept-proposal") == ["bob"]
    assert turn.is_changed
    assert turn.awarded is not None
    assert (turn.awarded.winner, turn.awarded.price, dict(turn.awarded.bids)) == ("bob", 3.0, {"ada": 3.0, "bob": 2.0})
    assert turn.record.entry.status == "awarded"
    body = award_body(turn.record, turn.awarded, {"bob": Run("bob", "r", ("set",), 2, 100.0)})
    assert (body["winner"], body["runner_up"], body["price"], body["busy"]) == ("bob", "ada", 3.0, {"bob": 2})


def test_one_bid_has_no_price_and_no_runner_up() -> None:
    book = Book(Times())
    given(book)
    book.handle("t", Heard("ada", act("refuse", "t", reason="busy"), 100.1), 100.1, 2)
    turn = bids(book, {"bob": 2.0})
    assert turn.awarded is not None
    body = award_body(turn.record, turn.awarded, {})
    assert (body["price"], body["runner_up"]) == (None, "")
    assert "ada refused: busy" in body["reasons"]


def test_the_winner_takes_it_does_it_and_it_ends_once_with_its_reason() -> None:
    book = Book(Times())
    given(book)
    bids(book, {"ada": 3.0, "bob": 2.0})
    turn = book.ask("t", TakeTask("t", 1, "run"), 100.2, "bob", 3)
    assert turn.answer is not None
    assert (turn.answer.problem, turn.record.state) == ("", "taken")
    assert told(turn, "reject-proposal") == ["ada"]
    turn = book.ask("t", CloseTask("t", 1, "bob", "done"), 100.3, "bob", 4, "proven")
    assert turn.has_ended
    assert (turn.record.state, turn.record.reason) == ("done", "proven")
    assert "t" not in book.open
    again = book.ask("t", CloseTask("t", 1, "bob", "failed"), 100.4, "bob", 5, "changed my mind")
    assert not again.has_ended
    assert (again.record.state, again.record.reason) == ("done", "proven")
    assert end_body(again.record)["state"] == "done"


@pytest.mark.parametrize(
    ("sender", "request_"),
    [
        ("ada", TakeTask("t", 1, "run")),
        ("bob", TakeTask("t", 0, "run")),
        ("ada", CloseTask("t", 1, "ada", "done")),
        ("bob", CloseTask("t", 1, "bob", "done")),
    ],
)
def test_nobody_takes_or_ends_what_is_not_theirs(sender: str, request_: TakeTask | CloseTask) -> None:
    book = Book(Times())
    given(book)
    bids(book, {"ada": 3.0, "bob": 2.0})
    turn = book.ask("t", request_, 100.2, sender, 3)
    assert turn.answer is not None
    assert turn.answer.problem
    assert turn.record.state == "awarded"


def test_an_award_that_is_not_taken_goes_to_the_next() -> None:
    book = Book(Times(take_s=5.0))
    given(book)
    bids(book, {"ada": 3.0, "bob": 2.0})
    turn = book.look("t", 105.2, 3)
    assert told(turn, "cfp") == ["ada"]
    turn = book.handle("t", Heard("ada", act("propose", "t", bid=Bid(cost=3.0, epoch=turn.record.entry.epoch)), 105.3),
                       105.3, 4)  # fmt: skip
    assert turn.awarded is not None
    assert turn.awarded.winner == "ada"
    assert [item.winner for item in turn.record.awards] == ["bob", "ada"]


def test_who_is_silent_is_called_again_with_more_time_and_late_bids_count() -> None:
    book = Book(Times(bid_s=1.0))
    given(book)
    turn = book.look("t", 101.0, 2)
    assert told(turn, "cfp") == ["ada", "bob"]
    assert isinstance(turn.record.net, contract_net.Calling)
    assert turn.record.net.until_s == pytest.approx(103.0)
    turn = bids(book, {"ada": 3.0, "bob": 2.0}, 101.5)
    assert turn.awarded is not None


def test_nobody_there_is_waited_for_until_the_deadline() -> None:
    book = Book(Times())
    record, _ = book.accept("t", WANTED, "http", 100.0, 1)
    turn = book.begin(record, (), 100.0, 1)
    assert not turn.tells
    assert turn.due_s == [100.5]
    turn = book.begin(book.record("t"), (), 130.0, 2)
    assert turn.has_ended
    assert (turn.record.state, turn.record.entry.status) == ("failed", "failed")
    assert turn.record.reason


def test_what_is_taken_and_not_ended_fails_after_its_deadline() -> None:
    book = Book(Times())
    given(book)
    bids(book, {"ada": 3.0, "bob": 2.0})
    book.ask("t", TakeTask("t", 1, "run"), 100.2, "bob", 3)
    turn = book.look("t", 130.1, 4)
    assert turn.record.state == "taken"  # a report may be on its way
    turn = book.look("t", 130.0 + GRACE_S + 0.01, 5)
    assert turn.has_ended
    assert turn.record.state == "failed"
    assert turn.record.reason


def test_the_owner_cancels_and_those_who_were_asked_are_told() -> None:
    book = Book(Times())
    given(book)
    turn = book.cancel("t", "cancelled by ann", 100.1, 2)
    assert (turn.record.state, turn.record.reason) == ("cancelled", "cancelled by ann")
    assert told(turn, "cancel") == ["ada", "bob"]
    with pytest.raises(ConflictError, match="cancelled already"):
        book.cancel("t", "again", 100.2, 3)
    with pytest.raises(NotFoundError):
        book.cancel("u", "never heard of", 100.2, 3)


def test_a_task_given_twice_is_one_and_its_id_is_nobody_elses() -> None:
    book = Book(Times())
    given(book)
    _, is_new = book.accept("t", WANTED, "http", 101.0, 2)
    assert not is_new
    with pytest.raises(ConflictError, match="taken by another task"):
        book.accept("t", WANTED, "dan", 101.0, 2)
    with pytest.raises(ConflictError, match="taken by another task"):
        book.accept("t", WANTED.model_copy(update={"value": "22"}), "http", 101.0, 2)


def test_there_is_room_for_so_many() -> None:
    book = Book(Times(), most_open=2, most_ended=1)
    for task, giver in (("a", "http"), ("b", "dan")):
        record, _ = book.accept(task, WANTED, giver, 100.0, 1)
        book.begin(record, AGENTS, 100.0, 1)
    with pytest.raises(TooManyAttemptsError):
        book.accept("c", WANTED, "eve", 100.0, 1)
    for task in ("a", "b"):
        book.cancel(task, "enough", 101.0, 2)
    assert [record.task for record in book.all()] == ["b"]
    assert book.evicted == ["a"]
    with pytest.raises(NotFoundError):
        book.record("a")


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4])
def test_killed_anywhere_it_goes_on_from_what_was_stored_and_ends_once(steps: int) -> None:
    """After each stored record: a new book, only that record, and the same acts and requests once more."""

    def bid(agent: str, cost: float) -> Act:
        return act("propose", "t", bid=Bid(cost=cost))

    def run(book: Book, number: int, now_s: float) -> Turn:
        match number:
            case 0:
                return given(book, now_s=now_s)
            case 1:
                return book.handle("t", Heard("ada", bid("ada", 3.0), now_s), now_s, 1)
            case 2:
                return book.handle("t", Heard("bob", bid("bob", 2.0), now_s), now_s, 1)
            case 3:
                return book.ask("t", TakeTask("t", 1, "run"), now_s, "bob", 1)
            case _:
                return book.ask("t", CloseTask("t", 1, "bob", "done"), now_s, "bob", 1)

    book, stored = Book(Times()), b""
    for number in range(steps + 1):
        turn = run(book, number, 100.0 + number / 10)
        stored = to_bytes(turn.record) if turn.is_changed else stored
    after = Book(Times())
    after.restored([from_bytes(stored)])
    if not after.record("t").ended:
        after.recover("t", 101.0, 2)
    for number in range(1, 5):
        run(after, number, 101.0 + number / 10)
    record = after.record("t")
    assert (record.state, record.entry.winner, record.entry.epoch) == ("done", "bob", 1)
    assert len(record.awards) == 1


def test_a_record_is_shown_as_edgex_spells_things() -> None:
    book = Book(Times())
    given(book)
    found = shown(bids(book, {"ada": 3.0, "bob": 2.0}).record)
    assert (found["id"], found["state"], found["winner"], found["giver"]) == ("t", "awarded", "bob", "http")
    assert found["task"]["deviceName"] == "valve"
    assert found["awards"][0]["bids"] == {"ada": 3.0, "bob": 2.0}


def test_bytes_that_are_no_record_are_refused() -> None:
    with pytest.raises(MalformedMessageError):
        from_bytes(b"{}")
    book = Book(Times())
    data = to_bytes(given(book).record)
    assert isinstance(from_bytes(data), Record)
    with pytest.raises(MalformedMessageError):
        from_bytes(data[:-2])


def test_reading_a_task_changes_nothing() -> None:
    book = Book(Times())
    given(book)
    turn = book.ask("t", ReadTask("t"), 100.1, "bob", 2)
    assert not turn.is_changed
    assert turn.answer is not None
    assert turn.answer.entry.status == "open"


def test_one_giver_cannot_hold_all_places() -> None:
    book = Book(Times(), most_open=4)
    for task in ("a", "b"):
        given(book, task)
    with pytest.raises(TooManyAttemptsError, match="'http'"):
        book.accept("c", WANTED, "http", 100.0, 1)
    book.accept("c", WANTED, "dan", 100.0, 1)
    book.cancel("a", "enough", 101.0, 2)
    book.accept("d", WANTED, "http", 101.0, 1)


def test_a_task_that_is_too_long_is_refused_and_the_longest_fits_a_message_whatever_agents_say() -> None:
    book = Book(Times(take_s=0.1))
    long = WANTED.model_copy(update={"params": {f"p{number}": "x" * 1_000 for number in range(17)}})
    with pytest.raises(TooLargeError):
        book.accept("long", long, "http", 100.0, 1)
    wanted = WANTED.model_copy(
        update={"params": {f"p{number}": "\n" * 450 for number in range(15)}, "deadline_s": 86_400}
    )
    names = tuple(f"agent-{number:03}-{'n' * 50}" for number in range(32))
    book.accept("t", wanted, "http", 100.0, 1)
    now_s = 100.0
    for _ in range(4):
        book.begin(book.record("t"), names, now_s, 1)
        for name in names:
            said = act("refuse", "t", reason="\U0001f600" * 2_000)
            turn = book.handle("t", Heard(name, said, now_s), now_s, 1)
        book.begin(book.record("t"), (), now_s, 1)
        now_s += 40
    assert turn.record.rounds
    assert len(to_bytes(book.record("t"))) < 600_000


def test_who_was_not_asked_yet_is_asked_before_a_task_fails() -> None:
    book = Book(Times())
    given(book)
    for agent in AGENTS:
        turn = book.handle("t", Heard(agent, act("refuse", "t", reason="observing"), 100.1), 100.1, 2)
    assert (turn.record.state, turn.record.asked, turn.is_changed) == ("open", frozenset(AGENTS), True)
    assert 100.1 in turn.due_s
    turn = book.begin(from_bytes(to_bytes(book.record("t"))), ("zed",), 100.1, 2)
    assert told(turn, "cfp") == ["zed"]
    turn = bids(book, {"zed": 1.0}, 100.2)
    assert turn.awarded is not None
    assert turn.awarded.winner == "zed"
    assert "ada refused: observing" in shown(turn.record)["reasons"]


def test_when_all_have_refused_they_are_asked_again_after_a_pause_that_grows_until_the_deadline() -> None:
    book = Book(Times())
    given(book)
    calls, now_s, turn = [], 100.0, Turn(book.record("t"))
    while not turn.has_ended:
        record = book.record("t")
        if isinstance(record.net, contract_net.Planned):
            turn = book.begin(record, tuple(name for name in AGENTS if name not in record.asked), now_s, 2)
            calls += [now_s] if told(turn, "cfp") else []
        else:
            for agent in AGENTS:
                turn = book.handle("t", Heard(agent, act("refuse", "t", reason="too hot"), now_s), now_s, 2)
        if now_s not in turn.due_s and not told(turn, "cfp"):
            now_s = min(item for item in turn.due_s if item > now_s) if not turn.has_ended else now_s
    assert calls == [101.0, 103.0, 107.0, 115.0]
    assert now_s == pytest.approx(130.0)
    assert "too hot" in " ".join(shown(turn.record)["reasons"])
    assert turn.record.state == "failed"


def test_who_wins_and_never_takes_leaves_time_for_the_next_also_in_a_short_task() -> None:
    book = Book(Times(take_s=5.0))
    given(book, wanted=WANTED.model_copy(update={"deadline_s": 3.0}))
    bids(book, {"ada": 3.0, "bob": 0.0})
    turn = book.look("t", 101.2, 3)
    assert told(turn, "cfp") == ["ada"]
    epoch = turn.record.entry.epoch
    turn = book.handle("t", Heard("ada", act("propose", "t", bid=Bid(cost=3.0, epoch=epoch)), 101.3), 101.3, 4)
    assert turn.awarded is not None
    assert turn.awarded.winner == "ada"


def test_a_later_call_says_how_much_time_is_left_then() -> None:
    book = Book(Times(take_s=5.0))
    given(book)
    bids(book, {"ada": 3.0, "bob": 2.0})
    call = book.look("t", 105.2, 3).tells[0].act.call
    assert call is not None
    assert (call.left_s, call.accepted_unix_ns) == (pytest.approx(24.8), 1)
    call = book.recover("t", 110.0, 3).tells[0].act.call
    assert call is not None
    assert call.left_s == pytest.approx(20.0)


def test_a_record_keeps_the_ledgers_own_time_of_its_last_change() -> None:
    book = Book(Times())
    assert from_bytes(to_bytes(given(book).record)).changed_s == 100.0
    assert bids(book, {"ada": 3.0, "bob": 2.0}, 100.1).record.changed_s == 100.1


def test_time_in_which_we_did_not_run_is_given_back_to_who_won_and_to_who_was_called() -> None:
    book = Book(Times(take_s=5.0))
    given(book, "won")
    bids(book, {"ada": 3.0, "bob": 2.0}, task="won")
    given(book, "called")
    assert told(book.overslept("called", 8.0, 108.2, 2), "cfp") == ["ada", "bob"]
    book.overslept("won", 8.0, 108.2, 2)
    turn = book.ask("won", TakeTask("won", 1, "run"), 108.3, "bob", 3)
    assert turn.answer is not None
    assert (turn.answer.problem, turn.record.state) == ("", "taken")
    turn = book.overslept("won", 30.0, 140.0, 4)  # beyond the deadline: the report may wait to be heard
    assert turn.record.state == "taken"
    assert book.ask("won", CloseTask("won", 1, "bob", "done"), 140.1, "bob", 5).record.state == "done"


def test_what_the_guards_fence_reads_of_a_record_is_what_the_ledger_says() -> None:
    book = Book(Times())
    given(book)
    bids(book, {"ada": 3.0, "bob": 2.0})
    turn = book.ask("t", TakeTask("t", 1, "run"), 100.2, "bob", 3)
    assert standing_of(to_bytes(turn.record)) == Standing("t", 1, "taken", "bob", "run", 1)
    assert award_problem(standing_of(to_bytes(turn.record)), TaskRef("t", 1, 1), "bob", "run") == ""
    turn = book.cancel("t", "cancelled by owner", 100.3, 4)
    assert "has ended" in award_problem(standing_of(to_bytes(turn.record)), TaskRef("t", 1, 1), "bob", "run")
