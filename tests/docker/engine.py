"""A Docker Engine for tests: the one that answers, else one of our own, and the gateway that compose starts on it.

The engine of our own keeps images between runs in a folder of its own (EDGEAGENTS_DOCKER_DIR), and ends with the tests.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.homes import LAMPS, NEVER_DONE, edit, home_with_lamps

ROOT: Final = Path(__file__).resolve().parents[2]
PROJECT: Final = "edgeagents-test"
OURS: Final = (
    "nats", "core", "guard", "world", "coordinator", "inference", "agent-air", "agent-assistant", "agent-comfort",
    "agent-energy",
)  # fmt: skip
START_S: Final = 60.0
# Any free port of the host for each published one; a busy winter's day in a minute.
CHOSEN: Final = {
    "COMPOSE_PROFILES": "embedded,demo", "COMPOSE_PROJECT_NAME": PROJECT, "EDGEX_NETWORK": f"{PROJECT}_edgex",
    "GUARD_PORT": "", "KEEPER_PORT": "", "METADATA_PORT": "", "DATA_PORT": "", "COMMAND_PORT": "",
    "NATS_PORT": "", "COORDINATOR_PORT": "", "INFERENCE_PORT": "",
    "HEALTH_INTERVAL": "3s", "SITE_TIME_FACTOR": "60", "SITE_TIME_START_S": "1768370400",
}  # fmt: skip


def run(words: Sequence[str], *, env: Mapping[str, str], stdin: str = "", timeout_s: float = 120.0) -> str:
    """Return what a command says on stdout; fails with what it says on stderr."""
    done = subprocess.run(
        words, env={**os.environ, **env}, input=stdin, capture_output=True, text=True, timeout=timeout_s, cwd=ROOT
    )
    assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


class Engine:
    """`docker` and compose, as commands; `stop` ends an engine that was started here."""

    def __init__(self) -> None:
        """Take the engine that answers, or start one."""
        self.env: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        if not self._answers():
            self._start()

    def _answers(self) -> bool:
        done = subprocess.run(["docker", "info"], env={**os.environ, **self.env}, capture_output=True)
        return done.returncode == 0

    def _start(self) -> None:
        default = Path.home() / ".cache" / "edgeagents" / "docker"
        folder = Path(os.environ.get("EDGEAGENTS_DOCKER_DIR") or default)
        folder.mkdir(parents=True, exist_ok=True)
        self.env = {"DOCKER_HOST": f"unix://{folder}/sock"}
        if self._answers():  # of an earlier run, that was cut off
            return
        own = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
        command = ["dockerd", *own, "--host", f"unix://{folder}/sock", "--bridge", "none"]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        give_up_s = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < give_up_s, "dockerd does not answer"
            time.sleep(0.2)

    def stop(self) -> None:
        """End the engine, where it is ours."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)

    def docker(self, *words: str, stdin: str = "", timeout_s: float = 120.0) -> str:
        """Return what `docker …` says."""
        return run(["docker", *words], env=self.env, stdin=stdin, timeout_s=timeout_s)

    def inspect(self, *names: str) -> list[dict[str, Any]]:
        """Return what the engine knows of containers, images or networks."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", *names))
        return found

    def both(self, container: str) -> str:
        """Return what a container wrote, on stdout and stderr."""
        done = subprocess.run(
            ["docker", "logs", container], env={**os.environ, **self.env}, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    def build(self) -> None:
        """Build the images of this tree; what did not change is taken from the engine's cache."""
        run(["services/images.sh"], env=self.env, timeout_s=900.0)


def compose_commands(engine: Engine) -> list[list[str]]:
    """Return the compose commands there are: Debian's docker-compose, and v2 as a plugin of docker."""
    found = [["docker-compose"]] if shutil.which("docker-compose") else []
    plugin = subprocess.run(["docker", "compose", "version"], env={**os.environ, **engine.env}, capture_output=True)
    return [*found, ["docker", "compose"]] if plugin.returncode == 0 else found


def busy_home(folder: Path) -> Path:
    """Return a copy of the home's files, in a folder, where agent `air` has something to command every few seconds."""

    def never_done(agent: Any) -> None:
        agent["rules"].append(NEVER_DONE)
        agent["may"].append(LAMPS)

    site = home_with_lamps(folder / "site")
    edit(site / "agents" / "air.yaml", never_done)
    for path in (site, *site.rglob("*")):  # the containers' user is another one
        path.chmod(0o755 if path.is_dir() else 0o644)
    return site


class Gateway:
    """The gateway of docker-compose.yml, profiles embedded and demo."""

    def __init__(
        self, engine: Engine, site: Path, *, project: str = PROJECT, more: Path | None = None,
        chosen: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Prepare a gateway with the owner's files in `site`; `up` starts it.

        Args:
            engine: runs it.
            site: folder of the owner's files.
            project: compose's name for it.
            more: a further compose file, over ours.
            chosen: settings in place of those of the short tests.
        """
        self.engine, self.project = engine, project
        files = ["-f", "docker-compose.yml", "-f", str(more)] if more is not None else []
        self._compose = [*compose_commands(engine)[0], *files]
        own = {"COMPOSE_PROJECT_NAME": project, "EDGEX_NETWORK": f"{project}_edgex", **(chosen or {})}
        began = {"SITE_DIR": str(site), "SITE_TIME_WALL_START_S": str(int(time.time()))}
        self.env = {**engine.env, **CHOSEN, **own, **began}
        self.up_s = 0.0
        self._containers: dict[str, str] = {}

    def compose(self, *words: str, timeout_s: float = 180.0) -> str:
        """Return what `compose …` says."""
        return run([*self._compose, *words], env=self.env, timeout_s=timeout_s)

    def up(self, timeout_s: float = 120.0) -> None:
        """Start it and wait until everything is healthy; `up_s` says how long that took."""
        began_s = time.monotonic()
        self.compose("up", "-d")
        self.wait_healthy(timeout_s)
        self.up_s = time.monotonic() - began_s

    def down(self) -> None:
        """Remove it with its volumes."""
        self.compose("down", "-v", "--remove-orphans", "-t", "5")

    def again(self) -> None:
        """Remove it and start it afresh."""
        self.down()
        self._containers.clear()
        self.up()

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        if service not in self._containers:
            name = f"label=com.docker.compose.service={service}"
            project = f"label=com.docker.compose.project={self.project}"
            found = self.engine.docker("ps", "-aq", "--no-trunc", "--filter", project, "--filter", name)
            self._containers[service] = found.split()[0]
        return self._containers[service]

    def health(self) -> dict[str, str]:
        """Return how each service of ours is."""
        states = self.engine.inspect(*(self.container(service) for service in OURS))
        return {
            service: state["State"].get("Health", {}).get("Status", "none") if state["State"]["Running"] else "ended"
            for service, state in zip(OURS, states, strict=True)
        }

    def wait_healthy(self, timeout_s: float = 90.0) -> None:
        """Return once all services are healthy; fails with what is not."""
        give_up_s = time.monotonic() + timeout_s
        while set(self.health().values()) != {"healthy"}:
            if time.monotonic() > give_up_s:
                bad = {name: how for name, how in self.health().items() if how != "healthy"}
                raise AssertionError(f"not healthy: {bad}\n" + "\n".join(self.logs(name)[-1500:] for name in bad))
            time.sleep(0.3)

    def logs(self, service: str) -> str:
        """Return what a service wrote."""
        return self.engine.both(self.container(service))

    def python(self, service: str, code: str, *words: str, timeout_s: float = 60.0) -> str:
        """Return what a Python program says that runs inside a service's container, as its user."""
        command = ["exec", "-i", self.container(service), "python3", "-", *words]
        return self.engine.docker(*command, stdin=code, timeout_s=timeout_s)

    def kill(self, pid: str) -> None:
        """End the first process of a container, as a crash or the kernel would."""
        os.kill(int(pid), signal.SIGKILL)

    def get(self, service: str, url: str) -> dict[str, Any]:
        """Return the JSON that an address answers with, asked from inside a service's container."""
        code = "import sys, urllib.request as r\nprint(r.urlopen(sys.argv[1], timeout=10).read().decode())"
        answer: dict[str, Any] = json.loads(self.python(service, code, url))
        return answer

    def address(self, service: str, network: str = "edgex") -> str:
        """Return the IP address that a service's container has now on one of the gateway's networks."""
        networks = self.engine.inspect(self.container(service))[0]["NetworkSettings"]["Networks"]
        return str(networks[f"{self.project}_{network}"]["IPAddress"])

    def published(self, service: str, port: int) -> str:
        """Return `host:port` at which a port of a service's container is published now."""
        bindings = self.engine.inspect(self.container(service))[0]["NetworkSettings"]["Ports"][f"{port}/tcp"]
        return f"127.0.0.1:{bindings[0]['HostPort']}"

    def owner(self, *words: str, timeout_s: float = 60.0) -> str:
        """Return what the owner's command line says, in its container."""
        return self.compose("run", "--rm", "edgeagents", *words, timeout_s=timeout_s)

    def guard(self) -> dict[str, Any]:
        """Return the guard's state, by its published port."""
        url = f"http://{self.published('guard', 59740)}/api/v3/guard"
        with urllib.request.urlopen(url, timeout=10) as answer:
            state: dict[str, Any] = json.loads(answer.read())
        return state

    def proven(self) -> int:
        """Return how many commands were proven since the guard started."""
        return int(self.guard()["outcomes"].get("proven", 0))

    def wait_proven(self, more: int = 1, timeout_s: float = 60.0) -> None:
        """Return once so many more commands are proven: events come, agents decide, the guard acts."""
        give_up_s, since = time.monotonic() + timeout_s, -1
        while True:
            with contextlib.suppress(OSError):  # just being started again
                now = self.proven()
                since = now if since < 0 else since
                if now >= since + more:
                    return
            assert time.monotonic() < give_up_s, f"no proven command in {timeout_s:g} s: {self.logs('guard')[-3000:]}"
            time.sleep(0.3)
