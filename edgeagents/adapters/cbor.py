"""CBOR as EdgeX's Go services write and read it; what is read comes out as JSON would hold it.

Bytes become base64 text and `undefined` null: whatever encoding a message had, the rest of the program sees one form.
Any bytes in: a value or a `MalformedMessageError`, in memory bounded by the message's size: tags (numbers of any
size, shared references, dates, patterns) are refused before anything is built from them, maps with a key twice too.
Writes definite lengths, text keys in the order given, the shortest integers and 64-bit floats, as Go does.

Source: RFC 8949; edgex-wire.md section 1.2; recordings of EdgeX 4.0.2; cbor2 6.3.
"""

import base64
import math
from io import BytesIO
from typing import Any, Final, NoReturn

import cbor2

from edgeagents.errors import InvalidInputError, MalformedMessageError

MAX_NESTING: Final = 64
MAX_ITEMS: Final = 250_000  # strings, numbers, maps, arrays: each costs up to a hundred times its bytes
_UNSCANNED_BYTES: Final = 16_384  # a message of this size cannot hold enough items to matter
_INDEFINITE: Final = 31
_BREAK: Final = 0xFF
_TEXT_CAUSES: Final = (("nesting depth", "too-deep"), ("Duplicate map key", "duplicate-key"))


class _TagError(Exception):
    """A tag was met."""


def _refuse(*_: Any) -> NoReturn:
    raise _TagError


_OPTIONS: Final[dict[str, Any]] = {
    "max_depth": MAX_NESTING,
    "allow_duplicate_keys": False,
    "strict_hashable_types": True,
    "tag_hook": _refuse,
    # Every tag that cbor2 knows by itself; the hook gets the others.
    "semantic_decoders": dict.fromkeys(
        (*range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799), _refuse
    ),
}


def loads(data: bytes) -> Any:
    """Return the one value that CBOR bytes hold, in JSON's terms.

    Raises:
        MalformedMessageError: no CBOR, more than one value, tags, keys that are no text or come twice, numbers that
            JSON has no word for, deeper than `MAX_NESTING`, more than `MAX_ITEMS`.
    """
    if len(data) > _UNSCANNED_BYTES:
        _check_size(data)
    stream = BytesIO(data)
    try:
        value = cbor2.CBORDecoder(stream, **_OPTIONS).decode()
    except (cbor2.CBORError, _TagError, ValueError, RecursionError, OverflowError) as error:
        raise _malformed(error) from error
    if stream.tell() != len(data):
        raise MalformedMessageError(f"{len(data) - stream.tell()} bytes follow the CBOR value", "trailing-bytes")
    return _plain(value)


def dumps(value: Any) -> bytes:
    """Return a value in CBOR; bytes stay bytes.

    Raises:
        InvalidInputError: it holds what EdgeX cannot read: NaN, an infinity, an integer beyond 64 bits.
    """
    _check_writable(value)
    try:
        return cbor2.dumps(value)
    except (cbor2.CBORError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"this cannot be written as CBOR: {error}") from error


def _malformed(error: BaseException) -> MalformedMessageError:
    seen, text = error, str(error)
    while seen.__cause__ is not None or seen.__context__ is not None:
        seen = seen.__cause__ or seen.__context__ or seen
        text = f"{text}: {seen}" if str(seen) else text
    if isinstance(seen, _TagError):
        return MalformedMessageError("CBOR tags have no place in an EdgeX message", "cbor-tag")
    kind = next((cause for words, cause in _TEXT_CAUSES if words in text), "not-cbor")
    return MalformedMessageError(f"no CBOR that EdgeX writes: {text[:200]}", kind)


def _plain(value: Any) -> Any:
    """Return a decoded value in JSON's terms, changed in place where it is a map or an array."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise MalformedMessageError(f"a map's key is {type(key).__name__}, not text", "not-cbor")
            if type(item) is not str:
                value[key] = _plain(item)
        return value
    if kind is list:
        value[:] = [_plain(item) for item in value]
        return value
    if kind is bytes:
        return base64.b64encode(value).decode()
    if kind is float and not math.isfinite(value):
        raise MalformedMessageError(f"{value} is no JSON number", "not-cbor")
    if kind in (str, int, float, bool) or value is None:
        return value
    if value is cbor2.undefined:
        return None
    raise MalformedMessageError(f"{kind.__name__} has no place in an EdgeX message", "not-cbor")


def _check_writable(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInputError(f"this cannot be written as CBOR: the key {key!r} is no text")
            if not isinstance(item, str):
                _check_writable(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_writable(item)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInputError(f"this cannot be written as CBOR: {value} is no JSON number")
    elif isinstance(value, int):
        if not -(2**64) <= value < 2**64:
            raise InvalidInputError("this cannot be written as CBOR: an integer beyond 64 bits")
    elif value is not None and not isinstance(value, (str, bytes)):
        raise InvalidInputError(f"this cannot be written as CBOR: {type(value).__name__}")


def _check_size(data: bytes) -> None:
    """Refuse a large message of too many items before anything is built from it; looks at heads of items alone."""
    place, items, end = 0, 0, len(data)
    while place < end:
        items += 1
        if items > MAX_ITEMS:
            raise MalformedMessageError(f"CBOR of more than {MAX_ITEMS} items", "too-many-items")
        first = data[place]
        major, extra = first >> 5, first & 31
        place += 1
        size = extra
        if 24 <= extra <= 27:
            width = 1 << (extra - 24)
            size = int.from_bytes(data[place : place + width], "big")
            place += width
        # Of a string the bytes are passed over, a container's items follow anyway; cbor2 checks what is well formed.
        if major in (2, 3) and extra != _INDEFINITE:
            place += size
