"""Which vocabulary a graph was made with, in one line: each of its rows is a token, whatever a tokenizer says.

The tokenizer of another model may have as many tokens: then everything runs, and nothing that is said means anything.
What a graph says of itself it carries along as metadata under `METADATA`. Leaves out how texts are cut into tokens.

Source: onnx.proto, ModelProto.metadata_props.
"""

import hashlib
import json
from typing import Final

from tokenizers import Tokenizer

METADATA: Final = "vocabulary_sha256"


def vocabulary_digest(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of all tokens and their numbers, in the order of the numbers, in hex."""
    pairs = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode()).hexdigest()
