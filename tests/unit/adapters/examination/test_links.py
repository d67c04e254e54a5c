"""What is made of a broker's answers on links and copies, whatever their shape."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from edgeagents.adapters.examination.links import _copy, _links
from edgeagents.model.gateways import Gateways
from edgeagents.protocol.diagnosis.links import CopyFacts

ODD: list[Any] = [None, 3, "x", [], [3], {"leafs": 3}, {"leafs": [3, {"account": []}]}]


class Broker:
    """Answers one body to every question."""

    def __init__(self, body: Any) -> None:
        self.body = body

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> Any:
        return SimpleNamespace(data=json.dumps(self.body).encode())


@pytest.mark.parametrize("odd", ODD)
async def test_links_of_another_shape_are_down(odd: Any) -> None:
    gateways = Gateways.model_validate(
        {"gateway": "home", "peers": {"south": {"address": "tls://s:7422", "password_file": "p"}}}
    )
    bus: Any = Broker({"data": odd})
    assert await _links(bus, gateways) == {}


@pytest.mark.parametrize("odd", ODD)
def test_a_copy_of_another_shape_is_an_empty_one(odd: Any) -> None:
    assert _copy({"mirror": odd, "error": odd, "state": odd}) == CopyFacts()
