"""`edgeagents doctor`: what is wrong with a gateway, and what to do about it.

Every check has a time limit of its own, all run at once, and one that fails says so beside the others.

Source: issue 6, "Operations".
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import asdict
from typing import Annotated, Final

import httpx
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeagents import subjects
from edgeagents.adapters.examination.broker import look_at_broker
from edgeagents.adapters.examination.disk import look_at_disk
from edgeagents.adapters.examination.edgex import look_at_core, look_at_keeper
from edgeagents.adapters.examination.links import look_at_links
from edgeagents.adapters.examination.owner import look_at_files
from edgeagents.adapters.examination.services import look_at_agents, look_at_guard
from edgeagents.adapters.examination.together import look_at_shared
from edgeagents.adapters.rest import make_http
from edgeagents.cli.lines import clean
from edgeagents.cli.place import DEFAULT_PLACE, Place
from edgeagents.errors import EdgeAgentsError
from edgeagents.model.finding import Finding, Level, failed, worst
from edgeagents.permissions import INFERENCE_USER
from edgeagents.protocol.diagnosis.broker import broker_findings
from edgeagents.protocol.diagnosis.edgex import core_findings, keeper_findings
from edgeagents.protocol.diagnosis.files import file_findings
from edgeagents.protocol.diagnosis.links import link_findings
from edgeagents.protocol.diagnosis.machine import disk_finding
from edgeagents.protocol.diagnosis.services import agent_findings, guard_findings
from edgeagents.protocol.diagnosis.together import coordinator_findings, model_findings, tasks_stream_findings

LIMIT_S: Final = 10.0
STYLES: Final[dict[Level, str]] = {"ok": "green", "skipped": "dim", "warning": "yellow", "failed": "bold red"}
Json = Annotated[bool, Parameter(name="--json", negative="", help="one JSON object instead of a table")]


def doctor(*, place: Place = DEFAULT_PLACE, json_: Json = False) -> None:
    """Check broker, EdgeX, files, clocks, disks, guard, agents, coordinator and model; exit 1 when something failed.

    Each line says what was found and, where it is not well, what to do. Nothing is changed anywhere.
    """
    findings = asyncio.run(diagnose(place.resolved()))
    if json_:
        body = {"level": worst(findings), "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(body))
    else:
        _show(findings)
    if worst(findings) == "failed":
        sys.exit(1)


async def diagnose(place: Place, limit_s: float = LIMIT_S) -> list[Finding]:
    """Return what all checks found, in a fixed order; takes no longer than `limit_s`."""
    async with make_http() as http:
        checks = {
            "broker": _broker(place), "links": _links(place), "keeper": _keeper(http, place),
            "core services": _core(http, place), "files": _files(http, place), "disk": _disks(place),
            "guard and agents": _services(http, place), "coordinator and language model": _shared(http, place),
        }  # fmt: skip
        done = await asyncio.gather(*(_limited(name, check, limit_s) for name, check in checks.items()))
    return [finding for findings in done for finding in findings]


async def _limited(name: str, check: Awaitable[list[Finding]], limit_s: float) -> list[Finding]:
    """Return what a check found; one that takes too long, or fails itself, is a finding, too."""
    try:
        async with asyncio.timeout(limit_s):
            return await check
    except TimeoutError:
        return [failed(name, f"no answer in {limit_s:g} s", "it hangs: see its log, and this machine's load")]
    except EdgeAgentsError as error:
        return [failed(name, str(error), "see the message")]
    except Exception as error:  # noqa: BLE001  # whatever one answer breaks, the other checks are told
        found = f"this check broke: {type(error).__name__}: {error}"
        return [failed(name, found, "tell whoever maintains edgeagents; what it looks at may be well")]


async def _broker(place: Place) -> list[Finding]:
    settings = place.bus_settings()
    expected = subjects.stream_subjects(place.gateway, settings.edgex_base, settings.edgex_bus)
    tasks = {subjects.TASKS_STREAM: [subjects.task_records(place.gateway)]}
    facts = await look_at_broker(settings, expected | tasks)
    there = {name: captured for name, captured in tasks.items() if name in facts.streams}
    return [*broker_findings(facts, expected | there), *tasks_stream_findings(facts, subjects.TASKS_STREAM)]


async def _links(place: Place) -> list[Finding]:
    return link_findings(await look_at_links(place.bus_settings(), place.gateways_file))


async def _keeper(http: httpx.AsyncClient, place: Place) -> list[Finding]:
    return keeper_findings(*await look_at_keeper(http, place.keeper))


async def _core(http: httpx.AsyncClient, place: Place) -> list[Finding]:
    return core_findings(await look_at_core(http, place.keeper))


async def _files(http: httpx.AsyncClient, place: Place) -> list[Finding]:
    return file_findings(await look_at_files(http, place.keeper, place.site_file, place.agents_dir))


async def _disks(place: Place) -> list[Finding]:
    named = {"the guard": place.guard_dir, "the broker's store": place.store_dir}
    found = await asyncio.gather(*(asyncio.to_thread(look_at_disk, *item) for item in named.items()))
    return [disk_finding(facts) for facts in found]


async def _services(http: httpx.AsyncClient, place: Place) -> list[Finding]:
    guard = await look_at_guard(http, place.guard)
    names = sorted((await look_at_files(http, place.keeper, place.site_file, place.agents_dir)).agents)
    agents = await look_at_agents(http, place.keeper, names, place.bus_settings())
    return [*guard_findings(guard), *agent_findings(agents, guard)]


async def _shared(http: httpx.AsyncClient, place: Place) -> list[Finding]:
    files, tasks, model = await asyncio.gather(
        look_at_files(http, place.keeper, place.site_file, place.agents_dir),
        look_at_shared(http, subjects.COORDINATOR, place.coordinator, place.keeper),
        look_at_shared(http, INFERENCE_USER, place.inference, place.keeper),
    )
    return [*coordinator_findings(tasks, files.agents), *model_findings(model, files.agents)]


def _show(findings: Sequence[Finding]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("check", "", "found"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        text = Text(clean(finding.found))
        if finding.remedy:
            text.append(f"\n→ {clean(finding.remedy)}", style="italic" if finding.level != "skipped" else "dim")
        table.add_row(Text(clean(finding.check)), Text(finding.level, style=STYLES[finding.level]), text)
    console = Console(highlight=False)
    console.print(table)
    counts = {level: sum(finding.level == level for finding in findings) for level in STYLES}
    words = ", ".join(f"{count} {level}" for level, count in counts.items() if count)
    console.print(Text(words, style=STYLES[worst(findings)]))
