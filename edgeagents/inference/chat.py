"""Messages to tokens, by the model's own template; what people and devices say can never become a special token.

The template sees a stand-in for each content. Special tokens are looked for in what the template wrote, and only there;
contents are put in afterwards, as plain text. The template itself comes with the model and runs in a sandbox.

Source: Hugging Face chat templates; Jinja2 `ImmutableSandboxedEnvironment`.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final, Self, TypeAlias

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ValidationError

from edgeagents.errors import InvalidInputError, ModelFileError, TooLargeError
from edgeagents.inference.folder import ModelFolder
from edgeagents.inference.language import Vocabulary
from edgeagents.model.completion import ChatMessage

CHAT: Final = "chat_template.json"
MOST_CHARACTERS: Final = 1 << 20
Message: TypeAlias = ChatMessage
_BEGIN, _END = "\ue000", "\ue001"  # of a stand-in; private use, so no template writes them


class _File(BaseModel):
    template: str
    special_tokens: dict[str, int]


class Chat:
    """A model's way to write a conversation down."""

    def __init__(self, template: str, special: dict[str, int], vocabulary: Vocabulary) -> None:
        """Compile a template.

        Raises:
            InvalidInputError: it is none.
            ModelFileError: it is empty: then whatever is said would be a prompt of no tokens.
        """
        if not template.strip():
            raise ModelFileError(
                "the model has no chat template: take one that was trained for conversations, or import it from a "
                "folder with a chat_template.jinja"
            )
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(template)
        except TemplateError as error:
            raise InvalidInputError(f"chat template: {error}") from error
        self._special, self._vocabulary = special, vocabulary
        # Longest first: one special token may begin like another.
        words = "|".join(re.escape(word) for word in sorted(special, key=len, reverse=True) if word)
        self._parts = re.compile(f"({_BEGIN}\\d+{_END}{'|' if words else ''}{words})")

    @classmethod
    def of(cls, folder: ModelFolder, vocabulary: Vocabulary) -> Self:
        """Return the chat of a model.

        Raises:
            InvalidInputError: its file cannot be read, or names tokens that its vocabulary does not have.
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
        return cls(found.template, found.special_tokens, vocabulary)

    def tokens(self, messages: Sequence[Message], *, is_answered: bool = True) -> list[int]:
        """Return a conversation as tokens, with the beginning of an answer if one is to follow.

        Raises:
            InvalidInputError: the template cannot write these messages down.
            TooLargeError: they are longer than `MOST_CHARACTERS` together.
        """
        if sum(len(message.content) for message in messages) > MOST_CHARACTERS:
            raise TooLargeError(f"a conversation of more than {MOST_CHARACTERS} characters")
        standing = [{"role": message.role, "content": f"{_BEGIN}{at}{_END}"} for at, message in enumerate(messages)]
        try:
            text = self._template.render(
                messages=standing, add_generation_prompt=is_answered, bos_token="", eos_token=""
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise InvalidInputError(f"the model's chat template cannot write this down: {error}") from error
        found, plain = list[int](), ""
        for part in self._parts.split(text):
            if part in self._special:
                found += [*self._vocabulary.encode(plain), self._special[part]]
                plain = ""
            elif part.startswith(_BEGIN) and part.endswith(_END):
                plain += messages[int(part[1:-1])].content
            else:
                plain += part
        return [*found, *self._vocabulary.encode(plain)]

    def prompt(self, messages: Sequence[Message], constant: int = 0) -> tuple[list[int], int]:
        """Return a conversation that is to be answered, and how many of its tokens are those of its constant part.

        Args:
            messages: of the conversation.
            constant: so many of the first ones are the same each time.
        """
        whole = self.tokens(messages)
        if not constant:
            return whole, 0
        first = self.tokens(messages[:constant], is_answered=False)
        same = next((at for at, pair in enumerate(zip(first, whole, strict=False)) if pair[0] != pair[1]), len(first))
        return whole, min(same, len(whole))


def _refuse(text: Any) -> None:
    raise TemplateError(str(text)[:200])
