"""Every password and token of a gateway: made once, kept, made anew when asked, one folder a consumer.

    nats/users.json                              the broker's users, with permissions (`permissions.py`)
    guard/   nats.password door.tokens command.token approvers
    agent-X/ nats.password door.token
    coordinator/, inference/                     as an agent's
    core/    nats.password command.tokens        the embedded EdgeX core
    world/   nats.password
    owner/   nats.password command.token approver.token
             peer-X.password                     of a gateway X that comes to us: its owner gets it

What a consumer does not need is not in its folder, so each may be a volume that nobody else mounts. Files are
replaced whole; the broker's comes last, so whoever it puts out finds the new password in its own file.

Source: design.md section 2.
"""

import json
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeagents.adapters.nats_server import user_entry, write_private
from edgeagents.errors import ConfigurationError
from edgeagents.permissions import (
    BEHIND_DOOR,
    INFERENCE_USER,
    Permissions,
    agent_user,
    for_agent,
    for_coordinator,
    for_edgex,
    for_everything,
    for_inference,
)
from edgeagents.subjects import COORDINATOR, token

PASSWORD: Final = "nats.password"  # noqa: S105  # a file name
TOKEN_BYTES: Final = 24
EVERYBODY: Final = "all"
WORLDS: Final = ("device-world-home",)  # device services of ours, which answer as NATS micro services


@dataclass(slots=True)
class Credentials:
    """The credentials in a folder.

    Args:
        folder: holds a folder a consumer; those may be volumes.
        gateway: its name: first token of every subject.
        agents: names of the agents.
        rotated: whose secrets are made anew: `guard`, `owner`, `edgex`, `coordinator`, `inference`, an agent's name,
            `peer-X`, or `all`.
        peers: names of the gateways that it is linked to.
        coming: those of them that come to us, and so need a password of ours.
        leaders: names of the agents that may lead tasks while no coordinator is there.
    """

    folder: Path
    gateway: str
    agents: Collection[str]
    rotated: Collection[str] = ()
    peers: Collection[str] = ()
    coming: Collection[str] = ()
    leaders: Collection[str] = ()
    made: list[str] = field(default_factory=list)  # what is new, as `consumer/file`
    _fresh: dict[str, str] = field(default_factory=dict)

    def write(self) -> None:
        """Make what is missing or rotated, and write everything.

        Raises:
            ConfigurationError: nobody of a rotated name; a folder that cannot be written.
        """
        self._check_names()
        agents = sorted(self.agents)
        users = {
            "owner": (self._password("owner", "owner"), for_everything()),
            "guard": (self._password("guard", "guard"), for_everything()),
            "edgex": (self._password("edgex", "core", "world"), for_edgex(self.gateway, services=WORLDS)),
            COORDINATOR: (self._password(COORDINATOR, COORDINATOR), for_coordinator(self.gateway)),
            INFERENCE_USER: (self._password(INFERENCE_USER, INFERENCE_USER), for_inference(self.gateway)),
            **{
                agent_user(name): (
                    self._password(name, agent_user(name)),
                    for_agent(self.gateway, name, peers=sorted(self.peers), leads=name in self.leaders),
                )
                for name in agents
            },
        }
        consumers = {**{name: name for name in BEHIND_DOOR}, **{name: agent_user(name) for name in agents}}
        doors = {name: self._secret(name, consumer, "door.token") for name, consumer in consumers.items()}
        commands = {name: self._secret(name, name, "command.token") for name in ("guard", "owner")}
        approver = self._secret("owner", "owner", "approver.token")
        self._put("core", "command.tokens", _lines(commands))
        self._put("guard", "approvers", _lines({"owner": approver}))
        self._put("guard", "door.tokens", _lines(doors))
        leaves = {name: self._secret(peer(name), "owner", f"{peer(name)}.password") for name in sorted(self.coming)}
        self._put("nats", "users.json", users_text(users, leaves))

    def _check_names(self) -> None:
        known = {EVERYBODY, "guard", "owner", "edgex", *BEHIND_DOOR, *self.agents, *map(peer, self.coming)}
        unknown = sorted(set(self.rotated) - known)
        if unknown:
            raise ConfigurationError(f"nobody is called {', '.join(unknown)}: known are {', '.join(sorted(known))}")

    def _password(self, who: str, *consumers: str) -> str:
        return self._secret(who, consumers[0], PASSWORD, *consumers[1:])

    def _secret(self, who: str, consumer: str, name: str, *others: str) -> str:
        """Return a secret that is there, or a new one, written for all its consumers."""
        path = self._at(consumer, name)
        text = "" if EVERYBODY in self.rotated or who in self.rotated else _read(path)
        if not text:
            text = secrets.token_urlsafe(TOKEN_BYTES)
            self.made.append(f"{consumer}/{name}")
        for other in (consumer, *others):
            self._put(other, name, text + "\n")
        return text

    def _put(self, consumer: str, name: str, text: str) -> None:
        path = self._at(consumer, name)
        if _read(path) == text.strip():
            return
        aside = path.with_name(f".{name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_private(aside, text)
            os.replace(aside, path)
        except OSError as error:
            raise ConfigurationError(
                f"{path.parent}: cannot be written by user {os.getuid()}: {error.strerror}: a new volume of a consumer "
                "that has no image of ours yet belongs to root; docs/compose.md, 'an agent more', says what to do"
            ) from error

    def _at(self, consumer: str, name: str) -> Path:
        return self.folder / consumer / name


def peer(gateway: str) -> str:
    """Return what a gateway that comes to us is called among those who have secrets."""
    return f"peer-{token(gateway)}"


def users_text(users: Mapping[str, tuple[str, Permissions]], peers: Mapping[str, str] | None = None) -> str:
    """Return the broker's users as the file has them, and the passwords of peers that come to us."""
    entries = [user_entry(name, *found) for name, found in users.items()]
    return json.dumps({"users": entries, **({"peers": dict(peers)} if peers else {})}, indent=1)


def _lines(tokens: Mapping[str, str]) -> str:
    return "".join(f"{name}: {token}\n" for name, token in tokens.items())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}: may we read it?") from error
