"""Our services as processes of one test, beside an embedded core and a broker."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.embedded_core import EmbeddedCore
from tests.nats import free_port

START_S = 90.0  # several start at once, each from a disk that may stand still for seconds
STOP_S = 30.0


class ServiceProcess:
    """One service, `python -m <module>`, on a free port; `ready` waits until keeper knows it and it answers."""

    def __init__(
        self, module: str, key: str, core: EmbeddedCore, nats_url: str, folder: Path, *flags: str,
        environ: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Start it; its log lies in `folder`."""
        self.key = key
        self.log_path = folder / f"{key}.log"
        self._keeper = core.urls["keeper"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("EDGEAGENTS_", "EDGEX_"))}
        own = {
            "EDGEX_SECURITY_SECRET_STORE": "false", "EDGEX_USE_REGISTRY": "true",
            "EDGEX_CONFIG_PROVIDER": self._keeper.replace("http://", "keeper.http://"),
            "EDGEAGENTS_NATS_URL": nats_url, "SERVICE_HOST": "127.0.0.1", "SERVICE_PORT": str(free_port()),
        }  # fmt: skip
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *flags], env=clean | own | dict(environ or {}), stderr=log
            )

    def ready(self) -> str:
        """Return its base address once keeper knows it and it answers."""
        give_up = time.monotonic() + START_S
        with httpx.Client(trust_env=False, timeout=5.0) as http:
            while time.monotonic() < give_up and self.process.poll() is None:
                with contextlib.suppress(httpx.HTTPError):  # no answer now is no answer yet
                    answer = http.get(f"{self._keeper}/api/v3/registry/serviceId/{self.key}")
                    if answer.status_code == 200:
                        found = answer.json()["registration"]
                        url = f"http://{found['host']}:{found['port']}"
                        if http.get(f"{url}/api/v3/ping").status_code == 200:
                            return url
                time.sleep(0.05)
        pytest.fail(f"{self.key} did not start:\n{self.log_path.read_text()[-3000:]}")

    def stop(self) -> int:
        """End it in order; return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -1

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
