"""What several files here share: a gateway a file, with a guard in front of valves, and who talks to it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.guarded import Agent, Client, Gateway, client_of


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Return one gateway for all tests of a file; each uses valves of its own."""
    found = Gateway(tmp_path_factory.mktemp("guarded"))
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[Client]:
    """Return the owner's connection to the file's gateway."""
    async with client_of(gateway) as found:
        yield found


@pytest.fixture
async def air(client: Client) -> AsyncIterator[Agent]:
    """Return an agent with a session, played by the test."""
    async with client.agent("air") as found:
        yield found
