"""The tokenizer and the chat template of a GGUF file, as `tokenizer.json` and `chat_template.json`.

Byte-level byte-pair encoding. `smollm` first parts every digit from what is around it.

Special tokens in what people write must stay text: who encodes it sets `encode_special_tokens = True` on the loaded
tokenizer (the file format has no place for it) and adds the special tokens of the template by their ids.

Source: GGUF keys `tokenizer.ggml.*`; llama.cpp, llama-vocab.cpp (pre-tokenizers `smollm`, `gpt-2`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from edgeagents.errors import ModelFileError
from edgeagents.inference.vocabulary import parts_a_conversation
from toolchain.llama_shape import int_of

KINDS = NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # token types of GGUF; nothing else is in byte-level vocabularies
ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>")  # llama.cpp stops at each of them
MOST_MERGE_PARTS = 2


@dataclass(frozen=True)
class Vocabulary:
    """What a file says of its tokens.

    Args:
        tokenizer: ready to be saved.
        template: the chat template, Jinja; empty when the file has none.
        special: ids of the special tokens by their text.
        eos_ids: tokens that end an answer, the file's own first.
        bos_id: token before every text; None when the model wants none.
        pad_id: token that fills up rows; None when the file names none.
        bos: what the template is given as the text of the token at the beginning, wanted before every text or not.
        eos: the same of the token at the end.
    """

    tokenizer: Tokenizer
    template: str
    special: dict[str, int]
    eos_ids: tuple[int, ...]
    bos_id: int | None
    pad_id: int | None
    bos: str = ""
    eos: str = ""

    def chat(self) -> dict[str, Any]:
        """Return what `chat_template.json` holds."""
        return {
            "template": self.template,
            "special_tokens": self.special,
            "eos_ids": list(self.eos_ids),
            "bos_id": self.bos_id,
            "pad_id": self.pad_id,
            "bos_token": self.bos,
            "eos_token": self.eos,
        }


def vocabulary_of(metadata: dict[str, Any], size: int) -> Vocabulary:
    """Return the vocabulary in a file's metadata; `size` is the number of rows of the embedding.

    Raises:
        ModelFileError: another kind of tokenizer, or lists that do not fit each other or the model.
    """
    if metadata.get("tokenizer.ggml.model") != "gpt2":
        raise ModelFileError(f"tokenizer {metadata.get('tokenizer.ggml.model')!r} is not supported: only 'gpt2' is")
    tokens = _texts(metadata, "tokenizer.ggml.tokens")
    kinds = metadata.get("tokenizer.ggml.token_type")
    if len(tokens) != size or len(set(tokens)) != size:
        raise ModelFileError(f"{len(tokens)} tokens, {len(set(tokens))} of them different: the model has {size}")
    if "" in tokens:
        raise ModelFileError(f"token {tokens.index('')} is empty: any text would be full of it")
    if not isinstance(kinds, list) or len(kinds) != size or any(kind not in KINDS for kind in kinds):
        raise ModelFileError(f"tokenizer.ggml.token_type must say normal, control or user-defined of {size} tokens")
    tokenizer = _tokenizer(metadata, tokens)
    eos, bos, template = _id(metadata, "eos", size), _id(metadata, "bos", size), _template(metadata)
    if eos is None:
        raise ModelFileError("tokenizer.ggml.eos_token_id is missing: nothing would end an answer")
    # Some files have their roles and ends among the user-defined: those are found in any text, and must not be.
    own = [token for number, token in enumerate(tokens) if kinds[number] == USER_DEFINED]
    kept = {token for token in own if is_special(token, template)} | {tokens[at] for at in (eos, bos) if at is not None}
    special = {
        token: number for number, token in enumerate(tokens)
        if kinds[number] == CONTROL or (kinds[number] == USER_DEFINED and token in kept)
    }  # fmt: skip
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in own if token not in special])
    ends = (eos, *(special[end] for end in ENDS if end in special and special[end] != eos))
    # llama.cpp adds one unasked for other kinds of tokenizers only.
    wants_bos = metadata.get("tokenizer.ggml.add_bos_token", False) is True
    return Vocabulary(
        tokenizer, template, special, ends, bos if wants_bos else None, _id(metadata, "padding", size),
        given("bos_token", "" if bos is None else tokens[bos], special, template),
        given("eos_token", tokens[eos], special, template),
    )  # fmt: skip


def is_special(word: str, template: str) -> bool:
    """Return whether an added token is kept from what people write, even if its file does not call it special."""
    return word in ENDS or parts_a_conversation(word, template)


def given(name: str, word: str, special: Mapping[str, int], template: str) -> str:
    """Return what a template is given as a token's text; empty when it is no special token and not asked for.

    Raises:
        ModelFileError: the template writes it, and it would be text like any other.
    """
    if not word or word in special:
        return word
    if name in template:
        raise ModelFileError(f"the chat template writes {name}, {word!r:.80}, which is no special token")
    return ""


def _tokenizer(metadata: dict[str, Any], tokens: list[str]) -> Tokenizer:
    numbers = {token: number for number, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ")) for merge in _texts(metadata, "tokenizer.ggml.merges")]
    for pair in pairs:
        if (
            len(pair) != MOST_MERGE_PARTS
            or pair[0] not in numbers
            or pair[1] not in numbers
            or "".join(pair) not in numbers
        ):
            raise ModelFileError(f"merge {' '.join(pair)!r} does not join two tokens to a third")
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=[(left, right) for left, right in pairs]))
    tokenizer.pre_tokenizer = _parts(metadata.get("tokenizer.ggml.pre", "default"))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _parts(name: object) -> pre_tokenizers.PreTokenizer:
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    match name:
        case "smollm":
            return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
        case "gpt-2":
            return words
    raise ModelFileError(f"pre-tokenizer {name!r} is not supported: 'smollm' and 'gpt-2' are")


def _texts(metadata: dict[str, Any], key: str) -> list[str]:
    texts = metadata.get(key)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ModelFileError(f"{key} is no list of texts: the file holds no tokenizer that can be read")
    return texts


def _id(metadata: dict[str, Any], name: str, size: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    return int_of(metadata, key, least=0, most=size - 1) if key in metadata else None


def _template(metadata: dict[str, Any]) -> str:
    template = metadata.get("tokenizer.chat_template", "")
    if not isinstance(template, str):
        raise ModelFileError("tokenizer.chat_template is no text")
    return template
