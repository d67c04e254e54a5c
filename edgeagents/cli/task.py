"""`edgeagents task`: give a task to whoever does it best, look at tasks, cancel and watch them.

Source: docs/tasks.md; cyclopts 5.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import httpx
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeagents.cli import led
from edgeagents.cli.lines import clean
from edgeagents.cli.source import DEFAULT as DEFAULT_BROKER
from edgeagents.cli.source import Broker
from edgeagents.errors import InvalidInputError, UnavailableError, UpstreamError, error_for_status

DEFAULT: Final = "http://127.0.0.1:59741"
Coordinator = Annotated[
    str, Parameter(name="--coordinator", env_var="EDGEAGENTS_COORDINATOR_URL", help="address of the coordinator")
]
Leader = Annotated[
    str, Parameter(help="an agent that leads it while no coordinator is there, asked over NATS; none: the coordinator")
]
Id = Annotated[str, Parameter(help="the task's id")]
State = Literal["", "open", "awarded", "taken", "done", "failed", "cancelled"]
STYLES: Final = {"done": "green", "failed": "red", "cancelled": "yellow", "taken": "cyan", "awarded": "cyan"}
task = App(name="task", help="Give tasks to agents, look at them, cancel and watch them.")


@task.command
def submit(
    skill: Annotated[str, Parameter(help="what is to be done: set, or a skill of an agent's file")],
    /,
    *,
    set_: Annotated[str, Parameter(name="--set", help="device/resource=value")] = "",
    param: Annotated[tuple[str, ...], Parameter(help="name=value for a skill's template; may be repeated")] = (),
    deadline: Annotated[float, Parameter(help="seconds from now; then it has failed")] = 30.0,
    id_: Annotated[str, Parameter(name="--id", help="given twice it is one task")] = "",
    wait: Annotated[bool, Parameter(help="until it has ended; exit 1 unless it is done")] = False,
    coordinator: Coordinator = DEFAULT,
    leader: Leader = "",
    broker: Broker = DEFAULT_BROKER,
) -> None:
    """Give a task: the best bid among the agents that can do it wins."""
    body: dict[str, Any] = {"skill": skill, "deadlineS": deadline, "params": dict(map(_pair, param))}
    if set_:
        place, value = _pair(set_)
        device, slash, resource = place.rpartition("/")
        if not slash:
            raise InvalidInputError(f"--set {set_}: write device/resource=value")
        body |= {"deviceName": device, "resourceName": resource, "value": value}
    given = {"task": body | ({"id": id_} if id_ else {})}
    answer = led.ask(broker, leader, "submit", given) if leader else call("POST", coordinator, "/api/v3/task", given)
    name = str(answer["id"])
    if not wait:
        print(name)
        return
    changes = led.changes(broker, leader, name, deadline) if leader else _changes(coordinator, _watch_path(name))
    if _followed(changes) != "done":
        sys.exit(1)


@task.command(name="list")
def list_(
    *, state: Annotated[State, Parameter(help="those in one state")] = "", limit: int = 20,
    coordinator: Coordinator = DEFAULT, leader: Leader = "", broker: Broker = DEFAULT_BROKER,
) -> None:  # fmt: skip
    """List tasks, the newest first."""
    path = f"/api/v3/task/all?limit={limit}" + (f"&state={state}" if state else "")
    found = led.ask(broker, leader, "list", {"state": state}) if leader else call("GET", coordinator, path)
    table = Table("id", "state", "what", "winner", "why", box=None, header_style="dim")
    for item in found["tasks"][:limit]:
        table.add_row(*(Text(clean(text), style=style) for text, style in _cells(item)))
    Console().print(table if found["tasks"] else "no task yet")


@task.command
def show(
    name: Id, /, *, coordinator: Coordinator = DEFAULT, leader: Leader = "", broker: Broker = DEFAULT_BROKER
) -> None:
    """Show where a task stands, and why."""
    found = led.ask(broker, leader, "get", {"id": name}) if leader else call("GET", coordinator, _path(name))
    _print(found["task"])


@task.command
def cancel(
    name: Id, /, *, coordinator: Coordinator = DEFAULT, leader: Leader = "", broker: Broker = DEFAULT_BROKER
) -> None:
    """End a task, whoever has it; a command that is under way is not called back."""
    found = led.ask(broker, leader, "cancel", {"id": name}) if leader else call("DELETE", coordinator, _path(name))
    _print(found["task"])


@task.command
def watch(name: Id = "", /, *, coordinator: Coordinator = DEFAULT) -> None:
    """Follow a task to its end, or all tasks until Ctrl-C."""
    try:
        _followed(_changes(coordinator, _watch_path(name)))
    except KeyboardInterrupt:
        return


def call(method: str, coordinator: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a coordinator's answer.

    Raises:
        UnavailableError: it cannot be reached.
        UpstreamError: what answers is no coordinator.
        EdgeAgentsError: what its error answer means.
    """
    try:
        answer = httpx.request(method, f"{coordinator.rstrip('/')}{path}", json=body, timeout=15.0)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnavailableError(f"coordinator {coordinator}: {error}: is it up, is --coordinator right?") from error
    return _content(coordinator, answer)


def _content(coordinator: str, answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError as error:
        text = f"coordinator {coordinator}: answered {answer.status_code} without JSON: is it a coordinator?"
        raise UpstreamError(text) from error
    if not isinstance(content, dict):
        raise UpstreamError(f"coordinator {coordinator}: answered {answer.status_code} with no object")
    if answer.is_error:
        raise error_for_status(answer.status_code, str(content.get("message", content)))
    return content


def _path(name: str) -> str:
    return f"/api/v3/task/id/{quote(name, safe='')}"


def _watch_path(name: str) -> str:
    return f"{_path(name)}/watch" if name else "/api/v3/task/watch"


def _followed(changes: Iterator[dict[str, Any]]) -> str:
    """Print changes as they come; return the state the last one told."""
    state, console = "", Console(soft_wrap=True)
    for item in changes:
        state = str(item["state"])
        cells = _cells(item)
        console.print(Text("  ").join(Text(clean(text), style=style) for text, style in cells))
    return state


def _changes(coordinator: str, path: str) -> Iterator[dict[str, Any]]:
    timeout = httpx.Timeout(30.0, connect=5.0)  # it says every ten seconds that it is there
    try:
        with httpx.stream("GET", f"{coordinator.rstrip('/')}{path}", timeout=timeout) as answer:
            if answer.is_error:
                answer.read()
                _content(coordinator, answer)
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise UnavailableError(f"coordinator {coordinator}: {error}: is it up, is --coordinator right?") from error


def _cells(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    wanted = item["task"]
    what = str(wanted["skill"])
    if wanted.get("deviceName"):
        what += f" {wanted['deviceName']}/{wanted.get('resourceName', '')} = {wanted.get('value', '')}"
    state = str(item["state"])
    return [(item["id"], "bold"), (state, STYLES.get(state, "")), (what, ""), (item["winner"], ""),
            (item["reason"], "dim")]  # fmt: skip


def _print(item: Mapping[str, Any]) -> None:
    console = Console(soft_wrap=True)
    console.print(Text("  ").join(Text(clean(text), style=style) for text, style in _cells(item)))
    console.print(Text(clean(f"given by {item['giver']}"), style="dim"))
    for award in item["awards"]:
        bids = ", ".join(f"{agent} {cost:g}" for agent, cost in sorted(award["bids"].items(), key=lambda pair: pair[1]))
        console.print(Text(clean(f"award {award['epoch']}: {award['winner']}; bids: {bids}")))
    for reason in item["reasons"]:
        console.print(Text(clean(f"- {reason}")))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InvalidInputError(f"{text!r}: write name=value")
    return name, value
