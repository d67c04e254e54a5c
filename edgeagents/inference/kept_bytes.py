"""A kept piece of a prompt as bytes, for the model it was computed with and no other.

Each piece is for itself, told by all the tokens before it: a role's constant part is written once, and what a second
role shares with it is not written again. Floats are stored as they are, so a prompt goes on bit for bit the same way.
"""

import hashlib
import json
import struct
from typing import Any, Final

import numpy as np

from edgeagents.errors import InvalidInputError
from edgeagents.inference.prefix import KeptPiece, Piece

MAGIC: Final = b"edgeagents prefix 2\n"
MOST_TOKENS: Final = 1 << 20  # the longest row that the service's settings allow
_LENGTH: Final = struct.Struct("<Q")
_DIGEST_BYTES: Final = 32


def name_of(path: tuple[Piece, ...], model: str) -> str:
    """Return the name of a piece: what computed it, how deep it lies, what it is; `model` is the folder's digest."""
    return f"{model_name(model)}.{len(path):05d}.{hashlib.sha256(json.dumps(path).encode()).hexdigest()[:40]}"


def model_name(model: str) -> str:
    """Return what the names of all pieces of a model begin with, up to a point."""
    return model[:16]


def to_bytes(piece: KeptPiece, model: str) -> bytes:
    """Return bytes that `from_bytes` reads; `model` is the digest of the model's folder."""
    header = json.dumps({"model": model, "path": piece.path}, separators=(",", ":")).encode()
    floats = np.ascontiguousarray(piece.block, "<f4").tobytes()
    body = b"".join((MAGIC, _LENGTH.pack(len(header)), header, floats))
    return body + hashlib.sha256(body).digest()


def from_bytes(data: bytes, model: str, shape: tuple[int, int, int, int]) -> KeptPiece:
    """Return the piece that `to_bytes` wrote.

    Args:
        data: from `to_bytes`.
        model: digest of the model's folder.
        shape: of one token's block: layers, 2, kv_heads, head_dim.

    Raises:
        InvalidInputError: it was changed, is not whole, or is another model's.
    """
    body = memoryview(data)[:-_DIGEST_BYTES]
    if not data.startswith(MAGIC) or hashlib.sha256(body).digest() != data[-_DIGEST_BYTES:]:
        raise InvalidInputError("a kept beginning: changed or not whole: it is computed again")
    header, floats = _header(body)
    if header.get("model") != model:
        raise InvalidInputError("a kept beginning: of another model: it is computed again")
    path = _path(header.get("path"))
    layers, two, heads, width = shape
    wanted = (layers, two, heads, len(path[-1]), width)
    if len(floats) != 4 * int(np.prod(wanted)):
        raise InvalidInputError("a kept beginning: of another shape: it is computed again")
    block = np.frombuffer(floats, "<f4").reshape(wanted).astype(np.float32)
    if not np.isfinite(block).all():
        raise InvalidInputError("a kept beginning: not all of it are numbers: it is computed again")
    return KeptPiece(path, block)


def _header(body: memoryview) -> tuple[dict[str, Any], memoryview]:
    try:
        (length,) = _LENGTH.unpack_from(body, len(MAGIC))
        start = len(MAGIC) + _LENGTH.size
        if length > len(body) - start:
            raise ValueError("a header that is longer than the whole")
        header = json.loads(bytes(body[start : start + length]))
        if not isinstance(header, dict):
            raise ValueError("no header")
    except (ValueError, struct.error, RecursionError) as error:
        raise InvalidInputError(f"a kept beginning: cannot be read: {error}: it is computed again") from error
    return header, body[start + length :]


def _path(found: Any) -> tuple[Piece, ...]:
    """Return a path of pieces, none of them empty, of whole numbers."""
    is_path = isinstance(found, list) and found and all(isinstance(piece, list) and piece for piece in found)
    tokens = [token for piece in found for token in piece] if is_path else []
    if not tokens or len(tokens) > MOST_TOKENS or not all(type(token) is int and token >= 0 for token in tokens):
        raise InvalidInputError("a kept beginning: no path of tokens: it is computed again")
    return tuple(tuple(piece) for piece in found)
