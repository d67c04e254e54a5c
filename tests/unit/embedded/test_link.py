"""Envelopes that core-command passes on: what is left as it came, and what is written anew."""

import base64
import json
from typing import Any

import pytest

from edgeagents.adapters import cbor
from edgeagents.adapters.envelopes import CBOR, JSON, Encoding, decode_envelope, encode_envelope, encode_headers
from edgeagents.embedded.link import raw_envelope
from edgeagents.errors import MalformedMessageError
from edgeagents.model.envelope import Envelope

READING = {
    "origin": 1, "deviceName": "d", "resourceName": "r", "profileName": "p", "valueType": "Binary",
    "binaryValue": "iVBORw==", "mediaType": "image/png",
}  # fmt: skip
PICTURE: dict[str, Any] = {
    "statusCode": 200,
    "event": {"id": "i", "deviceName": "d", "profileName": "p", "sourceName": "r", "origin": 1, "readings": [READING]},
}
SETTINGS = {"Power": "true"}


def test_payload_of_a_json_envelope_is_left_as_it_came() -> None:
    for payload, content_type in ((SETTINGS, JSON), (base64.b64encode(cbor.dumps({"a": 1})).decode(), CBOR)):
        data = json.dumps({"requestID": "r", "payload": payload, "contentType": content_type}).encode()
        found = raw_envelope(data, {})
        assert (found.payload, found.content_type, found.request_id) == (payload, content_type, "r")
        again = json.loads(encode_envelope(found))
        assert (again["payload"], again["contentType"]) == (payload, content_type)


@pytest.mark.parametrize("payload", [SETTINGS, PICTURE, None])
def test_envelope_that_is_cbor_as_a_whole_is_written_anew_so_that_all_can_read_it(payload: Any) -> None:
    found = raw_envelope(encode_envelope(Envelope(payload, "c", "r"), Encoding(cbor=True)), {})
    again = decode_envelope(encode_envelope(found))
    assert (again.payload, again.request_id, again.correlation_id) == (payload, "r", "c")
    assert again.content_type == (CBOR if payload is PICTURE else JSON)


@pytest.mark.parametrize("payload", [SETTINGS, PICTURE])
@pytest.mark.parametrize("encoding", [Encoding(), Encoding(cbor=True)])
def test_metadata_in_headers_goes_on_in_headers(payload: Any, encoding: Encoding) -> None:
    data, headers = encode_headers(Envelope(payload, "c", "r"), encoding)
    again = decode_envelope(*encode_headers(raw_envelope(data, headers)))
    assert (again.payload, again.request_id) == (payload, "r")


def test_error_answer_keeps_its_text() -> None:
    data = encode_envelope(Envelope("no such device", "c", "r", 1, "text/plain"))
    found = raw_envelope(data, {})
    assert (found.payload, found.error_code, found.content_type) == ("no such device", 1, "text/plain")


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{bad", b'{"a": NaN}', b"\xa1\xff", b"\xff" * 10, b"[" * 5000])
def test_what_is_no_envelope_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        raw_envelope(data, {})
