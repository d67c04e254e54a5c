"""`edgeagents ask`: says something to an agent that answers people, and shows what was done and proven.

Source: docs/ask.md.
"""

import asyncio
import json
import sys
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.cli.doctor import Json
from edgeagents.cli.lines import clean, json_of
from edgeagents.cli.place import DEFAULT_PLACE, Place
from edgeagents.errors import InvalidInputError, UnavailableError, UpstreamError, error_for_status
from edgeagents.permissions import MICRO_INBOX

CLIENT: Final = "edgeagents-ask"
LEEWAY_S: Final = 5.0  # for the way to the agent and back
_STYLES: Final = {
    "done": "green", "told": "", "help": "", "asked-back": "yellow", "waits-for-approval": "yellow",
    "pending": "yellow", "partly": "yellow", "refused": "red", "failed": "red", "expired": "red",
    "uncertain": "red", "not-understood": "red",
}  # fmt: skip
_UNDERSTOOD: Final = frozenset(("done", "told", "help", "asked-back", "waits-for-approval", "pending"))


def ask(
    *text: str,
    agent: Annotated[str, Parameter(help="name of the agent that answers people")] = "assistant",
    wait: Annotated[float, Parameter(help="longest wait for the proof, seconds")] = 10.0,
    request_id: Annotated[str, Parameter(help="asked again under the same id, nothing is done twice")] = "",
    place: Place = DEFAULT_PLACE,
    json_: Json = False,
) -> None:
    """Say something in English or Chinese: "it is stuffy in the bedroom", "打开卧室的灯".

    Args:
        text: what you would say to a person.
    """
    where = place.resolved()
    body = {"text": " ".join(text), "requestId": request_id or str(uuid.uuid4()), "waitSeconds": wait}
    answer = asyncio.run(_ask(where, agent, written(body), wait))
    if json_:
        print(json_of(answer))
    else:
        for line in lines(answer):
            Console(soft_wrap=True, highlight=False).print(line)
    if answer.get("kind") not in _UNDERSTOOD:
        sys.exit(1)


async def _ask(place: Place, agent: str, body: bytes, wait_s: float) -> dict[str, Any]:
    bus = await Bus.connect(place.bus_settings(), CLIENT)
    try:
        answers = await bus.gather(
            subjects.ask(place.gateway, agent), body, inbox=MICRO_INBOX, wait_s=wait_s + LEEWAY_S, most=1
        )
    finally:
        await bus.close()
    return answer_of(answers, agent, place.gateway)


def written(body: Mapping[str, Any]) -> bytes:
    """Return a question as it is sent.

    Raises:
        InvalidInputError: bytes of the command line that are no UTF-8, or a wait that JSON cannot hold.
    """
    for name, value in body.items():
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except ValueError as error:  # UnicodeEncodeError is one
            raise InvalidInputError(f"{name}: {value!r} cannot be sent: {error}") from error
    return json.dumps(body, ensure_ascii=False).encode()


def answer_of(answers: list[bytes], agent: str, gateway: str) -> dict[str, Any]:
    """Return the first answer.

    Raises:
        UnavailableError: nobody answered.
        UpstreamError: what came is no answer.
        TheirError: the agent refused the question; the error says why.
    """
    if not answers:
        raise UnavailableError(
            f"agent {agent!r} on gateway {gateway!r} does not answer: is it up, and does its file say `answers: true`?"
        )
    try:
        found = json.loads(answers[0])
        status = int(found["statusCode"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise UpstreamError(f"agent {agent!r} sent no answer: {error}") from error
    if status >= 400:
        raise error_for_status(status, str(found.get("message", found)))
    return dict(found)


def lines(answer: Mapping[str, Any]) -> list[Text]:
    """Return an answer for people: its text, then where each command can be looked up."""
    found = [Text(clean(str(answer.get("answer", ""))), style=_STYLES.get(str(answer.get("kind")), ""))]
    commands = answer.get("commands")
    for item in commands if isinstance(commands, list) else []:
        if isinstance(item, Mapping) and item.get("commandId"):
            what = f"{item.get('deviceName')}/{item.get('resourceName')} = {item.get('value')}: {item.get('status')}"
            found.append(Text(clean(f"  {what} · edgeagents why {item['commandId']}"), style="dim"))
    return found
