"""Fault tests: how often, with which seed, what they need of the machine, and their one line of figures."""

import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from tests.disks import need_root
from tests.faults.score import Score

ROUNDS, SEED = "FAULTS_ROUNDS", "FAULTS_SEED"

_score = pytest.StashKey[Score]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep one score for the whole run, and speak past pytest's capture."""
    console = Console(highlight=False, soft_wrap=True)

    def say(text: str) -> None:
        capture = config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            console.print(text)
            console.file.flush()

    config.stash[_score] = Score(say)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the figures, behind all else."""
    score = config.stash.get(_score, None)
    if score is not None and score.runs:
        print(score.line(), flush=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and give them the time their rounds take."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.timeout(300 + 600 * rounds_now()))


def rounds_now() -> int:
    """How often each fault comes: a few times for a quick look, 20 times in the long run."""
    return int(os.environ.get(ROUNDS, "1"))


@pytest.fixture
def rounds() -> int:
    """How often each fault comes."""
    return rounds_now()


@pytest.fixture
def seed() -> int:
    """Of all that is random."""
    return int(os.environ.get(SEED, "1"))


@pytest.fixture
def score(request: pytest.FixtureRequest) -> Score:
    """Where faults and what came of them are counted."""
    return request.config.stash[_score]


@pytest.fixture
def strace() -> str:
    """The path of strace; without it there is no power cut and no slow disk here."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("no strace here: apt-get install strace")
    return found


@pytest.fixture
def mounting() -> None:
    """Skip where no small disk can be mounted."""
    need_root()
