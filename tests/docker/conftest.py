"""One engine and one gateway for all tests here; the images are built first."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.engine import PROJECT, Engine, Gateway, busy_home

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, and give it time: an image may have to be built first."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.docker)
            # Also a long one does not take all the time there is: rounds of faults, each of seconds.
            item.add_marker(pytest.mark.timeout(1200 if item.get_closest_marker("long") is None else 4 * 3600))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker Engine with our images."""
    missing = [name for name in ("docker", "dockerd", "docker-compose") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install docker.io docker-compose)")
    found = Engine()
    try:
        found.build()
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def gateway(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that is up; at the end nothing of it may be left."""
    folder = tmp_path_factory.mktemp("owner")
    for part in (folder, *folder.parents[:2]):  # pytest's folders are private to us
        part.chmod(0o755)
    found = Gateway(engine, busy_home(folder))
    found.down()
    try:
        found.up()
        yield found
    finally:
        found.down()
        label = f"label=com.docker.compose.project={PROJECT}"
        kinds = {"ps": ("-a",), "network": ("ls",), "volume": ("ls",)}
        left = {kind: engine.docker(kind, *words, "-q", "--filter", label).split() for kind, words in kinds.items()}
        assert not any(left.values()), f"`down -v` left {left}"
