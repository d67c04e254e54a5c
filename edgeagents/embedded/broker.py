"""The broker of a container: the real nats-server, told what it needs to know, and looked after while it runs.

Start here: `python -m edgeagents.embedded.broker`. The users come from the file that `edgeagents credentials` writes;
when that file changes, the server takes the new users over without a restart. MQTT listens on one address alone, that
of EdgeX's network: on it an anonymous client counts as EdgeX. A server that takes nothing in any more because its disk
was full is started again once there is room (`full_store.py`). Whatever ends the server otherwise ends this process:
who started it starts it again.

Source: NATS server configuration reference; docs/compose.md.
"""

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgeagents.adapters.nats_server import find_nats_server, write_private
from edgeagents.embedded.full_store import FullStore
from edgeagents.embedded.nats import MAX_PAYLOAD_BYTES, WAITING
from edgeagents.errors import ConfigurationError
from edgeagents.settings import PREFIX, check_environment

log = logging.getLogger("edgeagents.embedded.broker")

LOOK_S: Final = 0.5
MONITOR: Final = "127.0.0.1:8222"  # for the health check alone


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
    store_bytes: int = Field(0, ge=0, description="most bytes of all streams; 0: three quarters of the disk")


def server_config(settings: BrokerSettings, users: list[dict[str, Any]]) -> dict[str, Any]:
    """Return nats-server's configuration."""
    stored = {"max_file_store": settings.store_bytes} if settings.store_bytes else {}
    config: dict[str, Any] = {
        "server_name": "gateway",
        "listen": f"{settings.host}:{settings.port}",
        "http": MONITOR,
        "max_payload": MAX_PAYLOAD_BYTES,
        "jetstream": {"store_dir": str(settings.store), "sync_interval": "always", **WAITING, **stored},
        "authorization": {"users": users},
    }
    if settings.mqtt_host:
        config["mqtt"] = {
            "host": settings.mqtt_host, "port": settings.mqtt_port, "no_auth_user": settings.mqtt_user,
        }  # fmt: skip
    return config


class Broker:
    """nats-server as a child process."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Prepare; `run` starts it."""
        self._settings = settings
        self._stopping = asyncio.Event()
        self._full = FullStore(Path("/dev/null"), settings.store)
        self._news: list[bytes] = []

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
            log.warning("the disk was full and has room again: nats-server is started anew")

    async def _serve(self) -> int | None:
        """Run one server to its end; return its exit code, None when it is to be started again."""
        seen = self._write()
        process = await asyncio.create_subprocess_exec(
            find_nats_server(), "-c", str(self._settings.config), stderr=asyncio.subprocess.PIPE
        )
        reading = asyncio.create_task(self._pass_on(process.stderr))
        ended, stop = asyncio.create_task(process.wait()), asyncio.create_task(self._stopping.wait())
        is_stuck = False
        try:
            while not (ended.done() or stop.done() or is_stuck):
                await asyncio.wait({ended, stop}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                news, self._news = self._news, []
                is_stuck = self._full.heard(b"".join(news))
                seen = self._reload(process, seen)
            if not ended.done():
                process.send_signal(signal.SIGKILL if is_stuck else signal.SIGTERM)
            code = await ended
            await reading
            return None if is_stuck and not stop.done() else max(code, 0)
        finally:
            stop.cancel()

    async def _pass_on(self, output: asyncio.StreamReader | None) -> None:
        assert output is not None
        async for line in output:
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
            self._news.append(line)

    def _reload(self, process: asyncio.subprocess.Process, seen: str) -> str:
        """Have the server take over users that changed; return what it has now."""
        try:
            if self._users() == seen:
                return seen
            now = self._write()
        except ConfigurationError as error:
            log.error("%s: the former users stay", error)
            return seen
        log.info("users changed: nats-server takes them over")
        if process.returncode is None:
            process.send_signal(signal.SIGHUP)
        return now

    def _users(self) -> str:
        path = self._settings.users_file
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"users file {path}: {error}: has `edgeagents credentials` run?") from error

    def _write(self) -> str:
        text = self._users()
        try:
            users = json.loads(text)["users"]
        except (ValueError, KeyError, TypeError) as error:
            path = self._settings.users_file
            raise ConfigurationError(f"users file {path}: not what `edgeagents credentials` writes") from error
        write_private(self._settings.config, json.dumps(server_config(self._settings, users), indent=1))
        return text


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
