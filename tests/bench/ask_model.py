"""What a language model makes of labelled sentences, by the prompt and the reading that an agent uses."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeagents.adapters.files import load_agent
from edgeagents.adapters.inference_local import LocalInference
from edgeagents.errors import EdgeAgentsError, InvalidInputError
from edgeagents.inference.engine import Engine
from edgeagents.model.agent import Intent
from edgeagents.model.answer import CommandAnswer, QuestionAnswer, parse_answer
from edgeagents.model.options import Options, options_of
from edgeagents.model.values import same_value
from services.agent.prompts import question_prompt
from services.agent.understanding import Act, AskBack, Cannot, Understood
from tests.bench.ask_set import HOME, Item, Verdict, devices, home, judge, profiles, state

BUDGET_S = 120.0  # the score is of the answers, not of this machine's speed


@dataclass(frozen=True, slots=True)
class Said:
    """What the model made of a sentence: as it is, and how sure it was."""

    verdict: Verdict
    confidence: float
    seconds: float


def home_options() -> Options:
    """Return what the home's assistant may answer."""
    agent = load_agent(HOME / "agents" / "assistant.yaml")
    present = {(thing.device, name): sample.value for thing in home().things for name in thing.roles.values()
               if (sample := state().latest((thing.device, name))) is not None}  # fmt: skip
    return options_of(agent, devices(), profiles(), present)


class ModelPath:
    """Understands by the model alone."""

    def __init__(self, folder: Path) -> None:
        self._engine = Engine.load(folder, time.monotonic, rows=1)
        self._engine.start()
        self.client = LocalInference(lambda: self._engine)
        self._house, self._state, self.options = home(), state(), home_options()

    def close(self) -> None:
        """End the engine."""
        self._engine.close()

    async def answer(self, text: str) -> tuple[str, float]:
        """Return the text of the model's answer and its confidence; a capped one has none."""
        request = question_prompt(text, self._house, self.options, self._state, BUDGET_S)
        try:
            done = await self.client.complete(request)
        except EdgeAgentsError:
            return "", 0.0
        return done.text, done.confidence

    async def judge(self, item: Item) -> Said:
        """Return how the model did with a labelled sentence."""
        began_s = time.monotonic()
        text, confidence = await self.answer(item.text)
        return Said(judge(self._understood(text), item.want), confidence, time.monotonic() - began_s)

    def _understood(self, text: str) -> Understood | None:
        try:
            answer = parse_answer(text, self.options)
        except InvalidInputError:
            return None
        match answer:
            case CommandAnswer(device, resource, value):
                intent = Intent(device, resource, value, "", "language-model")
                now = self._state.latest((device, resource))
                is_so = now is not None and same_value(now.value, value, 1e-6)
                return Act((), (intent,)) if is_so else Act((intent,))
            case QuestionAnswer():
                return AskBack("room")
        return Cannot("no-such-thing")


def summary(said: list[tuple[Item, Said]], sure: float) -> dict[str, Any]:
    """Return shares of right answers and counts of harmful ones, as they are and when less sure ones are asked back."""
    count = len(said)
    acted = [(item, one) for item, one in said if one.confidence >= sure]
    return {
        "n": count,
        "right": round(sum(one.verdict == "right" for _, one in said) / max(1, count), 3),
        "harmful": sum(one.verdict == "harmful" for _, one in said),
        "sure": sure,
        "sure_n": len(acted),
        "sure_right": sum(one.verdict == "right" for _, one in acted),
        "sure_harmful": sum(one.verdict == "harmful" for _, one in acted),
        "median_s": round(sorted(one.seconds for _, one in said)[count // 2], 2) if said else 0.0,
    }
