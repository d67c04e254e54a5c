"""EdgeX: keeper, its common configuration, the core services, their versions and clocks.

Source: edgex-wire.md sections 3.1, 3.2 and 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from edgeagents.model.finding import Finding, failed, ok, skipped, warning
from edgeagents.protocol.diagnosis.machine import clock_finding

MAJOR: Final = "4"
CORE: Final = ("core-metadata", "core-data", "core-command")
_UNVERSIONED: Final = ("", "0.0.0", "master")  # what is built from source says


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What one EdgeX service said.

    Args:
        key: its service key.
        url: where it was asked; empty: its address is not known.
        state: `token`: it is up and wants a token; `other`: something else answers there.
        text: why not `up`.
        version: such as 4.0.2.
        clock_ahead_s: its wall clock against ours; None: it did not tell.
        registry: its status in keeper's registry; empty: it is not in it; None: not asked.
    """

    key: str
    url: str = ""
    state: Literal["up", "away", "token", "other"] = "up"
    text: str = ""
    version: str = ""
    clock_ahead_s: float | None = None
    registry: str | None = None


def keeper_findings(facts: ServiceFacts, has_common: bool | None) -> list[Finding]:
    """Return how keeper stands; `has_common`: whether the common configuration is there, None when nobody said."""
    if facts.state == "away":
        remedy = "start EdgeX, or correct --keeper (EDGEAGENTS_KEEPER_URL; services: EDGEX_CONFIG_PROVIDER)"
        return [failed("keeper", f"{facts.text}", remedy), skipped("edgex version", "keeper is away")]
    if facts.state == "other":
        return [
            failed("keeper", f"{facts.url}: {facts.text}", "name core-keeper's address: its port is 59890 by default"),
            skipped("edgex version", "what answers is no keeper"),
        ]
    if facts.state == "token":
        return [warning("keeper", f"{facts.url}: {facts.text}", _SECURE)]
    found = [ok("keeper", f"{facts.url} answers"), _version("edgex version", facts.key, facts.version)]
    if has_common is False:
        remedy = "run core-common-config-bootstrapper once: all services wait for it"
        found.append(failed("keeper", "it has no common configuration", remedy))
    return found


_SECURE: Final = "EdgeX runs in secure mode: this check cannot look further; ask through its proxy"


def core_findings(services: Sequence[ServiceFacts]) -> list[Finding]:
    """Return how the core services stand, and their clocks: one finding for all clocks that agree with ours."""
    found = [_service(facts) for facts in services]
    found += [
        _version(facts.key, facts.key, facts.version)
        for facts in services
        if facts.state == "up" and not is_ours(facts.version)
    ]
    clocks = [clock_finding(facts.key, facts.clock_ahead_s) for facts in services if facts.clock_ahead_s is not None]
    wrong = [clock for clock in clocks if clock.level != "ok"]
    return found + (wrong or [ok("clock of EdgeX", "as ours")] if clocks else [])


def _service(facts: ServiceFacts) -> Finding:
    if facts.registry is None:
        return skipped(facts.key, "keeper does not say where it is")
    if not facts.registry:
        return failed(facts.key, "not in keeper's registry", f"start {facts.key}: it registers itself")
    if facts.registry == "HALT":
        return failed(facts.key, "it was stopped in order", f"start {facts.key} again")
    if facts.state == "token":
        return ok(facts.key, f"{facts.url} answers, and asks for a token (secure mode)")
    if facts.state != "up":
        remedy = f"see its log; is {facts.url}, as keeper has it, reachable from here?"
        return failed(facts.key, facts.text, remedy)
    return ok(facts.key, f"{facts.url} answers, version {facts.version or 'not told'}")


def is_ours(version: str) -> bool:
    """Say whether an EdgeX version is one these services work with; what has no version is taken for one."""
    return version in _UNVERSIONED or version.lstrip("v").partition(".")[0] == MAJOR


def _version(check: str, key: str, version: str) -> Finding:
    if is_ours(version):
        return ok(check, f"{version or 'not told'}")
    return failed(
        check, f"{key} is version {version}, these services need {MAJOR}.x",
        f"install EdgeX {MAJOR}: guard and agents end on another one, unless started with --skipVersionCheck",
    )  # fmt: skip
