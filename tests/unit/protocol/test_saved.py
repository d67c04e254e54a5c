"""States as bytes and back: whatever is written is read as it was, anything else is refused."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.errors import MalformedMessageError
from edgeagents.model.cooperation import CallForProposals
from edgeagents.protocol.contract_net import Calling, Closed, Planned, State
from edgeagents.protocol.saved import by_name, from_bytes, to_bytes
from edgeagents.protocol.sealed_bids import Terms
from tests.unit.protocol.society_machine import CASES

KNOWN = by_name([Calling, Closed, Planned, Terms, CallForProposals])
names = st.text(min_size=1, max_size=8)
callings = st.builds(
    Calling,
    terms=st.builds(
        Terms, call=st.just(CallForProposals(task="t", skill="s")), invited=st.lists(names).map(tuple),
        bid_s=st.floats(0, 9), take_s=st.floats(0, 9), deadline_s=st.floats(allow_nan=False), reserve=st.floats(0, 9),
    ),
    epoch=st.integers(0, 2**63), asked=st.frozensets(names), until_s=st.floats(allow_nan=False),
    bids=st.dictionaries(names, st.floats(allow_nan=False)), refused=st.frozensets(names),
    heard=st.dictionaries(names, st.integers()), reasons=st.lists(names).map(tuple),
)  # fmt: skip


@settings(max_examples=CASES)
@given(callings)
def test_a_state_is_read_as_it_was_written(state: Calling) -> None:
    assert from_bytes(to_bytes(state), KNOWN) == state


@given(st.binary(max_size=80) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_a_state_or_a_refusal(data: bytes) -> None:
    try:
        state = from_bytes(data, KNOWN)
    except MalformedMessageError:
        return
    assert from_bytes(to_bytes(state), KNOWN) == state


CLOSED = b'{"version": 1, "state": {"is": "contract_net.Closed", '
PLANNED = b'{"version": 1, "state": {"is": "contract_net.Planned", "terms": '


@pytest.mark.parametrize(
    "data",
    [
        b'{"version": 1, "state": {"is": "Popen"}}', CLOSED + b'"status": "done"}}', CLOSED + b'"mood": 1}}',
        b"[" * 9999, b"{}", b"5", b"null", b'"done"', b'{"version": 1, "state": 5}', b'{"version": 1, "state": {}}',
        b'{"version": 2, "state": {"is": "contract_net.Closed", "status": "done", "reasons": []}}',
        b'{"is": "contract_net.Closed", "status": "done", "reasons": []}',
        b'{"version": 1, "state": {"is": "float", "value": "inf"}}',
        CLOSED + b'"status": "dead", "reasons": []}}', CLOSED + b'"status": "done", "reasons": "x"}}',
        CLOSED + b'"status": "done", "reasons": [5]}}', CLOSED + b'"status": "done", "reasons": [], "price": "x"}}',
        CLOSED + b'"status": "done", "reasons": [], "price": true}}', PLANNED + b'"x"}}', PLANNED + b"null}}",
    ],
)  # fmt: skip
def test_no_class_but_those_asked_for_is_built(data: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        from_bytes(data, KNOWN)


def test_infinities_survive_and_what_is_no_number_is_never_written() -> None:
    assert from_bytes(to_bytes(Closed("done", (), price=math.inf)), KNOWN).price == math.inf
    with pytest.raises(ValueError, match="nan cannot be part"):
        to_bytes(Closed("done", (), price=math.nan))
    with pytest.raises(TypeError, match="cannot be part of a saved state"):
        to_bytes(Closed("done", (object(),)))  # type: ignore[arg-type]


def test_a_state_of_another_protocol_is_refused_where_one_is_expected() -> None:
    data = to_bytes(Closed("done", ()))
    assert from_bytes(data, KNOWN, State) == Closed("done", ())
    with pytest.raises(MalformedMessageError, match="a saved Closed: another state was expected"):
        from_bytes(data, KNOWN, Calling)
