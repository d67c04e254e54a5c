"""The broker: reachable, our credentials, JetStream and its limits, the gateway's streams, its clock.

Source: NATS JetStream wire API (ADR-8); docs/faults.md on full stores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from edgeagents.model.finding import Finding, failed, ok, skipped, warning
from edgeagents.protocol.diagnosis.machine import clock_finding, size

FULL: Final = 0.95
NEARLY_FULL: Final = 0.8
_STREAMS: Final = "the guard makes its streams when it starts: is it up?"


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What JetStream says of our account; limits of -1 are none."""

    store_bytes: int = 0
    max_store_bytes: int = -1
    streams: int = 0
    max_streams: int = -1


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """One stream as it is.

    Args:
        subjects: what it captures.
        messages: how many it holds.
        seen: messages on its subjects that were heard while it was watched.
        grown: how many it took in meanwhile.
        problem: why it does not tell; empty when it does.
    """

    subjects: frozenset[str] = frozenset()
    messages: int = 0
    seen: int = 0
    grown: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """What a connection to the broker told; `text` is the error when there is none.

    Args:
        url: its address.
        user: as whom we connected; empty: as nobody.
        state: how far we came.
        text: why no farther.
        server: its version.
        asks_user: whether it asks for a user and a password.
        round_trip_ms: of a ping.
        account: None where it has no JetStream, or we may not use it (`account_text`).
        streams: by name.
        clock_ahead_s: its wall clock against ours; None: not known.
    """

    url: str
    user: str = ""
    state: Literal["up", "away", "refused", "no-address"] = "up"
    text: str = ""
    server: str = ""
    asks_user: bool = True
    round_trip_ms: float = 0.0
    account: AccountFacts | None = None
    account_text: str = ""
    streams: Mapping[str, StreamFacts] = field(default_factory=dict)
    clock_ahead_s: float | None = None


def broker_findings(facts: BrokerFacts, expected: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Return how the broker stands; `expected`: streams of this gateway with what each captures."""
    if facts.state in ("away", "no-address"):
        remedy = "start nats-server there, or correct --nats (EDGEAGENTS_NATS_URL)"
        rest = (skipped(name, "the broker is away") for name in ("credentials", "jetstream", "streams"))
        return [failed("broker", facts.text, remedy), *rest]
    if facts.state == "refused":
        remedy = (
            "check --user and --password-file (EDGEAGENTS_NATS_USER, EDGEAGENTS_NATS_PASSWORD_FILE) against the "
            "broker's users; what has expired is made anew by `edgeagents credentials --rotate NAME`, in containers "
            "`docker compose run --rm credentials --rotate NAME`; who runs takes it over by itself"
        )
        rest = (skipped(name, "the broker refuses us") for name in ("jetstream", "streams"))
        return [ok("broker", f"{facts.url} answers"), failed("credentials", facts.text, remedy), *rest]
    up = ok("broker", f"{facts.url}: nats-server {facts.server}, round trip {facts.round_trip_ms:.1f} ms")
    return [up, _credentials(facts), *_jetstream(facts, expected)]


def _credentials(facts: BrokerFacts) -> Finding:
    if facts.asks_user:
        return ok("credentials", f"accepted as {facts.user or 'nobody in particular'}")
    return warning(
        "credentials", "the broker asks nobody who it is: any process may speak as any agent",
        "give it users and permissions, one for each agent",
    )  # fmt: skip


def _jetstream(facts: BrokerFacts, expected: Mapping[str, Sequence[str]]) -> list[Finding]:
    account = facts.account
    if account is None:
        remedy = "write `jetstream { store_dir: … }` into nats-server's configuration, and let this user use it"
        return [
            failed("jetstream", f"off: {facts.account_text}", remedy),
            skipped("streams", "there is no JetStream"),
        ]
    findings = [_space(account)]
    if 0 <= account.max_streams <= account.streams:
        text = f"{account.streams} streams, and no more are allowed"
        findings.append(warning("jetstream", text, "raise the account's max_streams"))
    findings += _streams(facts.streams, expected)
    if facts.clock_ahead_s is not None:
        findings.append(clock_finding("broker", facts.clock_ahead_s))
    return findings


def _space(account: AccountFacts) -> Finding:
    if account.max_store_bytes <= 0:
        return ok("jetstream", f"on, {size(account.store_bytes)} stored, no limit of the account's")
    share = account.store_bytes / account.max_store_bytes
    text = f"on, {size(account.store_bytes)} of {size(account.max_store_bytes)} stored ({share:.0%})"
    remedy = "raise the account's max_file, or lower the limits of streams that are not ours"
    if share >= FULL:
        return failed("jetstream", text, remedy)
    return warning("jetstream", text, remedy) if share >= NEARLY_FULL else ok("jetstream", text)


def _streams(streams: Mapping[str, StreamFacts], expected: Mapping[str, Sequence[str]]) -> list[Finding]:
    missing = [name for name in expected if name not in streams]
    found = [] if not missing else [failed("streams", f"not there: {', '.join(missing)}", _STREAMS)]
    for name, captured in expected.items():
        if name in streams:
            found += _stream(name, streams[name], frozenset(captured))
    total = sum(stream.messages for stream in streams.values())
    return found or [ok("streams", f"{', '.join(expected)}: {total} messages")]


def _stream(name: str, facts: StreamFacts, captured: frozenset[str]) -> list[Finding]:
    if facts.problem:
        remedy = "restart nats-server; if that does not help, see its log for this stream"
        return [failed("streams", f"{name} does not answer: {facts.problem}", remedy)]
    if facts.seen and not facts.grown:
        return [failed(
            "streams", f"{name} is stuck: {facts.seen} messages came for it and none was stored",
            "free its disk (a store that was full once takes nothing more), then restart nats-server",
        )]  # fmt: skip
    if captured and facts.subjects != captured:
        others = ", ".join(sorted(facts.subjects)) or "nothing"
        remedy = f"it must capture {', '.join(sorted(captured))}: is --gateway right? Else restart the guard"
        return [failed("streams", f"{name} captures {others}", remedy)]
    return []
