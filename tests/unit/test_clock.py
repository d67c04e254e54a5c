"""Steps of the wall clock are seen; drift and pauses are none."""

import pytest

from edgeagents.clock import SteppedClock, StepWatch


@pytest.mark.parametrize("step_s", [3600, -3600, 1, -1])
def test_a_step_is_told_once_with_its_size(step_s: int) -> None:
    watch = StepWatch(1_000_000_000_000, 50.0)
    assert watch.look(1_000_000_000_000 + (10 + step_s) * 10**9, 60.0) == step_s * 10**9
    assert watch.look(1_000_000_000_000 + (11 + step_s) * 10**9, 61.0) == 0


def test_drift_and_a_process_that_stood_still_are_no_steps() -> None:
    watch = StepWatch(0, 0.0)
    wall_ns = 0
    for second in range(1, 1000):
        wall_ns += 1_000_400_000  # 400 ppm fast
        assert watch.look(wall_ns, float(second)) == 0
    assert watch.look(wall_ns + 100 * 10**9, 1099.0) == 0, "both clocks went on"
    assert watch.offset_ms == pytest.approx(399, abs=2)


def test_a_step_is_told_before_a_time_after_it() -> None:
    wall, now, told = [10**18], [0.0], list[tuple[int, str]]()
    clock = SteppedClock(lambda: wall[0], lambda: now[0])
    clock.on_step = lambda step_ns: told.append((step_ns, "before"))
    wall[0] += 3600 * 10**9
    assert (clock.wall_ns(), told) == (10**18 + 3600 * 10**9, [(3600 * 10**9, "before")])
    clock.wall_ns()
    assert len(told) == 1


def test_a_process_stopped_in_the_middle_of_a_look_sees_no_step() -> None:
    times, told = iter([0.0, 1.0, 9.0, 10.0, 10.0]), list[int]()
    wall = iter([10**18, 10**18 + 1 * 10**9, 10**18 + 10 * 10**9])
    clock = SteppedClock(lambda: next(wall), lambda: next(times))
    clock.on_step = told.append
    assert clock.wall_ns() == 10**18 + 10**9, "8 s between its readings"
    clock.wall_ns()
    assert told == []
