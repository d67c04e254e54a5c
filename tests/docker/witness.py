"""A gateway in containers whose services write down what they did, and what came of it: nothing lost, nothing doubled.

The tally is that of the process trees (`edgeagents/embedded/tally.py`): the command stream, the world's journal and the
agents' journals. The journals lie in a folder of the host, and the broker's store on a small disk of its own: both are
for the tests alone and stand in a further compose file.
"""

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.files import load_agents, load_site
from edgeagents.embedded.evidence import collect
from edgeagents.embedded.gateway import SETTLE_S
from edgeagents.embedded.tally import Tally, tally
from edgeagents.errors import TheirError
from edgeagents.model.device import Device
from edgeagents.settings import BusSettings
from tests.docker.engine import Engine, Gateway, busy_home

PROJECT: Final = "edgeagents-faults"
STORE_SIZE: Final = "192m"
STORE_BYTES: Final = str(1 << 34)  # what the broker takes its store for: by the disk it would refuse our streams


class Watched:
    """A gateway with journals and a small disk for its broker."""

    def __init__(self, engine: Engine, folder: Path, chosen: dict[str, str]) -> None:
        """Prepare it in a folder; `running` starts it."""
        self.folder = folder
        self.site = busy_home(folder)
        self.agents = load_agents(self.site / "agents")  # each has a container of its own
        self.journals, self.store = folder / "journals", folder / "store"
        for path in (self.journals, self.store):
            path.mkdir()
            path.chmod(0o777)
        more = folder / "more.yml"
        more.write_text(yaml.safe_dump(self._more()))
        chosen = {"NATS_STORE_BYTES": STORE_BYTES, **chosen}
        self.gateway = Gateway(engine, self.site, project=PROJECT, more=more, chosen=chosen)

    def _more(self) -> dict[str, object]:
        written = {
            "environment": {"EDGEAGENTS_JOURNAL_DIR": "/journals"}, "volumes": [f"{self.journals}:/journals"],
        }  # fmt: skip
        names = ("world", *(f"agent-{name}" for name in self.agents))
        nats = {"volumes": [f"{self.store}:/state"]}
        return {"version": "3.8", "services": {**dict.fromkeys(names, written), "nats": nats}}

    @contextlib.contextmanager
    def running(self) -> Iterator[Gateway]:
        """Have it run while the context is open; nothing of it is left."""
        mount = ["mount", "-t", "tmpfs", "-o", f"size={STORE_SIZE},mode=1777", "tmpfs", str(self.store)]
        subprocess.run(mount, check=True)
        try:
            self.gateway.down()
            self.gateway.up()
            yield self.gateway
        finally:
            self.gateway.down()
            subprocess.run(["umount", "-l", str(self.store)], check=True)

    def judged(self) -> Tally:
        """Have agents stop deciding, let what is under way end, and return what was lost, doubled and proven."""
        return asyncio.run(self._judged())

    async def _judged(self) -> Tally:
        for name in self.agents:
            await asyncio.to_thread(self._stop_deciding, name)
        until_ns = time.time_ns()
        bus = await Bus.connect(self._owner(), "owner")
        try:
            await self._settled(bus)
            found = self.gateway.get("core", "http://127.0.0.1:59881/api/v3/device/all?limit=-1")
            devices = {item["name"]: Device.model_validate(item) for item in found["devices"]}
            site = load_site(self.site / "site.yaml")
            return tally(await collect(bus, self.agents, devices, self.journals, until_ns, site))
        finally:
            await bus.close()

    def _stop_deciding(self, agent: str) -> None:
        # The guard passes no such word on: it is said inside the container, on the port the agent listens on.
        code = (
            "import os, urllib.request as r\n"
            "own = {'Authorization': 'Bearer ' + open('/run/credentials/door.token').read().strip()}\n"
            "rows = [line.split() for line in open('/proc/net/tcp').read().splitlines()[1:]]\n"
            "for port in {int(row[1].split(':')[1], 16) for row in rows if row[3] == '0A'}:\n"
            "    url = f'http://{os.environ[\"SERVICE_HOST\"]}:{port}/api/v3/deciding/off'\n"
            "    try: print(r.urlopen(r.Request(url, headers=own, method='POST')).read().decode())\n"
            "    except OSError as error: print(url, error)\n"
        )
        said = self.gateway.python(f"agent-{agent}", code)
        assert '"deciding":false' in said.replace(" ", ""), f"{agent} does not stop deciding: {said}"

    def _owner(self) -> BusSettings:
        users = json.loads(self.gateway.python("nats", "print(open('/run/credentials/users.json').read())"))["users"]
        password = self.folder / "owner.password"
        password.write_text(next(user["password"] for user in users if user["user"] == "owner"))
        url = f"nats://{self.gateway.address('nats')}:4222"
        return BusSettings(gateway="gateway", nats_url=url, nats_user="owner", nats_password_file=password)

    async def _settled(self, bus: Bus) -> None:
        """Wait until agents have handled all there was, and the guard has ended all it took; at most `SETTLE_S`."""
        until_s, late = time.monotonic() + SETTLE_S, set(self.agents)
        while time.monotonic() < until_s:
            with contextlib.suppress(TheirError):
                for name in sorted(late):
                    if await bus.is_caught_up(subjects.EVENTS_STREAM, subjects.agent_durable(name)):
                        late.discard(name)
            if not late and self.gateway.guard().get("waiting") == 0:
                return
            await asyncio.sleep(0.3)
