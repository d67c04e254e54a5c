"""How agents ask a language model: the gateway's shared one over NATS, or any OpenAI-compatible server over HTTP.

`LanguageClient` is all an agent knows; `adapters/inference_local.py` is the third way: a model in the agent's process.
Whoever answers, `model/answer.py` reads the text again: a server without grammars may say anything.

Source: OpenAI API reference, chat completions; `services/inference`.
"""

from typing import Protocol

from edgeagents.model.completion import Completion, CompletionRequest


class LanguageClient(Protocol):
    """Whoever writes texts for an agent."""

    async def complete(self, request: CompletionRequest) -> Completion:
        """Return what was written, within `request.budget_s`; a capped text is marked (`is_capped`).

        Raises:
            UnavailableError: no model is there (yet), or nobody answers in time.
            TooManyAttemptsError: it is busy; `retry_after_s` says when to ask again.
            InvalidInputError: the request cannot be fulfilled: such a schema, such messages.
            TooLargeError: the prompt is too long.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; what waits for an answer gets an UnavailableError."""
        ...
