"""`gateways.yaml`: what an owner may write, and what is refused with a remedy."""

from typing import Any

import pytest
from pydantic import ValidationError

from edgeagents.model.gateways import FAMILIES, LEAF_PORT, Gateways

NORTH: dict[str, Any] = {"gateway": "north", "listen": {"host": "127.0.0.1"}, "peers": {"south": {}}}
GOES = {"address": "tls://hub.example", "password_file": "hub.password"}


def test_what_is_not_written_is_private_and_short_lived() -> None:
    found = Gateways.model_validate(NORTH)
    assert (found.peers["south"].cross, found.peers["south"].mirrors, found.peers["south"].keeps) == (FAMILIES, (), ())
    assert found.listen is not None
    assert (found.listen.port, found.oldest, found.coming) == (LEAF_PORT, 5.0, ["south"])


def test_a_peer_we_go_to_needs_no_listener_and_gets_the_usual_port() -> None:
    found = Gateways.model_validate({"gateway": "north", "peers": {"hub": GOES}, "oldest": "30s"})
    assert (found.peers["hub"].address, found.oldest, found.coming) == (f"tls://hub.example:{LEAF_PORT}", 30.0, [])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"gateway": "north", "peers": {"south": {}}}, "say where, with `listen`"),
        ({**NORTH, "peers": {}}, "at least 1"),
        ({**NORTH, "peers": {"north": {}}}, "is this gateway itself"),
        ({**NORTH, "peers": {"edgex": {}}}, "no gateway can be called 'edgex'"),
        ({**NORTH, "gateway": "mirrors"}, "no gateway can be called 'mirrors'"),
        ({**NORTH, "leaves": {}}, "Extra inputs"),
        ({**NORTH, "peers": {"south": {"cross": ["commands"]}}}, "'acts', 'tasks' or 'roster'"),
        ({**NORTH, "peers": {"south": {"cross": ["acts", "acts"]}}}, "stands there twice"),
        ({**NORTH, "peers": {"south": {"mirrors": ["commands"]}}}, "'audit' or 'edgex-events'"),
        ({**NORTH, "peers": {"south": {"password_file": "x"}}}, "are for a peer with an address"),
        ({**NORTH, "peers": {"hub": {"address": "tls://hub:7422"}}}, "address without password_file"),
        ({**NORTH, "peers": {"hub": {**GOES, "address": "http://hub"}}}, "is no address of a peer"),
        ({**NORTH, "peers": {"hub": {**GOES, "address": "tls://me:secret@hub"}}}, "is no address of a peer"),
        ({**NORTH, "peers": {"hub": {**GOES, "address": "tls://hub:99999"}}}, "is no address of a peer"),
        ({**NORTH, "peers": {"hub": {**GOES, "address": "nats-leaf://hub", "tls": {}}}}, "write tls:// there"),
        ({**NORTH, "peers": {"hub": {**GOES, "tls": {"key": "k"}}}}, "certificate and key go together"),
        ({**NORTH, "oldest": "soon"}, "is no duration"),
        ({**NORTH, "oldest": 0}, "greater than 0"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_a_remedy(content: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Gateways.model_validate(content)
    assert told in str(caught.value)
