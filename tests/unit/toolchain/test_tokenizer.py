"""The tokenizer gives what the file's own merges give, and text never becomes a special token."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.errors import ModelFileError
from tests import tiny_llama
from toolchain.tokenizer import CONTROL, USER_DEFINED, vocabulary_of

# GPT-2's pattern, with what Python's `re` has for letters and numbers; digits stand alone before it is used.
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
TEXTS = [
    "the thing in the thin inn", "it's 12 o'clock and 1212 in 12", "你好，世界 你", "🔥🔥 fire 🔥",
    "  two  spaces \n\n\tand more ",
    "<|im_start|>system<|im_end|>", "price: 1,299.50 in 2026", "",
]  # fmt: skip


def pieces(text: str) -> Iterator[str]:
    """Yield the parts of a text that merges never cross."""
    for part in re.split(r"(\d)", text):
        yield from [part] if part.isdigit() else WORDS.findall(part)


def merged(text: str, merges: list[tuple[str, str]]) -> list[str]:
    """Return a text's tokens: of all neighbours, those first in the list of merges are joined first."""
    parts, ranks = list(tiny_llama.letters_of(text)), {pair: rank for rank, pair in enumerate(merges)}
    while True:
        places = [(ranks[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in ranks]
        if not places:
            return parts
        _, at = min(places)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def expected_ids(text: str) -> list[int]:
    """Return a text's token ids, by nothing but the file's lists."""
    numbers = {token: number for number, token in enumerate(tiny_llama.tokens())}
    return [numbers[token] for piece in pieces(text) for token in merged(piece, tiny_llama.merges())]


def vocabulary(**changes: Any) -> Any:
    """Return the vocabulary of the usual file."""
    return vocabulary_of({**tiny_llama.metadata(), **changes}, len(tiny_llama.tokens()))


@pytest.fixture(scope="module")
def plain() -> Any:
    """Return a tokenizer as who encodes people's text sets it up."""
    tokenizer = vocabulary().tokenizer
    tokenizer.encode_special_tokens = True
    return tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_that_the_files_merges_give(plain: Any, text: str) -> None:
    assert plain.encode(text).ids == expected_ids(text)


@given(st.text(alphabet=st.sampled_from("the in12 3'sd你好🔥<|im_startend|>\n\t.,é"), max_size=40))
def test_any_text_is_encoded_as_its_merges_say_and_comes_back(plain: Any, text: str) -> None:
    ids = plain.encode(text).ids
    assert ids == expected_ids(text)
    assert plain.decode(ids, skip_special_tokens=False) == text


def test_digits_never_join_though_a_merge_would_join_them(plain: Any) -> None:
    assert len(plain.encode("1212").ids) == 4
    joined = vocabulary(**{"tokenizer.ggml.pre": "gpt-2"}).tokenizer
    assert len(joined.encode("1212").ids) == 2


def test_special_tokens_in_text_stay_text_and_those_of_the_template_do_not(plain: Any) -> None:
    written = "<|im_start|>system"
    assert not {0, 1, 2} & set(plain.encode(written).ids)
    assert vocabulary().tokenizer.encode(written).ids[0] == 1
    assert plain.decode([1, 2], skip_special_tokens=False) == "<|im_start|><|im_end|>"
    assert plain.decode([1, 2]) == ""


def test_the_template_comes_with_its_special_tokens_and_ends() -> None:
    assert vocabulary().chat() == {
        "template": tiny_llama.TEMPLATE,
        "special_tokens": {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2},
        "eos_ids": [2, 0],
        "bos_id": None,
        "pad_id": None,
        "bos_token": "",
        "eos_token": "<|im_end|>",
    }


def test_a_token_before_every_text_is_wanted_only_where_the_file_says_so() -> None:
    named = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.add_bos_token": None}
    for wants, bos_id in ((None, None), (False, None), (True, 1)):
        found = vocabulary(**named | {"tokenizer.ggml.add_bos_token": wants}).chat()
        assert (found["bos_id"], found["bos_token"]) == (bos_id, "<|im_start|>")


def test_a_template_that_writes_a_token_which_is_text_is_refused() -> None:
    plain = {"tokenizer.ggml.bos_token_id": 70, "tokenizer.ggml.add_bos_token": True}
    assert vocabulary(**plain).chat()["bos_token"] == ""
    with pytest.raises(ModelFileError, match="writes bos_token"):
        vocabulary(**plain, **{"tokenizer.chat_template": "{{ bos_token }}"})


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("tokenizer.ggml.model", "llama", "only 'gpt2'"),
        ("tokenizer.ggml.pre", "qwen2", "pre-tokenizer"),
        ("tokenizer.ggml.tokens", ["a", "b"], "2 tokens"),
        ("tokenizer.ggml.tokens", 7, "no list"),
        ("tokenizer.ggml.tokens", ["a"] * len(tiny_llama.tokens()), "1 of them different"),
        ("tokenizer.ggml.tokens", ["", *tiny_llama.tokens()[1:]], "token 0 is empty"),
        ("tokenizer.ggml.token_type", [1, 1], "token_type"),
        ("tokenizer.ggml.token_type", [[1]] * len(tiny_llama.tokens()), "token_type"),
        ("tokenizer.ggml.token_type", [9] * len(tiny_llama.tokens()), "token_type"),
        ("tokenizer.ggml.merges", ["t"], "merge"),
        ("tokenizer.ggml.merges", ["t q"], "merge"),
        ("tokenizer.ggml.eos_token_id", 10**6, "eos_token_id"),
        ("tokenizer.chat_template", 3, "no text"),
    ],
)
def test_lists_that_do_not_fit_are_refused(key: str, value: object, text: str) -> None:
    with pytest.raises(ModelFileError, match=text):
        vocabulary(**{key: value})


def test_ends_and_roles_that_a_file_calls_user_defined_are_kept_from_texts_and_other_words_are_not() -> None:
    kinds = [CONTROL, USER_DEFINED, USER_DEFINED, *[1] * (len(tiny_llama.tokens()) - 3)]
    kinds[-1] = USER_DEFINED
    found = vocabulary(**{"tokenizer.ggml.token_type": kinds})
    assert found.special == vocabulary().special
    found.tokenizer.encode_special_tokens = True
    assert not {0, 1, 2} & set(found.tokenizer.encode("<|im_end|><|im_start|>", add_special_tokens=False).ids)
    last = tiny_llama.tokens()[-1]
    assert last not in found.special
