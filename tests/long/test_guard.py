"""The guard's property tests, longer: longer runs of the machine than a laptop waits for, and more proposals.

Each round searches anew from a seed of its own, which a failure names.
"""

import logging
import time
from collections.abc import Iterator

import pytest
from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.unit.services.guard.test_fuzzed_proposals import LONG, SHORT, fuzz
from tests.unit.services.guard.test_guard_machine import RUNS, GuardMachine

ROUND, STEPS = 200, 50


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Nobody reads the logs of thousands of gateways."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_the_guard_keeps_its_word_for_longer(share_s: float) -> None:
    end_s, round_ = time.monotonic() + share_s, 0
    while time.monotonic() < end_s:
        round_ += 1
        machine = seed(round_)(GuardMachine)
        longer = settings(RUNS, max_examples=ROUND, stateful_step_count=STEPS, derandomize=False)
        run_state_machine_as_test(machine, settings=longer)


@pytest.mark.timeout(3600)
def test_no_forbidden_set_reaches_core_command_among_many_more(share_s: float) -> None:
    """100,000 messages however short the time is; more when there is time."""
    end_s, round_ = time.monotonic() + share_s, 0
    while round_ * SHORT < LONG or time.monotonic() < end_s:
        round_ += 1
        fuzz(SHORT, seed=round_ + 1)
