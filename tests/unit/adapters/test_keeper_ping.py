"""Is it keeper that answers at keeper's address?"""

from typing import Any

import httpx
import pytest

from edgeagents.adapters.keeper import KeeperClient
from edgeagents.errors import UpstreamError


def keeper_that_says(body: Any) -> KeeperClient:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=body))
    return KeeperClient("http://keeper", httpx.AsyncClient(transport=transport))


@pytest.mark.parametrize("body", [{"serviceName": "core-keeper"}, {"apiVersion": "v3"}])
async def test_keeper_is_taken_for_keeper(body: Any) -> None:
    await keeper_that_says(body).ping()


@pytest.mark.parametrize(
    ("body", "who"), [({"serviceName": "core-data"}, "service 'core-data'"), (["x"], "no EdgeX service")]
)
async def test_who_answers_instead_is_named_with_the_flag_to_correct(body: Any, who: str) -> None:
    with pytest.raises(UpstreamError, match=who) as caught:
        await keeper_that_says(body).ping()
    assert "-cp" in str(caught.value)
