"""Messages to tokens, by the model's own template; what people and devices say can never become a special token.

The template sees a stand-in for each content. Special tokens are looked for in what the template wrote, and only there;
contents are put in afterwards, as plain text. The template itself comes with the model and runs in a sandbox. A model
that wants a token before every text gets it, whether its template writes it or not.

Source: Hugging Face chat templates; Jinja2 `ImmutableSandboxedEnvironment`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, TypeAlias

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, Field, ValidationError

from edgeagents.errors import InvalidInputError, ModelFileError, TooLargeError
from edgeagents.inference.folder import ModelFolder
from edgeagents.inference.language import Vocabulary
from edgeagents.inference.vocabulary import parts_a_conversation
from edgeagents.model.completion import ChatMessage

CHAT: Final = "chat_template.json"
MOST_CHARACTERS: Final = 1 << 20
Message: TypeAlias = ChatMessage
_BEGIN, _END = "\ue000", "\ue001"  # of a stand-in; private use, so no template writes them
# What is left of one that was cut, or written as JSON or for URLs.
_BROKEN: Final = (_BEGIN, _END, "\\ue000", "%EE%80%80")
_LOST: Final = "the model's chat template cuts, encodes or leaves out what is said here: it cannot write this down"
_RENDER_ERRORS: Final = (
    TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError,
)  # fmt: skip


class _File(BaseModel):
    template: str
    special_tokens: dict[str, int]
    bos_id: int | None = Field(None, ge=0, lt=1 << 32)  # None: no token is wanted before every text
    eos_ids: tuple[int, ...] = ()
    bos_token: str | None = None  # what templates are given; None: a folder made before this was written down
    eos_token: str | None = None

    def word(self, said: str | None, number: int | None) -> str:
        """Return what the template is given for a token: what is said, else the text of its number."""
        if said is not None:
            return said
        return next((word for word, found in self.special_tokens.items() if found == number), "")


class Chat:
    """A model's way to write a conversation down."""

    def __init__(
        self, template: str, special: Mapping[str, int], vocabulary: Vocabulary, *, bos_id: int | None = None,
        bos: str = "", eos: str = "",
    ) -> None:  # fmt: skip
        """Compile a template.

        Args:
            template: Jinja.
            special: its special tokens by their text.
            vocabulary: of the model.
            bos_id: the token that every text begins with; None: the model wants none.
            bos: text of the token at the beginning, for the template; empty: there is none.
            eos: that of the token at the end.

        Raises:
            ModelFileError: it is no template, one nested too deeply, or empty: whatever is said would be no tokens.
        """
        if not template.strip():
            raise ModelFileError(
                "the model has no chat template: take one that was trained for conversations, or import it from a "
                "folder with a chat_template.jinja"
            )
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
        environment.globals |= {"raise_exception": _refuse, "bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(template)
        # It becomes Python, whose own compiler has limits of depth: each is told in its way.
        except (TemplateError, RecursionError, SyntaxError, MemoryError) as error:
            raise ModelFileError(f"chat template: {str(error)[:200] or 'nested too deeply'}") from error
        self._special, self._vocabulary, self._bos_id = special, vocabulary, bos_id
        # Longest first: one special token may begin like another.
        words = "|".join(re.escape(word) for word in sorted(special, key=len, reverse=True) if word)
        self._parts = re.compile(f"({_BEGIN}\\d+{_END}{'|' if words else ''}{words})")

    @classmethod
    def of(cls, folder: ModelFolder, vocabulary: Vocabulary) -> Self:
        """Return the chat of a model.

        Raises:
            InvalidInputError: its file cannot be read, names tokens that its vocabulary does not have, or not one that
                parts a conversation: then whoever writes it in a text could speak for somebody else.
            ModelFileError: it has no template.
        """
        file = folder.file(CHAT)
        try:
            found = _File.model_validate(json.loads(file.read_bytes()))
        except (ValueError, ValidationError, RecursionError) as error:
            raise InvalidInputError(f"{file}: not a chat template: {str(error)[:200]}") from error
        for word, number in found.special_tokens.items():
            if vocabulary.tokenizer.token_to_id(word) != number:
                raise InvalidInputError(f"{file}: {word!r} is not token {number} of this tokenizer")
        for number, token in vocabulary.tokenizer.get_added_tokens_decoder().items():
            is_one = number in found.eos_ids or parts_a_conversation(token.content, found.template)
            if is_one and found.special_tokens.get(token.content) != number:
                raise InvalidInputError(
                    f"{file}: {token.content!r:.80} parts a conversation, but is no special token: import it again"
                )
        bos = found.word(found.bos_token, found.bos_id)
        eos = found.word(found.eos_token, found.eos_ids[0] if found.eos_ids else None)
        if unknown := {bos, eos} - {"", *found.special_tokens}:
            raise InvalidInputError(f"{file}: {sorted(unknown)[0]!r} is no special token of this tokenizer")
        if found.bos_id is not None and vocabulary.tokenizer.id_to_token(found.bos_id) is None:
            raise InvalidInputError(f"{file}: bos_id {found.bos_id} is no token of this tokenizer")
        return cls(found.template, found.special_tokens, vocabulary, bos_id=found.bos_id, bos=bos, eos=eos)

    def tokens(self, messages: Sequence[Message], *, is_answered: bool = True) -> list[int]:
        """Return a conversation as tokens, with the beginning of an answer if one is to follow.

        Raises:
            InvalidInputError: the template cannot write these messages down.
            TooLargeError: they are longer than `MOST_CHARACTERS` together.
        """
        if sum(len(message.content) for message in messages) > MOST_CHARACTERS:
            raise TooLargeError(f"a conversation of more than {MOST_CHARACTERS} characters")
        standing = [
            {"role": message.role, "content": f"{_BEGIN}{at}{_END}" if message.content else ""}
            for at, message in enumerate(messages)
        ]
        try:
            text = self._template.render(messages=standing, add_generation_prompt=is_answered)
        except _RENDER_ERRORS as error:
            raise InvalidInputError(f"the model's chat template cannot write this down: {error!r:.300}") from error
        if text.strip() and standing and standing[-1]["content"] not in text:
            raise InvalidInputError(_LOST)
        found, plain = list[int](), ""
        for part in self._parts.split(text):
            if part in self._special:
                found += [*self._vocabulary.encode(plain), self._special[part]]
                plain = ""
            elif part.startswith(_BEGIN) and part.endswith(_END):
                plain += messages[int(part[1:-1])].content
            elif any(sign in part for sign in _BROKEN):
                raise InvalidInputError(_LOST)
            else:
                plain += part
        found += self._vocabulary.encode(plain)
        if self._bos_id is not None and found[:1] != [self._bos_id]:
            found.insert(0, self._bos_id)
        return found

    def prompt(self, messages: Sequence[Message], constant: int = 0) -> tuple[list[int], int]:
        """Return a conversation that is to be answered, and how many of its tokens are those of its constant part.

        Args:
            messages: of the conversation.
            constant: so many of the first ones are the same each time.
        """
        whole = self.tokens(messages)
        if not constant:
            return whole, 0
        try:
            first = self.tokens(messages[:constant], is_answered=False)
        except InvalidInputError:  # some templates write no beginning alone: nothing of it is kept then
            return whole, 0
        same = next((at for at, pair in enumerate(zip(first, whole, strict=False)) if pair[0] != pair[1]), len(first))
        return whole, min(same, len(whole))


def _refuse(text: Any) -> None:
    raise TemplateError(str(text)[:200])
