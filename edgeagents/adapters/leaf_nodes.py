"""nats-server's configuration of a gateway that has peers: accounts, leaf nodes, a JetStream domain of its own.

What is ours lives in the account `GATEWAY`. Each peer has an account of its own, in which the leaf link to it ends, and
in which there is nothing but what the owner lets cross: the server itself carries those subjects over between the two
accounts, by name, and knows no way for any other. So a peer that subscribes to everything hears what is meant for it,
what it publishes under another gateway's name reaches nobody, and `edgex.>`, `$MQTT.>` and `$JS.API.>` of this gateway
are not denied on a link but absent from it. A server without peers has no accounts, as ever: there everything lives in
nats-server's own, and `settle_store` moves the streams when that changes.

Copies of streams are fed by durable consumers of ours (`mirrors.py`): a peer may tell them where to go on, and no more.

Source: NATS server configuration reference (accounts, leafnodes); nats-server ADR-60 (durable sourcing).
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from edgeagents import subjects
from edgeagents.adapters.files import load_model
from edgeagents.errors import ConfigurationError
from edgeagents.model.gateways import Gateways, Peer
from edgeagents.settings import read_secret

ACCOUNT: Final = "GATEWAY"
PLAIN_ACCOUNT: Final = "$G"  # where everything lives in a server that was told of no accounts
SYSTEM: Final = "SYS"
LINKS: Final = "$SYS.REQ.SERVER.PING.LEAFZ"  # asks the server which leaf links are up
# A link that is silent so long is down: the default, 2 min and 2 of them, would have it look up for minutes.
PING: Final = {"ping_interval": "1s", "ping_max": 2}
RECONNECT: Final = "1s"
CLIENTS: Final = ("STANDARD", "WEBSOCKET", "MQTT")
User = Mapping[str, Any]


def load_gateways(path: Path, gateway: str) -> Gateways:
    """Return the owner's `gateways.yaml`, its files as paths that lead there from anywhere.

    Raises:
        ConfigurationError: a field is wrong, or the file is another gateway's.
    """
    found = load_model(Gateways, path)
    if found.gateway != gateway:
        raise ConfigurationError(
            f"{path}: it is of gateway {found.gateway!r}, and this one is called {gateway!r}: "
            "correct `gateway` there, or EDGEAGENTS_GATEWAY here"
        )
    return found.model_copy(update={"peers": {name: _placed(peer, path.parent) for name, peer in found.peers.items()}})


def gateways_if_any(path: Path | None, gateway: str) -> Gateways | None:
    """Return the owner's `gateways.yaml`, None for a gateway that has none; raises like `load_gateways`."""
    return load_gateways(path, gateway) if path is not None and path.exists() else None


def _placed(peer: Peer, folder: Path) -> Peer:
    if peer.password_file is None:
        return peer
    return peer.model_copy(update={"password_file": (folder / peer.password_file).resolve()})


def outgoing_passwords(gateways: Gateways) -> dict[str, SecretStr]:
    """Return, by peer that we go to, the password that its owner gave us.

    Raises:
        ConfigurationError: one cannot be read.
    """
    found: dict[str, SecretStr] = {}
    for name, peer in gateways.peers.items():
        if peer.password_file is not None:
            try:
                found[name] = read_secret(peer.password_file)
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"peer {name}: {error}; its owner's `edgeagents credentials` makes it"
                ) from error
    return found


def account_of(peer: str) -> str:
    """Return the name of the account in which the link to a peer ends."""
    return f"peer-{subjects.token(peer)}"


def leaf_user(gateway: str) -> str:
    """Return the name under which a gateway goes to its peers."""
    return f"gateway-{gateway}"


def linked_config(
    config: Mapping[str, Any],
    users: Sequence[User],
    gateways: Gateways,
    incoming: Mapping[str, str],
    outgoing: Mapping[str, SecretStr],
) -> dict[str, Any]:
    """Return a server's configuration with accounts, domain and leaf nodes instead of plain users.

    Args:
        config: of a server without peers; its `authorization` is replaced.
        users: of this gateway, as `user_entry` writes them.
        gateways: the owner's file.
        incoming: passwords of the peers that come to us; one without a password cannot.
        outgoing: passwords of ours at the peers we go to.
    """
    name = subjects.token(gateways.gateway)
    accounts: dict[str, Any] = {
        account_of(peer): _peer_account(gateways, peer, incoming.get(peer, "")) for peer in gateways.peers
    }
    accounts[ACCOUNT] = _own_account(gateways, users)
    accounts[SYSTEM] = {"exports": [{"service": LINKS, "accounts": [ACCOUNT]}]}
    return {
        **{key: value for key, value in config.items() if key != "authorization"},
        **PING,
        "server_name": name,
        "jetstream": {**config["jetstream"], "domain": name},
        "accounts": accounts,
        "system_account": SYSTEM,
        "leafnodes": _leaf_nodes(gateways, outgoing),
    }


def _own_account(gateways: Gateways, users: Sequence[User]) -> dict[str, Any]:
    exports: list[dict[str, Any]] = []
    imports: list[dict[str, Any]] = [{"service": {"account": SYSTEM, "subject": LINKS}}]
    for name, peer in gateways.peers.items():
        account = account_of(name)
        exports += [{"stream": subject, "accounts": [account]} for subject in _out(gateways, name, peer)]
        exports += [{"service": subject, "accounts": [account]} for subject in _asked(gateways, name, peer)]
        imports += [{"stream": {"account": account, "subject": subject}} for subject in _in(gateways, name, peer)]
        imports += [{"service": {"account": account, "subject": subject}} for subject in _asks(gateways, name, peer)]
    # Their passwords are no keys to the listener for leaf nodes.
    own = [{**user, "allowed_connection_types": list(CLIENTS)} for user in users]
    return {"jetstream": "enabled", "users": own, "exports": exports, "imports": imports}


def _peer_account(gateways: Gateways, name: str, password: str) -> dict[str, Any]:
    peer = gateways.peers[name]
    comes = bool(password) and not peer.address
    user = {"user": leaf_user(name), "password": password, "allowed_connection_types": ["LEAFNODE"]}
    exports: list[dict[str, Any]] = [
        {"stream": subject, "accounts": [ACCOUNT]} for subject in _in(gateways, name, peer)
    ]
    exports += [{"service": subject, "accounts": [ACCOUNT]} for subject in _asks(gateways, name, peer)]
    imports: list[dict[str, Any]] = [
        {"stream": {"account": ACCOUNT, "subject": subject}} for subject in _out(gateways, name, peer)
    ]
    for subject in _asked(gateways, name, peer):
        away = subject.replace("$JS.API", mirror_api(gateways.gateway))
        imports.append({"service": {"account": ACCOUNT, "subject": subject}, "to": away})
    return {"users": [user] if comes else [], "exports": exports, "imports": imports}


def _out(gateways: Gateways, name: str, peer: Peer) -> list[str]:
    """Return what of ours a peer hears."""
    copies = [subjects.mirror_delivery(gateways.gateway, name, stream) for stream in peer.mirrors]
    return [*subjects.said_to(name, gateways.gateway, peer.cross), *copies]


def _in(gateways: Gateways, name: str, peer: Peer) -> list[str]:
    """Return what of a peer's we hear."""
    copies = [subjects.mirror_delivery(name, gateways.gateway, stream) for stream in peer.keeps]
    return [*subjects.said_to(gateways.gateway, name, peer.cross), *copies]


def _asked(gateways: Gateways, name: str, peer: Peer) -> list[str]:
    """Return on what a peer may ask our JetStream: to go on with its copies, and that it has had what was sent."""
    consumer = subjects.mirror_consumer(gateways.gateway, name)
    return [subject for stream in peer.mirrors for subject in _of_copy(stream, consumer, "$JS.API")]


def _asks(gateways: Gateways, name: str, peer: Peer) -> list[str]:
    """Return on what we ask a peer's JetStream, for the copies that we keep."""
    consumer = subjects.mirror_consumer(name, gateways.gateway)
    return [subject for stream in peer.keeps for subject in _of_copy(stream, consumer, mirror_api(name))]


def _of_copy(stream: str, consumer: str, api: str) -> Iterable[str]:
    return f"{api}.CONSUMER.RESET.{stream}.{consumer}", f"$JS.FC.{stream}.{consumer}.*"


def mirror_api(gateway: str) -> str:
    """Return the prefix under which peers ask a gateway's JetStream to go on with their copies."""
    return f"mirrors.{subjects.token(gateway)}"


def _leaf_nodes(gateways: Gateways, outgoing: Mapping[str, SecretStr]) -> dict[str, Any]:
    # The address that the owner wrote is the only one: no way round it, and none that only our own network knows.
    found: dict[str, Any] = {"reconnect": RECONNECT, "no_advertise": True}
    listen = gateways.listen
    if listen is not None:
        found["listen"] = f"{listen.host}:{listen.port}"
        if listen.tls is not None:
            found["tls"] = {
                "cert_file": str(listen.tls.certificate), "key_file": str(listen.tls.key),
                **({"ca_file": str(listen.tls.ca), "verify": True} if listen.tls.ca is not None else {}),
            }  # fmt: skip
    remotes = [
        _remote(gateways.gateway, name, peer, outgoing[name])
        for name, peer in gateways.peers.items()
        if peer.address and name in outgoing
    ]
    return {**found, "remotes": remotes} if remotes else found


def _remote(gateway: str, name: str, peer: Peer, password: SecretStr) -> dict[str, Any]:
    parts = urlsplit(peer.address)
    user = f"{quote(leaf_user(gateway), safe='')}:{quote(password.get_secret_value(), safe='')}"
    found: dict[str, Any] = {
        "urls": [f"{parts.scheme}://{user}@{parts.netloc}"],
        "account": account_of(name),
        "ignore_discovered_servers": True,
    }
    if peer.tls is not None:
        named = {"ca_file": peer.tls.ca, "cert_file": peer.tls.certificate, "key_file": peer.tls.key}
        found["tls"] = {key: str(path) for key, path in named.items() if path is not None}
    return found


def is_linked_store(store: Path) -> bool:
    """Say whether the streams in a store are those of a server with peers."""
    return (store / "jetstream" / ACCOUNT).is_dir()


def settle_store(store: Path, *, is_linked: bool) -> bool:
    """Have the streams of a server that does not run lie where its accounts will look; say whether they were moved.

    Raises:
        ConfigurationError: both places hold streams, or they cannot be moved.
    """
    plain, own = store / "jetstream" / PLAIN_ACCOUNT, store / "jetstream" / ACCOUNT
    here, there = (plain, own) if is_linked else (own, plain)
    if not here.is_dir():
        return False
    try:
        if there.is_dir() and not any(path.is_file() for path in there.rglob("*")):
            _remove_empty(there)
        if there.exists():
            raise ConfigurationError(
                f"streams lie in {here} and in {there}: keep the ones you want, move the others away"
            )
        os.replace(here, there)
    except OSError as error:
        raise ConfigurationError(f"{here} cannot become {there}: {error.strerror}: may we write there?") from error
    return True


def _remove_empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir()
    folder.rmdir()
