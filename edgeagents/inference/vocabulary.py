"""Which vocabulary a graph was made with, in one line: each of its rows is a token, whatever a tokenizer says.

The tokenizer of another model may have as many tokens: then everything runs, and nothing that is said means anything.
What a graph says of itself it carries along as metadata under `METADATA`. Leaves out how texts are cut into tokens.

Source: onnx.proto, ModelProto.metadata_props.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tokenizers import Tokenizer

METADATA: Final = "vocabulary_sha256"
_ROLE: Final = re.compile(r"<\|.+\|>", re.DOTALL)
_MARK: Final = re.compile(r"[^\w\s].+[^\w\s]", re.DOTALL)
_ANSWERED: Final = re.compile(r"</?(?:think|tool_call)>")  # models write these themselves, and readers look for them


def vocabulary_digest(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of all tokens and their numbers, in the order of the numbers, in hex."""
    pairs = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode()).hexdigest()


def parts_a_conversation(word: str, template: str) -> bool:
    """Return whether a token is for templates alone: who could write it in a text could speak for somebody else.

    Args:
        word: a token that was added to a vocabulary, and so is found in any text unless it is a special one.
        template: the model's chat template.
    """
    if _ANSWERED.fullmatch(word):
        return False
    return _ROLE.fullmatch(word) is not None or (_MARK.fullmatch(word) is not None and word in template)


@contextmanager
def panics_told() -> Iterator[None]:
    """Make a panic of a package written in Rust, which no `except Exception` would see, an error like any other.

    Raises:
        RuntimeError: there was one.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}"[:300]) from error
