"""The broker of a container: the real nats-server, told what it needs to know, and looked after while it runs.

Start here: `python -m edgeagents.embedded.broker`. The users come from the file that `edgeagents credentials` writes;
when that file changes, the server takes the new users over without a restart. Peers come from the owner's
`gateways.yaml`; when that changes, or a password that we gave one, the server is started anew. MQTT listens on one
address alone, that of EdgeX's network: on it an anonymous client counts as EdgeX. A server that takes nothing in any
more because its disk was full is started again once there is room (`full_store.py`). Whatever ends the server otherwise
ends this process: who started it starts it again.

Source: NATS server configuration reference; docs/compose.md.
"""

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgeagents.adapters.leaf_nodes import gateways_if_any, linked_config, outgoing_passwords, settle_store
from edgeagents.adapters.nats_server import find_nats_server, write_private
from edgeagents.embedded.full_store import FullStore
from edgeagents.embedded.nats import MAX_PAYLOAD_BYTES, WAITING
from edgeagents.errors import ConfigurationError
from edgeagents.model.gateways import Gateways
from edgeagents.settings import PREFIX, check_environment

log = logging.getLogger("edgeagents.embedded.broker")

LOOK_S: Final = 0.5


class BrokerSettings(BaseSettings):
    """Where the broker listens and keeps its streams."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}BROKER_", frozen=True)

    users_file: Path = Field(description="users and permissions, as `edgeagents credentials` writes them")
    store: Path = Field(Path("var/jetstream"), description="folder of the streams")
    config: Path = Field(Path("/tmp/nats-server.conf"), description="where the server's configuration is written")  # noqa: S108
    host: str = Field("0.0.0.0", description="address for NATS")
    port: int = Field(4222, ge=1, le=65535, description="port for NATS")
    mqtt_host: str = Field("", description="name or address for MQTT, on EdgeX's network alone; empty: no MQTT")
    mqtt_port: int = Field(1883, ge=1, le=65535, description="port for MQTT")
    mqtt_user: str = Field("edgex", description="what an MQTT client without a password counts as")
    gateways_file: Path | None = Field(None, description="the owner's gateways.yaml; without one there are no peers")
    gateway: str = Field("gateway", min_length=1, description="name of this gateway, where it has peers")
    monitor: str = Field("127.0.0.1:8222", description="host:port for the health check alone")
    store_bytes: int = Field(0, ge=0, description="most bytes of all streams; 0: three quarters of the disk")


def server_config(
    settings: BrokerSettings,
    users: list[dict[str, Any]],
    gateways: Gateways | None = None,
    incoming: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return nats-server's configuration; reads the passwords that peers gave us.

    Args:
        settings: where it listens and keeps its streams.
        users: as the users file has them.
        gateways: its peers; None: it has none.
        incoming: passwords of peers that come to us.

    Raises:
        ConfigurationError: a peer's password cannot be read.
    """
    stored = {"max_file_store": settings.store_bytes} if settings.store_bytes else {}
    config: dict[str, Any] = {
        "server_name": "gateway",
        "listen": f"{settings.host}:{settings.port}",
        "http": settings.monitor,
        "max_payload": MAX_PAYLOAD_BYTES,
        "jetstream": {"store_dir": str(settings.store), "sync_interval": "always", **WAITING, **stored},
        "authorization": {"users": users},
    }
    if settings.mqtt_host:
        config["mqtt"] = {
            "host": settings.mqtt_host, "port": settings.mqtt_port, "no_auth_user": settings.mqtt_user,
        }  # fmt: skip
    if gateways is None:
        return config
    return linked_config(config, users, gateways, incoming, outgoing_passwords(gateways))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the server is to be told: its whole configuration, and the part that it takes over only at its start."""

    config: str
    at_start: str
    is_linked: bool


class Broker:
    """nats-server as a child process."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Prepare; `run` starts it."""
        self._settings = settings
        self._stopping = asyncio.Event()
        self._full = FullStore(Path("/dev/null"), settings.store)
        self._news: list[bytes] = []
        self._told = ""  # what is wrong is told once

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the server's exit code.

        Raises:
            ConfigurationError: there is no usable file of users, or no nats-server.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        await asyncio.to_thread(self._settings.store.mkdir, parents=True, exist_ok=True)
        while True:
            code = await self._serve()
            if code is not None:
                return code

    async def _serve(self) -> int | None:
        """Run one server to its end; return its exit code, None when it is to be started again."""
        seen = self._wanted()
        if settle_store(self._settings.store, is_linked=seen.is_linked):
            log.warning("the streams were moved, as the gateway %s peers", "has" if seen.is_linked else "has no more")
        self._write(seen)
        process = await asyncio.create_subprocess_exec(
            find_nats_server(), "-c", str(self._settings.config), stderr=asyncio.subprocess.PIPE
        )
        reading = asyncio.create_task(self._pass_on(process.stderr))
        ended, stop = asyncio.create_task(process.wait()), asyncio.create_task(self._stopping.wait())
        is_stuck = is_other = False
        try:
            while not (ended.done() or stop.done() or is_stuck or is_other):
                await asyncio.wait({ended, stop}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                news, self._news = self._news, []
                is_stuck = self._full.heard(b"".join(news))
                before, seen = seen, self._reload(process, seen)
                is_other = seen.at_start != before.at_start
            if not ended.done():
                process.send_signal(signal.SIGKILL if is_stuck else signal.SIGTERM)
            code = await ended
            await reading
            if stop.done() or not (is_stuck or is_other):
                return max(code, 0)
            why = "peers changed" if is_other else "the disk was full and has room again"
            log.warning("%s: nats-server is started anew", why)
            return None
        finally:
            stop.cancel()

    async def _pass_on(self, output: asyncio.StreamReader | None) -> None:
        assert output is not None
        async for line in output:
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
            self._news.append(line)

    def _reload(self, process: asyncio.subprocess.Process, seen: Wanted) -> Wanted:
        """Have the server take over what changed, where it can without a restart; return what is wanted now."""
        try:
            now = self._wanted()
        except ConfigurationError as error:
            if str(error) != self._told:
                log.error("%s: the former users stay, and peers", error)
                self._told = str(error)
            return seen
        self._told = ""
        if now != seen and now.at_start == seen.at_start:
            self._write(now)
            log.info("users changed: nats-server takes them over")
            if process.returncode is None:
                process.send_signal(signal.SIGHUP)
        return now

    def _wanted(self) -> Wanted:
        settings = self._settings
        try:
            text = settings.users_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"users file {settings.users_file}: {error}: has `edgeagents credentials` run?"
            ) from error
        try:
            found = json.loads(text)
            users, incoming = found["users"], dict(found.get("peers", {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            path = settings.users_file
            raise ConfigurationError(f"users file {path}: not what `edgeagents credentials` writes") from error
        gateways = gateways_if_any(settings.gateways_file, settings.gateway)
        config = json.dumps(server_config(settings, users, gateways, incoming), indent=1)
        # nats-server asks a leaf link for its password only when it comes: a new one has to end the links there are.
        at_start = "" if gateways is None else json.dumps([gateways.model_dump_json(), incoming])
        return Wanted(config, at_start, gateways is not None)

    def _write(self, wanted: Wanted) -> None:
        write_private(self._settings.config, wanted.config)


def main() -> int:
    """Run the broker; return the exit code."""
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(asctime)s broker %(levelname)s %(message)s")
    try:
        check_environment(BrokerSettings)
        return asyncio.run(Broker(BrokerSettings()).run())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        log.error("%sBROKER_%s: %s", PREFIX, str(first["loc"][0]).upper(), first["msg"])
    except ConfigurationError as error:
        log.error("%s", error)
    return 1


if __name__ == "__main__":
    sys.exit(main())
