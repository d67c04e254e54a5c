"""Everybody gets a fair share, nobody waits for what cannot be in time, and queues have an end."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.errors import TooManyAttemptsError
from edgeagents.inference.admission import Admission, Job, Speed


def job(name: str, client: str, work_s: float = 1.0, end_s: float = math.inf) -> Job:
    return Job(name, client, work_s, end_s)


def served(admission: Admission, count: int, took_s: float = 1.0) -> list[str]:
    """Return whose turn it is, one after the other."""
    found = []
    for _ in range(count):
        following = admission.next()
        if following is None:
            break
        found.append(following.client)
        admission.done(following.name, took_s)
    return found


def test_a_flood_of_one_client_delays_that_client_alone() -> None:
    admission = Admission(rows=1)
    for number in range(30):
        admission.submit(job(f"flood{number}", "loud"), 0.0)
    for client in ("a", "b"):
        admission.submit(job(client, client), 0.0)
    order = served(admission, 32)
    assert max(order.index("a"), order.index("b")) <= 2
    assert order.count("loud") == 30


def test_shares_are_of_time_not_of_requests() -> None:
    admission = Admission(rows=1)
    for number in range(40):
        admission.submit(job(f"l{number}", "long", 4.0), 0.0)
        admission.submit(job(f"s{number}", "short", 1.0), 0.0)
    turns: Counter[str] = Counter()
    for _ in range(25):
        following = admission.next()
        assert following is not None
        turns[following.client] += 1
        admission.done(following.name, following.work_s)
    assert turns["short"] == pytest.approx(4 * turns["long"], abs=4)


def test_a_rest_saves_nothing_up() -> None:
    admission = Admission(rows=1)
    for number in range(10):
        admission.submit(job(f"a{number}", "a"), 0.0)
    served(admission, 10)
    for number in range(10):
        admission.submit(job(f"a1{number}", "a"), 0.0)
        admission.submit(job(f"b{number}", "b"), 0.0)
    assert served(admission, 8).count("b") <= 5


def test_a_request_that_cannot_be_in_time_is_refused_at_once_and_told_when_to_come() -> None:
    admission = Admission(rows=1)
    admission.submit(job("first", "a"), 10.0)
    admission.next()
    with pytest.raises(TooManyAttemptsError, match=r"0\.50 s are given"):
        admission.submit(job("a", "a", 1.0, end_s=10.5), 10.0)
    admission.done("first", 1.0)
    for number in range(4):
        admission.submit(job(f"b{number}", f"b{number}", 2.0), 0.0)
    with pytest.raises(TooManyAttemptsError, match="waiting") as caught:
        admission.submit(job("c", "c", 1.0, end_s=5.0), 0.0)
    assert caught.value.retry_after_s >= 5
    admission.submit(job("d", "d", 1.0, end_s=30.0), 0.0)
    assert admission.refused == {"full": 0, "client-full": 0, "too-late": 2}


def test_an_idle_model_refuses_nobody_by_what_it_measured_before() -> None:
    admission, speed = Admission(rows=2), Speed(step_s=5.0)
    admission.submit(job("a", "a", speed.work_s(10, 100), end_s=8.0), 0.0)
    with pytest.raises(TooManyAttemptsError):
        admission.submit(job("b", "b", speed.work_s(10, 100), end_s=8.0), 0.0)
    admission.next()
    admission.done("a", 0.1)
    for name in ("c1", "c2"):  # of one request
        admission.submit(job(name, "c", speed.work_s(10, 100), end_s=8.0), 0.0, is_estimated=False)


def test_one_hiccup_does_not_look_like_another_machine_and_a_slower_machine_is_soon_known() -> None:
    speed = Speed()
    speed.saw_step(3.0)
    speed.saw_prefill(256, 30.0)
    assert speed.work_s(100, 120) < 8.0
    speed.saw_prefill(1, 1.0)
    assert speed.prefill_s < 0.004, "a token alone says little of many"
    for _ in range(40):
        speed.saw_step(0.2)
        speed.saw_prefill(256, 256 * 0.05)
    assert (speed.step_s, speed.prefill_s) == pytest.approx((0.2, 0.05), rel=0.02)


def test_queues_have_an_end_for_one_client_and_for_all() -> None:
    admission = Admission(rows=1, most_waiting=5, most_of_client=3)
    for number in range(3):
        admission.submit(job(f"a{number}", "a"), 0.0)
    with pytest.raises(TooManyAttemptsError, match="of a wait"):
        admission.submit(job("a3", "a"), 0.0)
    for number in range(2):
        admission.submit(job(f"b{number}", "b"), 0.0)
    with pytest.raises(TooManyAttemptsError, match="5 requests"):
        admission.submit(job("c", "c"), 0.0)
    assert served(admission, 9) == ["a", "b", "a", "b", "a"]


def test_what_is_overdue_or_withdrawn_is_not_served() -> None:
    admission = Admission(rows=1)
    admission.submit(job("a", "a", 0.1, end_s=1.0), 0.0)
    admission.submit(job("b", "b"), 0.0)
    admission.submit(job("c", "c"), 0.0)
    assert admission.withdraw("b")
    assert not admission.withdraw("b")
    assert [item.name for item in admission.overdue(1.0)] == ["a"]
    assert served(admission, 9) == ["c"]
    assert admission.waiting == 0


def test_many_names_are_not_remembered_for_ever() -> None:
    admission = Admission(rows=1)
    for number in range(5000):
        admission.submit(job(f"r{number}", f"client {number}"), 0.0)
        served(admission, 1)
    assert len(admission._clients) <= 1025


def test_speed_follows_what_is_measured() -> None:
    speed = Speed()
    for _ in range(60):
        speed.saw_prefill(100, 1.0)
        speed.saw_step(0.05)
        speed.saw_answer(20)
    speed.saw_prefill(0, 9.0)
    assert speed.work_s(200, 500) == pytest.approx(200 * 0.01 + 20 * 0.05, rel=0.01)
    assert speed.work_s(0, 2) == pytest.approx(0.1, rel=0.01)


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0.1, 5), st.sampled_from([math.inf, 3.0, 20.0])), max_size=60)
)
def test_each_request_is_served_refused_or_overdue_once(asked: list[tuple[str, float, float]]) -> None:
    admission, now_s, ended = Admission(rows=2, most_waiting=20, most_of_client=8), 0.0, Counter[str]()
    for number, (client, work_s, end_s) in enumerate(asked):
        name = f"r{number}"
        try:
            admission.submit(job(name, client, work_s, now_s + end_s), now_s)
        except TooManyAttemptsError:
            ended[name] += 1
        if number % 3 == 0:
            following = admission.next()
            if following is not None:
                now_s += following.work_s
                admission.done(following.name, following.work_s)
                ended[following.name] += 1
        ended.update(item.name for item in admission.overdue(now_s))
    while (following := admission.next()) is not None:
        ended[following.name] += 1
        admission.done(following.name, 1.0)
    assert ended == Counter(f"r{number}" for number in range(len(asked)))
