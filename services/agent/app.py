"""Start here: one agent as an EdgeX application service. Wiring and routes.

Source: design.md sections 2 and 3.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, get_args

from fastapi import Request
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgeagents import subjects
from edgeagents.adapters.bootstrap import Build, EdgexService, ServiceSpec
from edgeagents.adapters.files import load_agent
from edgeagents.adapters.inference_client import HttpInference, LanguageClient, NatsInference
from edgeagents.adapters.live_config import LiveConfig
from edgeagents.adapters.metrics import PIPELINE_TAG, Metrics
from edgeagents.adapters.micro import Endpoint
from edgeagents.adapters.web_pages import shows, takes
from edgeagents.audit import Audit
from edgeagents.clock import SteppedClock
from edgeagents.errors import ConfigurationError, InvalidInputError
from edgeagents.journal import Journal
from edgeagents.model.agent import AgentDefinition, Thinks
from edgeagents.model.message import OutcomeStatus
from edgeagents.model.site import Site
from edgeagents.protocol.couplings import couplings_of, kinds_of
from edgeagents.protocol.fitting import file_problems
from edgeagents.settings import PREFIX, SiteTime
from services.agent.absences import Absences
from services.agent.answers import Answers, Door, read_words
from services.agent.bargaining import load_bargaining
from services.agent.commands import Commander
from services.agent.conflicts import Conflicts
from services.agent.consenting import Consenting
from services.agent.decision import stages_of
from services.agent.inputs import Inputs
from services.agent.leading_desk import begin_leading
from services.agent.loop import AgentLoop, rule_results
from services.agent.perception import Twin
from services.agent.phrases import is_installed
from services.agent.pipeline import DEFAULT, read_pipeline
from services.agent.questions import LONGEST_WAIT_S
from services.agent.record import started_body
from services.agent.rules import RuleBook
from services.agent.shown import AgentState, Deciding, RuleResult, RuleTaken
from services.agent.tasks import Tasks
from services.agent.thinking import Thinker
from services.agent.trigger import add_event_route, is_by_http

log = logging.getLogger(__name__)

ROOT: Final = Path(__file__).resolve().parents[2]
AGENT_PORTS: Final = range(59750, 59800)
SHORTEST_HISTORY_S: Final = 3600.0
CLOCK_LOOK_S: Final = 0.25
METRICS: Final = ("AgentDecisions", "AgentCommands", "AgentCommandsHeldBack", "AgentOutcomes", "AgentRuleFailures")


class AgentSettings(BaseSettings):
    """Which agent this process is."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}AGENT_", frozen=True, protected_namespaces=())

    file: Path = Field(description="the agent's YAML file")
    model: Path = Field(
        ROOT / "models" / "smollm2-135m-instruct",
        description="folder of the language model for `thinks: {by: process}` (make model)",
    )
    words_file: Path | None = Field(
        None, description="what people call rooms and devices; unset: words.yaml in the folder above the agent's file's"
    )


class JournalSettings(BaseSettings):
    """Whether the agent keeps a journal of what it consumed."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    journal_dir: Path | None = Field(None, description="folder for the journal; unset: no journal")


def spec_of(agent: AgentDefinition) -> ServiceSpec:
    """Return what an agent is to EdgeX: `app-agent-<name>`."""
    topics = sorted({watch.topic for watch in agent.watches if watch.topic} | {"events/device/#"})
    return ServiceSpec(
        key=f"app-agent-{agent.name}",
        kind="app",
        port=AGENT_PORTS.start,
        config={
            "Writable": {
                "LogLevel": "INFO",
                "InsecureSecrets": {},
                "Pipeline": dict(DEFAULT),
                "Telemetry": {"Metrics": dict.fromkeys(METRICS, False)},
            },
            "Service": {
                "Host": "localhost",
                "Port": AGENT_PORTS.start,
                "StartupMsg": f"edgeagents agent {agent.name}",
                "MaxRequestSize": 64,
                # Who asks waits for the proof.
                **({"RequestTimeout": f"{LONGEST_WAIT_S + 5:g}s"} if agent.answers else {}),
            },
            "Trigger": {"Type": "edgex-messagebus", "SubscribeTopics": ",".join(topics)},
            "ApplicationSettings": {"Agent": agent.name, "Description": agent.description},
        },
        settings=(AgentSettings, JournalSettings),
        free_port_range=AGENT_PORTS,
    )


def build_for(agent: AgentDefinition, path: Path) -> Build:
    """Return what wires an agent into a started EdgeX service."""

    @asynccontextmanager
    async def build(service: EdgexService) -> AsyncIterator[None]:
        rules = RuleBook(agent, str(path))
        incarnation = secrets.token_hex(8)
        bargaining = load_bargaining(agent, path)
        keys, looked_back, keep_s = rules.keys, rules.looked_back, max(rules.longest_s, SHORTEST_HISTORY_S)
        if bargaining is not None:
            keys, looked_back = keys | bargaining.rules.keys, looked_back | bargaining.rules.looked_back
            keep_s = max(keep_s, bargaining.rules.longest_s)
        twin = Twin(service.site_time, keys, keep_s, rules.usual, looked_back)
        commander = Commander(service.bus, agent, service.devices, twin, service.site_time, incarnation)
        audit = Audit(service.bus, agent.name, incarnation)
        stages = stages_of(agent, rules)
        journal = Journal.in_folder(JournalSettings().journal_dir, agent.name)
        clock = _stepped_clock(service.site_time, twin, commander, audit)

        def site_now() -> float:
            return service.site_time.at_ns(clock.wall_ns())

        answers = None
        if agent.answers or agent.thinks is not None:
            if agent.answers and not is_installed():
                raise ConfigurationError(f"{path}: answers: needs the extra `ask`: pip install 'edgeagents[agent,ask]'")
            words = read_words(AgentSettings().words_file, path)
            answers = Answers(
                service.devices, words, twin, commander, clock.wall_ns, site_now, service.site_time.wall_duration_s,
                agent,
            )  # fmt: skip
            answers.watch()  # before the first question: devices may come later
            if agent.thinks is not None:
                answers.thinker = await thinker_of(service, agent, agent.thinks, answers)
            if agent.answers:
                await Door(service, agent.name, answers).open()
        loop = AgentLoop(agent, twin, stages, commander, audit, journal, site_now, answers)
        follow_pipeline(service.config, loop)
        inputs = Inputs(service.bus, service.edgex, agent, service.devices)
        inputs.answers = answers
        service.micro.endpoints += [
            Endpoint("events", name, lambda: inputs.counts["received"]) for name in inputs.filters
        ]
        _measure(service.metrics, inputs, loop, rules, commander)
        waits = Absences(agent, str(path), service.devices)
        tasks = Tasks(
            service.bus, agent, commander, audit, incarnation,
            lambda: service.site_time.at_ns(clock.wall_ns()), service.tasks,
        )  # fmt: skip
        consenting = Consenting(service.bus, agent, service.devices, commander, rules, twin, audit, site_now)
        if agent.leads:
            begin_leading(service, agent, tasks.watch, commander, audit, incarnation)
        conflicts = None
        if bargaining is not None:
            conflicts = Conflicts(
                service.bus, agent, commander, twin, rules, bargaining, audit, site_now, service.tasks
            )
        add_routes(service, agent, loop, rules, twin, commander, waits, answers, tasks, consenting, conflicts)
        if is_by_http(service.config):
            add_event_route(service, agent.name, lambda: inputs.counts.update(("invalid",)))
        service.tasks.create_task(_watch(clock), name="clock")
        service.tasks.create_task(
            _run(
                service, agent, path, loop, inputs, rules, twin, commander, audit, waits, tasks, consenting, conflicts
            ),
            name="agent",
        )
        try:
            yield
        finally:
            await audit.drain()
            journal.close()

    return build


async def thinker_of(service: EdgexService, agent: AgentDefinition, thinks: Thinks, answers: Answers) -> Thinker:
    """Return what asks the model that an agent's file names; the key for a server is the secret `language-model`."""
    if thinks.by == "gateway":
        client: LanguageClient = NatsInference(service.bus, agent.name)
    elif thinks.by == "process":
        client = _in_process(service, agent.name)
    else:
        key = (await service.secret("language-model")).get("key")
        client = HttpInference(service.http, thinks.by, thinks.model, SecretStr(key) if key else None)
    subject = subjects.trigger(service.settings.gateway, agent.name)
    return Thinker(
        thinks, client, answers.options, lambda data, headers: service.bus.store(subject, data, headers),
        lambda work: service.tasks.create_task(work, name="thinking"), time.monotonic, answers.give_up,
    )  # fmt: skip


def _in_process(service: EdgexService, agent: str) -> LanguageClient:
    """Return a model in this process, loaded beside all else; until it is there, and without it, rules decide."""
    try:  # an agent that asks others needs neither the code nor the memory
        from edgeagents.adapters.inference_local import LocalInference
        from edgeagents.adapters.model_shelf import Shelf
        from edgeagents.inference.engine import Engine
    except ImportError as error:
        raise ConfigurationError(
            f"thinks: {{by: process}}: {error.name} is missing: pip install 'edgeagents[agent,inference]'"
        ) from error
    shelf = Shelf(AgentSettings().model, lambda folder: Engine.load(folder, time.monotonic, rows=1))
    service.tasks.create_task(shelf.keep(), name="model")
    return LocalInference(shelf.engine, f"agent {agent}")


def follow_pipeline(config: LiveConfig, loop: AgentLoop) -> None:
    """Have the loop work by the pipeline that the configuration shows now, and after each change of it."""
    told = ""

    def read(paths: frozenset[str]) -> None:
        nonlocal told
        if not any(path.startswith(("Writable/Pipeline", "Trigger")) for path in paths):
            return
        try:
            loop.pipeline = read_pipeline(config.get("Writable/Pipeline", {}), config.text("Trigger/SubscribeTopics"))
            told = ""
        except InvalidInputError as error:
            if str(error) != told:  # each later change of the pipeline comes by here
                log.error("configuration %s: the former pipeline stays", error)
            told = str(error)

    read(frozenset({"Writable/Pipeline"}))
    config.watch(read)


async def _run(
    service: EdgexService,
    agent: AgentDefinition,
    path: Path,
    loop: AgentLoop,
    inputs: Inputs,
    rules: RuleBook,
    twin: Twin,
    commander: Commander,
    audit: Audit,
    waits: Absences,
    work: Tasks,
    consenting: Consenting,
    conflicts: Conflicts | None,
) -> None:
    """Start the agent's tasks in the order they need each other, then handle inputs for ever."""
    tasks = service.tasks
    tasks.create_task(audit.run(), name="audit")
    tasks.create_task(commander.session.keep(), name="session")
    await service.devices.wait_ready()
    problems = file_problems(agent, service.devices.devices_by_name, service.devices.profiles_by_name)
    if problems:
        raise ConfigurationError(f"{path}: {'; '.join(problems)}")
    waits.look()
    service.devices.on_change(lambda change: waits.look())
    wall_s = service.site_time.wall_duration_s
    recent_s = wall_s(max(rules.longest_s, SHORTEST_HISTORY_S))
    # Weeks of few resources first, then the last hours of all that is watched.
    weeks_s = wall_s(max(rules.usual.values(), default=0.0))
    count = await inputs.replay(twin, weeks_s, rules.usual, until_wall_s=recent_s)
    count += await inputs.replay(twin, recent_s)
    log.info("agent %s: %d past events, watches %s", agent.name, count, ", ".join(inputs.filters))
    await commander.session.welcomed.wait()
    await commander.prepare()
    audit.append("started", **started_body(agent))
    tasks.create_task(inputs.run_outcomes(), name="outcomes")
    await inputs.hears_outcomes.wait()  # before anything is commanded: its consumer begins with what comes now
    if not is_by_http(service.config):
        tasks.create_task(inputs.run_events(), name="events")
    tasks.create_task(inputs.run_rules(), name="rules")
    nothing_new = subjects.trigger(service.settings.gateway, agent.name)
    tasks.create_task(loop.look_again(lambda: service.bus.store(nothing_new, b"{}")), name="look-again")
    tasks.create_task(work.run(), name="tasks")
    await consenting.open()
    if conflicts is not None:
        await _join(service, conflicts, nothing_new)
    await loop.run(inputs.queue)


async def _join(service: EdgexService, conflicts: Conflicts, nothing_new: str) -> None:
    """Have the agent take part in conflicts, know what is coupled, and look again (`nothing_new`) as they end."""
    _couple(service, conflicts)
    service.devices.on_change(lambda change: _couple(service, conflicts))
    looking = conflicts.giving.keep_looking(lambda: service.bus.store(nothing_new, b"{}"))
    service.tasks.create_task(looking, name="conflicts")
    await conflicts.run()


def _couple(service: EdgexService, conflicts: Conflicts) -> None:
    """Tell what is coupled by tags in profiles; tags that cannot be understood couple nothing, and are said."""
    devices, profiles = service.devices.devices_by_name, service.devices.profiles_by_name
    try:
        conflicts.couple(couplings_of(Site(), devices, profiles), kinds_of(devices, profiles))
    except InvalidInputError as error:
        log.warning("nothing is coupled: %s", error)
        conflicts.couple((), {})


def _stepped_clock(site_time: SiteTime, twin: Twin, commander: Commander, audit: Audit) -> SteppedClock:
    """Return the wall clock; when it is set, what was recent stays as recent as it was."""

    def moved(step_ns: int) -> None:
        log.warning("the wall clock was set by %.1f s: past times move with it", step_ns / 1e9)
        twin.shift(step_ns)
        commander.shift(site_time.factor * step_ns / 1e9)
        audit.append("clock-step", by_s=step_ns / 1e9)

    clock = SteppedClock(time.time_ns, time.monotonic)
    clock.on_step = moved
    return clock


async def _watch(clock: SteppedClock) -> None:
    """Look at a clock also when nothing else does, for ever."""
    while True:
        await asyncio.sleep(CLOCK_LOOK_S)
        clock.wall_ns()


def _measure(metrics: Metrics, inputs: Inputs, loop: AgentLoop, rules: RuleBook, commander: Commander) -> None:
    """Tell of EdgeX's pipeline metrics and our own (`METRICS`), all off until the owner switches them on."""
    metrics.counter("MessagesReceived", read=lambda: inputs.counts["received"])
    metrics.counter("InvalidMessagesReceived", read=lambda: inputs.counts["invalid"])
    metrics.counter(
        "PipelineMessagesProcessed",
        PIPELINE_TAG,
        lambda: inputs.counts["filtered"] + loop.counts["events"] + loop.counts["rule_results"],
    )
    metrics.add("PipelineMessageProcessingTime", loop.processing_time, PIPELINE_TAG)
    metrics.counter("PipelineProcessingErrors", PIPELINE_TAG, lambda: sum(list(rules.failures.values())))
    metrics.counter("AgentDecisions", read=lambda: loop.counts["decisions"])
    metrics.counter("AgentCommands", read=lambda: commander.counts["published"])
    metrics.counter("AgentCommandsHeldBack", read=lambda: commander.counts["held_back"])
    for status in get_args(OutcomeStatus):
        metrics.counter("AgentOutcomes", {"status": status}, lambda status=status: commander.counts[status])  # type: ignore[misc]
    for name in rules.names:
        metrics.counter("AgentRuleFailures", {"rule": name}, lambda name=name: rules.failures[name])  # type: ignore[misc]


def add_routes(
    service: EdgexService, agent: AgentDefinition, loop: AgentLoop, rules: RuleBook, twin: Twin, commander: Commander,
    waits: Absences, answers: Answers | None, work: Tasks, consenting: Consenting, conflicts: Conflicts | None,
) -> None:  # fmt: skip
    """Add the agent's own routes to the common ones."""
    subject = subjects.trigger(service.settings.gateway, agent.name)

    taken = shows(RuleTaken, "They are stored, and will be acted on.", 202)

    @service.app.post("/api/v3/rule", **taken, **takes(RuleResult, arrays_of=RuleResult))
    async def take_rule_result(request: Request) -> dict[str, Any]:
        """Take results of eKuiper's rest sink: one object, or an array. Stored before the answer is given."""
        try:
            results = rule_results(await request.body())
        except ValueError as error:
            raise InvalidInputError(f"body: {error}") from error
        sequences = [await service.bus.store(subject, json.dumps(result).encode()) for result in results]
        return {"apiVersion": "v3", "statusCode": 202, "sequences": sequences}

    @service.app.post("/api/v3/deciding/{word}", **shows(Deciding, "Whether it decides now."))
    async def switch_deciding(word: str) -> dict[str, Any]:
        """Stop (`off`) or resume (`on`) deciding; events are consumed all the same."""
        if word not in ("on", "off"):
            raise InvalidInputError(f"{word!r} is neither on nor off")
        loop.deciding = word == "on"
        if conflicts is not None:
            conflicts.giving.is_deciding = loop.deciding
        return {"apiVersion": "v3", "statusCode": 200, "deciding": loop.deciding}

    @service.app.get("/api/v3/agent", **shows(AgentState, "What it does."))
    async def state() -> dict[str, Any]:
        """Tell what the agent does and how it went so far."""
        welcome = commander.session.welcome
        return {
            "apiVersion": "v3",
            "statusCode": 200,
            "agent": agent.name,
            "mode": welcome.mode if welcome else "no session",
            "priority": agent.priority,
            "deciding": loop.deciding,
            "counts": dict(loop.counts),
            "perception": dict(twin.counts),
            "commands": dict(commander.counts),
            "tasks": dict(work.counts),
            "consents": dict(consenting.counts),
            **({"conflicts": dict(conflicts.counts)} if conflicts is not None else {}),
            "pending": len(commander.pending),
            "waitsFor": list(waits.waited_for),
            "mayCommand": len(welcome.site) if welcome else 0,
            "ruleFailures": dict(rules.failures),
            "rejected": dict(service.edgex.rejected),
            **({"questions": dict(answers.questions.counts)} if answers is not None else {}),
            **({"thinking": dict(answers.thinker.counts)} if answers is not None and answers.thinker else {}),
        }


def load() -> tuple[AgentDefinition, Path]:
    """Return the agent that the environment names.

    Raises:
        ConfigurationError: no file is named, or it is wrong.
    """
    try:
        path = AgentSettings().file
    except ValueError as error:
        raise ConfigurationError(f"{PREFIX}AGENT_FILE names no file: set it to the agent's YAML file") from error
    return load_agent(path), path
