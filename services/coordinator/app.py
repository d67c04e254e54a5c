"""Start here: the coordinator of a gateway: takes tasks in, leads a contract net for each, and settles conflicts.

It commands nothing: a task becomes a command in the agent that wins it, and the guard judges that as any other.

Source: design.md sections 2 and 5; docs/tasks.md.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgeagents import subjects
from edgeagents.adapters.bootstrap import EdgexService, ServiceSpec
from edgeagents.adapters.files import Looks, agent_files, looks_of
from edgeagents.adapters.micro import Endpoint
from edgeagents.audit import Audit
from edgeagents.errors import ConfigurationError, UnavailableError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.task import ENDED_STATES
from edgeagents.protocol.eligibility import Site
from edgeagents.protocol.task_book import Book, Times
from edgeagents.settings import PREFIX
from services.coordinator.conflict_routes import add_conflict_routes
from services.coordinator.desk import Desk
from services.coordinator.holders import Holders
from services.coordinator.journal import Journal
from services.coordinator.leader import Leader
from services.coordinator.mediator import Mediator, Terms
from services.coordinator.routes import add_routes
from services.coordinator.standby import Rivals, Standby

log = logging.getLogger(__name__)

FILES_AGAIN_S: Final = 2.0
METRICS: Final = ("CoordinatorTasks", "CoordinatorAwards", "CoordinatorOpen")


class CoordinatorSettings(BaseSettings):
    """Where the coordinator finds the owner's files, and how long things may take."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}COORDINATOR_", frozen=True, allow_inf_nan=False)

    agents_dir: Path = Field(Path("agents"), description="folder with one YAML file per agent")
    bid_s: float = Field(1.0, gt=0, le=60, description="longest wait for bids; it ends early when all have answered")
    take_s: float = Field(5.0, gt=0, le=600, description="how long a winner may take to take a task")
    most_invited: int = Field(8, ge=1, le=1024, description="agents asked for one task at most, the least busy first")
    standby: bool = Field(
        False, description="wait while another coordinator of this gateway serves; set it on each one"
    )
    conflict_answer_s: float = Field(0.5, gt=0, le=10, description="longest wait for what options are worth to parties")
    conflict_hold_s: float = Field(120.0, ge=0, le=86_400, description="a holder keeps what it used lately, site time")
    conflict_stands_s: float = Field(300.0, gt=0, le=86_400, description="how long an outcome stands, site time")


SPEC: Final = ServiceSpec(
    key="app-coordinator",
    kind="app",
    port=59741,
    config={
        "Writable": {
            "LogLevel": "INFO",
            "InsecureSecrets": {},
            "Telemetry": {"Metrics": dict.fromkeys(METRICS, False)},
        },
        "Service": {"Host": "localhost", "Port": 59741, "StartupMsg": "edgeagents coordinator", "MaxRequestSize": 1024},
    },
    settings=(CoordinatorSettings,),
)


class OwnersAgents:
    """The owner's agent files, read again when they change."""

    def __init__(self, folder: Path) -> None:
        """Read them; a file that is wrong is left out, as the guard does."""
        self._folder = folder
        self.agents: dict[str, AgentDefinition] = {}
        self._seen: Looks | None = None
        self.look()

    def look(self) -> None:
        """Read the files, if one of them has changed."""
        seen = looks_of(self._folder)
        if seen == self._seen:
            return
        self._seen = seen
        found = agent_files(self._folder)
        for path, problem in found.wrong.items():
            log.error("%s: %s: its agent is asked for nothing", path, problem)
        self.agents = dict(found.agents)

    async def run(self) -> None:
        """Look at the files now and then, for ever."""
        while True:
            await asyncio.sleep(FILES_AGAIN_S)
            try:
                await asyncio.to_thread(self.look)
            except (OSError, ConfigurationError) as error:
                log.warning("agent files in %s: %s: the former ones count", self._folder, error)


@asynccontextmanager
async def build(service: EdgexService) -> AsyncIterator[None]:
    """Wire the coordinator into a started EdgeX service."""
    settings = CoordinatorSettings()
    owners = OwnersAgents(settings.agents_dir)

    def site() -> Site:
        if not service.devices.is_ready:
            raise UnavailableError("core-metadata has not told its devices yet: is it up?")
        return Site(owners.agents, service.devices.devices_by_name, service.devices.profiles_by_name)

    journal = Journal(service.bus)
    book = Book(Times(settings.bid_s, settings.take_s))
    incarnation = secrets.token_hex(8)
    audit = Audit(service.bus, subjects.COORDINATOR, incarnation)
    leader = Leader(service.bus, book, journal, audit, site, service.devices.seek, settings.most_invited, incarnation)
    terms = Terms(
        settings.conflict_answer_s, settings.conflict_hold_s,
        min(86_400.0, service.site_time.wall_duration_s(settings.conflict_stands_s)),
    )  # fmt: skip
    mediator = Mediator(
        service.bus, audit, site, leader.engine.alive, terms, service.tasks,
        Holders(service.bus, incarnation).of, leader.check_serving,
    )  # fmt: skip
    desk = Desk(service.bus, leader, mediator, service.tasks)
    _measure(service, leader)
    running = [
        service.tasks.create_task(work, name=name)
        for name, work in (
            ("audit", audit.run()),
            ("coordinator", _run(service, leader, desk, Standby(service.bus) if settings.standby else None)),
            ("files", owners.run()),
        )
    ]
    add_routes(service, leader)
    add_conflict_routes(service, leader, mediator)
    try:
        yield
    finally:
        mediator.close()
        await audit.drain()
        for task in running:
            task.cancel()


async def _run(service: EdgexService, leader: Leader, desk: Desk, standby: Standby | None) -> None:
    """Read the tasks back, once it is our turn to lead, then serve for ever."""
    await service.devices.wait_ready()
    if standby is not None:
        await standby.until_needed()
    await leader.restore()
    async with asyncio.TaskGroup() as tasks:
        for name, work in (
            ("journal", leader.journal.run()), ("sending", leader.run_sending()), ("timers", leader.run_timers()),
            ("rounds", leader.run_rounds()), ("room", leader.journal.run_room()),
            ("rivals", Rivals(service.bus, leader.incarnation, leader.journal.is_behind).run()),
        ):  # fmt: skip
            tasks.create_task(work, name=name)
        await desk.serve()
        leader.is_serving.set()
        tasks.create_task(leader.run_beats(), name="beats")  # from now on agents may count on us


def _measure(service: EdgexService, leader: Leader) -> None:
    """Tell of what the coordinator does; all off until the owner switches them on."""
    for state in ENDED_STATES:
        service.metrics.counter("CoordinatorTasks", {"state": state}, lambda state=state: leader.counts[state])  # type: ignore[misc]
    service.metrics.counter("CoordinatorAwards", read=lambda: leader.counts["awards"])
    service.metrics.gauge("CoordinatorOpen", read=lambda: len(leader.book.open))
    for subject in subjects.coordinator_hears(service.settings.gateway):
        name = subject.split(".")[1]
        service.micro.endpoints.append(Endpoint(name, subject, lambda: leader.counts["acts_heard"]))
