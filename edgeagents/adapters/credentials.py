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

Whose agent file cannot be read keeps what it had (`_Kept`): one wrong file puts nobody out, and stops no rotation.

Source: design.md section 2.
"""

import json
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

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
Users: TypeAlias = Mapping[str, tuple[str, Permissions]]  # by name


@dataclass(frozen=True, slots=True)
class _Kept:
    """What an agent has that no readable file declares: password and rights at the broker, token at the door."""

    password: str
    permissions: Permissions
    token: str


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
        all_known: whether `agents` are all there are; else some file cannot be read, and nobody knows whose it is, or
            there is none, as where a volume is not mounted: the agents that have credentials and are not in `agents`
            keep them, with the rights they had.
    """

    folder: Path
    gateway: str
    agents: Collection[str]
    rotated: Collection[str] = ()
    peers: Collection[str] = ()
    coming: Collection[str] = ()
    leaders: Collection[str] = ()
    all_known: bool = True
    made: list[str] = field(default_factory=list)  # what is new, as `consumer/file`
    kept: list[str] = field(default_factory=list)  # agents that no readable file declares, and keep what they had
    _fresh: dict[str, str] = field(default_factory=dict)

    def write(self) -> None:
        """Make what is missing or rotated, and write everything.

        Raises:
            ConfigurationError: nobody of a rotated name; a folder that cannot be written.
        """
        kept = {} if self.all_known else self._former()
        self._check_names(kept)
        users = self._users(kept)
        doors = self._doors(kept)
        commands = {name: self._secret(name, name, "command.token") for name in ("guard", "owner")}
        approver = self._secret("owner", "owner", "approver.token")
        self._put("core", "command.tokens", _lines(commands))
        self._put("guard", "approvers", _lines({"owner": approver}))
        self._put("guard", "door.tokens", _lines(doors))
        leaves = {name: self._secret(peer(name), "owner", f"{peer(name)}.password") for name in sorted(self.coming)}
        self._put("nats", "users.json", users_text(users, leaves))
        self.kept = sorted(kept)

    def _users(self, kept: Mapping[str, _Kept]) -> Users:
        agents = sorted(self.agents)
        return {
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
            **{
                agent_user(name): (self._kept_secret(name, PASSWORD, had.password), had.permissions)
                for name, had in kept.items()
            },
        }

    def _doors(self, kept: Mapping[str, _Kept]) -> dict[str, str]:
        consumers = {**{name: name for name in BEHIND_DOOR}, **{name: agent_user(name) for name in sorted(self.agents)}}
        doors = {name: self._secret(name, consumer, "door.token") for name, consumer in consumers.items()}
        return doors | {
            name: self._kept_secret(name, "door.token", had.token) for name, had in kept.items() if had.token
        }

    def _former(self) -> dict[str, _Kept]:
        """Return, by name, what agents have that are not in `agents`; what nobody can read counts as nothing."""
        lines = (line.partition(": ") for line in _read(self._at("guard", "door.tokens")).splitlines())
        tokens = {name: token for name, _, token in lines}
        prefix, known = agent_user(""), {agent_user(name) for name in self.agents}
        found: dict[str, _Kept] = {}
        try:
            for entry in json.loads(_read(self._at("nats", "users.json")) or "{}").get("users", []):
                if entry["user"].startswith(prefix) and entry["user"] not in known:
                    name = entry["user"].removeprefix(prefix)
                    found[name] = _Kept(entry["password"], _permissions(entry), tokens.get(name, ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}
        return dict(sorted(found.items()))

    def _kept_secret(self, name: str, file: str, had: str) -> str:
        """Return a kept agent's secret, rotated when asked; where its folder is gone, what the others have of it."""
        consumer = agent_user(name)
        return self._secret(name, consumer, file) if _read(self._at(consumer, file)) else had

    def _check_names(self, kept: Collection[str]) -> None:
        known = {EVERYBODY, "guard", "owner", "edgex", *BEHIND_DOOR, *self.agents, *kept, *map(peer, self.coming)}
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


def users_text(users: Users, peers: Mapping[str, str] | None = None) -> str:
    """Return the broker's users as the file has them, and the passwords of peers that come to us."""
    entries = [user_entry(name, *found) for name, found in users.items()]
    return json.dumps({"users": entries, **({"peers": dict(peers)} if peers else {})}, indent=1)


def _permissions(entry: Mapping[str, Any]) -> Permissions:
    """Return what a user of the broker's file may do; the other way round: `user_entry`."""
    publish, subscribe = entry["permissions"]["publish"], entry["permissions"]["subscribe"]
    return Permissions(
        tuple(publish["allow"]), tuple(subscribe["allow"]), tuple(publish.get("deny", ())),
        tuple(subscribe.get("deny", ())),
    )  # fmt: skip


def _lines(tokens: Mapping[str, str]) -> str:
    return "".join(f"{name}: {token}\n" for name, token in tokens.items())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}: may we read it?") from error
