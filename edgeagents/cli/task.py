"""`edgeagents task`: give a task to whoever does it best, look at tasks, cancel and watch them.

Source: docs/tasks.md; cyclopts 5.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Annotated, Any, Final, Literal

import httpx
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeagents.cli import led, service
from edgeagents.cli.lines import clean
from edgeagents.cli.source import DEFAULT as DEFAULT_BROKER
from edgeagents.cli.source import Broker
from edgeagents.errors import InvalidInputError, UnavailableError, UpstreamError

DEFAULT: Final = "http://127.0.0.1:59741"
OPTION: Final = "--coordinator"
LIMIT_S: Final = 15.0
LONGEST_LINE: Final = 1 << 20  # what `watch` tells of a task is some hundred bytes
Coordinator = Annotated[
    str, Parameter(name=OPTION, env_var="EDGEAGENTS_COORDINATOR_URL", help="address of the coordinator")
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
    with understood(coordinator, leader):
        name = str(answer["id"])
    if not wait:
        print(clean(name))
        return
    changes = led.changes(broker, leader, name, deadline) if leader else _changes(coordinator, _watch_path(name))
    if _followed(changes, coordinator, leader) != "done":
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
    with understood(coordinator, leader):
        rows = [_cells(item) for item in service.objects(found, "tasks")[:limit]]
    for row in rows:
        table.add_row(*(Text(clean(text), style=style) for text, style in row))
    Console().print(table if rows else "no task yet")


@task.command
def show(
    name: Id, /, *, coordinator: Coordinator = DEFAULT, leader: Leader = "", broker: Broker = DEFAULT_BROKER
) -> None:
    """Show where a task stands, and why."""
    found = led.ask(broker, leader, "get", {"id": name}) if leader else call("GET", coordinator, _path(name))
    _print(found, coordinator, leader)


@task.command
def cancel(
    name: Id, /, *, coordinator: Coordinator = DEFAULT, leader: Leader = "", broker: Broker = DEFAULT_BROKER
) -> None:
    """End a task, whoever has it; a command that is under way is not called back."""
    found = led.ask(broker, leader, "cancel", {"id": name}) if leader else call("DELETE", coordinator, _path(name))
    _print(found, coordinator, leader)


@task.command
def watch(name: Id = "", /, *, coordinator: Coordinator = DEFAULT) -> None:
    """Follow a task to its end, or all tasks until Ctrl-C."""
    try:
        _followed(_changes(coordinator, _watch_path(name)), coordinator)
    except KeyboardInterrupt:
        return


def call(method: str, coordinator: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a coordinator's answer; raises as `service.call`."""
    return service.call(_coordinator(coordinator), method, path, body=body, limit_s=LIMIT_S)


def understood(coordinator: str, leader: str = "") -> AbstractContextManager[None]:
    """Read an answer of a coordinator, or of the agent that leads, within; raises as `service.understood`."""
    if leader:
        return service.understood(f"agent {leader!r}", "leader")
    return service.understood(_coordinator(coordinator), "coordinator")


def _coordinator(url: str) -> service.Service:
    return service.Service("coordinator", OPTION, url)


def _path(name: str) -> str:
    return f"/api/v3/task/id/{service.segment(name)}"


def _watch_path(name: str) -> str:
    return f"{_path(name)}/watch" if name else "/api/v3/task/watch"


def _followed(changes: Iterator[dict[str, Any]], coordinator: str, leader: str = "") -> str:
    """Print changes as they come; return the state the last one told."""
    state, console = "", Console(soft_wrap=True)
    for item in changes:
        with understood(coordinator, leader):
            state, line = str(item["state"]), _line(item)
        console.print(line)
    return state


def _changes(coordinator: str, path: str) -> Iterator[dict[str, Any]]:
    asked = _coordinator(coordinator)
    timeout = httpx.Timeout(30.0, connect=5.0)  # it says every ten seconds that it is there
    try:
        url = f"{asked.base}{path}"
        with httpx.stream("GET", url, timeout=timeout, trust_env=False, verify=service.trusted(url)) as answer:
            if answer.is_error:
                service.content_of(asked, httpx.Response(answer.status_code, content=_beginning_of(answer)))
            for line in _lines_of(answer, asked):
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError, OverflowError) as error:
        raise UnavailableError(f"{asked}: {error}: is it up, is {OPTION} right?") from error


def _beginning_of(answer: httpx.Response) -> bytes:
    found = b""
    for part in answer.iter_bytes():
        found += part
        if len(found) > LONGEST_LINE:
            break
    return found


def _lines_of(answer: httpx.Response, asked: service.Service) -> Iterator[bytes]:
    """Yield the lines of an answer as they come, and what is left at its end.

    Raises:
        UpstreamError: one is too long.
    """
    begun = b""
    for part in answer.iter_bytes():
        *lines, begun = (begun + part).split(b"\n")
        yield from (line.rstrip(b"\r") for line in lines)
        if len(begun) > LONGEST_LINE:
            raise UpstreamError(f"{asked}: a line of its answer does not end: is it a coordinator?")
    if begun:
        yield begun


def _cells(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    wanted = item["task"]
    what = str(wanted["skill"])
    if wanted.get("deviceName"):
        what += f" {wanted['deviceName']}/{wanted.get('resourceName', '')} = {wanted.get('value', '')}"
    state = str(item["state"])
    return [(str(item["id"]), "bold"), (state, STYLES.get(state, "")), (what, ""), (str(item["winner"]), ""),
            (str(item["reason"]), "dim")]  # fmt: skip


def _line(item: Mapping[str, Any]) -> Text:
    return Text("  ").join(Text(clean(text), style=style) for text, style in _cells(item))


def _lines(item: Mapping[str, Any]) -> Iterator[Text]:
    yield _line(item)
    yield Text(clean(f"given by {item['giver']}"), style="dim")
    for award in item["awards"]:
        bids = ", ".join(f"{agent} {cost:g}" for agent, cost in sorted(award["bids"].items(), key=lambda pair: pair[1]))
        yield Text(clean(f"award {award['epoch']}: {award['winner']}; bids: {bids}"))
    for reason in item["reasons"]:
        yield Text(clean(f"- {reason}"))


def _print(found: Mapping[str, Any], coordinator: str, leader: str) -> None:
    with understood(coordinator, leader):
        lines = list(_lines(found["task"]))
    console = Console(soft_wrap=True)
    for line in lines:
        console.print(line)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InvalidInputError(f"{text!r}: write name=value")
    return name, value
