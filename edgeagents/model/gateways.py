"""`gateways.yaml`: which other gateways this one is linked to, how, and what of ours may cross. The owner's file.

Without it a gateway is alone. What is not named here crosses to nobody; nothing of EdgeX and no command ever does.

Source: design.md sections 4 and 7; docs/gateways.md.
"""

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from edgeagents.model.agent import OwnerModel, parse_duration_s

Family: TypeAlias = Literal["acts", "tasks", "roster"]
FAMILIES: Final[tuple[Family, ...]] = ("acts", "tasks", "roster")
Mirrored: TypeAlias = Literal["audit", "edgex-events"]
LEAF_PORT: Final = 7422  # the one that NATS uses for leaf nodes
# First words of subjects that are not ours: a gateway of that name would speak in another's place.
TAKEN: Final = frozenset({"edgex", "mirrors"})
SCHEMES: Final = ("nats-leaf", "tls")
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=64)]


class ListenTls(OwnerModel):
    """Encryption of the listener: its certificate, and whose certificates peers must show."""

    certificate: Path
    key: Path
    ca: Path | None = Field(None, description="peers must show a certificate that this one signed; none: a password")


class PeerTls(OwnerModel):
    """Encryption of a link that we open: whose certificate the other side must show, and ours."""

    ca: Path | None = Field(None, description="unset: the authorities that this machine trusts")
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _pair(self) -> "PeerTls":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: name both, or neither")
        return self


class Listen(OwnerModel):
    """Where peers come in."""

    host: str = Field("0.0.0.0", min_length=1)  # peers are elsewhere; the owner may name one address
    port: int = Field(LEAF_PORT, ge=1, le=65535)
    tls: ListenTls | None = None


class Peer(OwnerModel):
    """Another gateway."""

    address: str = Field("", description="nats-leaf://host:7422 or tls://host:7422: we go there; empty: it comes to us")
    password_file: Path | None = Field(None, description="what the peer's owner gave us; beside this file if relative")
    tls: PeerTls | None = None
    cross: tuple[Family, ...] = Field(FAMILIES, description="what may cross, both ways")
    mirrors: tuple[Mirrored, ...] = Field((), description="streams of ours that it may keep a copy of")
    keeps: tuple[Mirrored, ...] = Field((), description="streams of its own that we keep a copy of")

    @field_validator("address")
    @classmethod
    def _is_address(cls, text: str) -> str:
        if not text:
            return text
        try:
            parts = urlsplit(text)
            is_one = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0 and not parts.path
        except ValueError:
            is_one = False
        if not is_one or parts.username or parts.password:
            raise ValueError(f"{text!r} is no address of a peer: write nats-leaf://host:7422 or tls://host:7422")
        return text if parts.port else f"{text}:{LEAF_PORT}"

    @field_validator("cross", "mirrors", "keeps")
    @classmethod
    def _once(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(words)) != len(words):
            raise ValueError("a word stands there twice")
        return words

    @model_validator(mode="after")
    def _whole(self) -> "Peer":
        if self.address and self.password_file is None:
            raise ValueError("address without password_file: its owner makes one by `edgeagents credentials`")
        if not self.address and (self.password_file is not None or self.tls is not None):
            raise ValueError("password_file and tls are for a peer with an address: one that comes to us gets our own")
        if self.tls is not None and not self.address.startswith("tls://"):
            raise ValueError(f"tls for {self.address}: write tls:// there")
        return self


class Gateways(OwnerModel):
    """This gateway among others."""

    gateway: Name
    listen: Listen | None = Field(None, description="absent: no peer comes in")
    peers: dict[Name, Peer] = Field(min_length=1)
    oldest: float = Field(5.0, gt=0, le=600, description="what crossed and was sent longer ago is refused, wall time")

    _parse = field_validator("oldest", mode="before")(parse_duration_s)

    @model_validator(mode="after")
    def _fits(self) -> "Gateways":
        for name in (self.gateway, *self.peers):
            if name in TAKEN:
                raise ValueError(f"no gateway can be called {name!r}: subjects that are not ours begin with that word")
        if self.gateway in self.peers:
            raise ValueError(f"peers: {self.gateway!r} is this gateway itself")
        waited = [name for name, peer in self.peers.items() if not peer.address]
        if waited and self.listen is None:
            raise ValueError(f"peers without an address come to us ({', '.join(waited)}): say where, with `listen`")
        return self

    @property
    def coming(self) -> list[str]:
        """Names of the peers that come to us."""
        return [name for name, peer in self.peers.items() if not peer.address]
