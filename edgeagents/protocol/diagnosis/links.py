"""The links to other gateways: are they up, does what should be copied come, may anybody listen in?

Source: docs/gateways.md; NATS monitoring (`leafz`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edgeagents.model.finding import Finding, failed, ok, warning
from edgeagents.model.gateways import Gateways

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
LATE: Final = 1_000  # messages


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """One link that is up.

    Args:
        round_trip: as the server writes it, such as `0.3ms`.
        came: messages that came over it.
        went: messages that went over it.
    """

    round_trip: str = ""
    came: int = 0
    went: int = 0


@dataclass(frozen=True, slots=True)
class CopyFacts:
    """A copy of a peer's stream that we keep; `missing` messages are not here yet, `problem` says why none come."""

    messages: int = 0
    missing: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LinksFacts:
    """What was seen of all links.

    Args:
        gateways: the owner's file; None where it is wrong (`problem`), or there is none.
        problem: what is wrong with the file.
        silent: why the broker does not tell of its links; empty when it does.
        links: those that are up, by peer.
        copies: by name of the stream.
    """

    gateways: Gateways | None = None
    problem: str = ""
    silent: str = ""
    links: Mapping[str, LinkFacts] = field(default_factory=dict)
    copies: Mapping[str, CopyFacts] = field(default_factory=dict)


def link_findings(facts: LinksFacts) -> list[Finding]:
    """Return how the links stand; nothing of a gateway without peers."""
    if facts.problem:
        return [failed("gateways.yaml", facts.problem, "correct it: the broker takes it over by itself")]
    if facts.gateways is None:
        return []
    if facts.silent:
        remedy = "the broker knows of no peers: has it been given gateways.yaml, as docs/gateways.md shows?"
        return [failed("links", facts.silent, remedy), *_privacy(facts.gateways)]
    found = [_link(name, address.address, facts.links.get(name)) for name, address in facts.gateways.peers.items()]
    return [*found, *(_copy(name, copy) for name, copy in facts.copies.items()), *_privacy(facts.gateways)]


def _link(name: str, address: str, facts: LinkFacts | None) -> Finding:
    if facts is not None:
        text = f"up, round trip {facts.round_trip or 'not known yet'}, {facts.came} messages came and {facts.went} went"
        return ok(f"link to {name}", text)
    if address:
        remedy = f"does {address} answer, is its password the one its owner made last? The broker's log says which"
    else:
        remedy = f"it comes to us: is it up, has its owner our newest peer-{name}.password? The broker's log says more"
    return warning(f"link to {name}", "down: both gateways work on with their own devices", remedy)


def _copy(name: str, facts: CopyFacts) -> Finding:
    check = f"copy {name}"
    if facts.problem:
        return warning(check, facts.problem, "does the peer's gateways.yaml permit it (`mirrors`), is the link up?")
    text = f"{facts.messages} messages, {facts.missing} not here yet"
    if facts.missing > LATE:
        return warning(check, text, "it catches up by itself while the link is up")
    return ok(check, text)


def _privacy(gateways: Gateways) -> list[Finding]:
    listen = gateways.listen
    found = []
    if listen is not None and listen.tls is None and listen.host not in LOOPBACK:
        text = (
            f"peers come in on {listen.host}:{listen.port} without encryption: their passwords can be read on the way"
        )
        found.append(warning("links", text, "add `tls` to `listen`, and write tls:// in the peers' files"))
    plain = [name for name, peer in gateways.peers.items() if peer.address.startswith("nats-leaf://")]
    open_ones = [name for name in plain if not _is_here(gateways.peers[name].address)]
    if open_ones:
        text = f"we go to {', '.join(open_ones)} without encryption, unless that side demands it"
        found.append(warning("links", text, "write tls:// there, and add `tls` to the peer's `listen`"))
    return found


def _is_here(address: str) -> bool:
    return any(f"://{host}:" in address or f"://[{host}]:" in address for host in LOOPBACK)
