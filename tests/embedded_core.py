"""The embedded EdgeX core as a process of one test: free ports on 127.0.0.1, a state folder of its own."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

START_S = 30.0
STOP_S = 10.0


class EmbeddedCore:
    """One core process; `kill` and `start` again keep its state and, once known, its ports."""

    def __init__(self, folder: Path, nats_url: str, *flags: str, environ: dict[str, str] | None = None) -> None:
        """Prepare a core whose state lives in `folder`; `start` starts it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.urls: dict[str, str] = {}
        self.ready: dict[str, Any] = {}
        self._flags = flags
        self._environ = {"EDGEAGENTS_NATS_URL": nats_url} | (environ or {})
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for it."""
        ports = []
        for name in ("keeper", "metadata", "data", "command"):
            port = self.urls[name].rsplit(":", 1)[1] if self.urls else "0"
            ports += [f"--{name}-port", port]
        command = [sys.executable, "-m", "edgeagents.embedded.core", "--state", str(self.folder / "state"), *ports]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("EDGEAGENTS_")}
        with (self.folder / "core.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._flags], stdout=subprocess.PIPE, stderr=log, env=clean | self._environ
            )
        return self._process

    def start(self) -> "EmbeddedCore":
        """Start the process and wait for its ready line."""
        process = self.spawn()
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if readable else b""
        if not line:
            self.kill()
            pytest.fail(f"the core did not say that it is ready:\n{self.log()[-3000:]}")
        self.ready = json.loads(line)
        self.urls = {name: self.ready[name] for name in ("keeper", "metadata", "data", "command")}
        return self

    def log(self) -> str:
        """Return what the core wrote to stderr."""
        return (self.folder / "core.log").read_text()

    def stop(self) -> tuple[int, float]:
        """End the process as a supervisor does; return its exit code and how long it took."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(STOP_S)
        self._forget()
        return code, time.monotonic() - began

    def kill(self) -> None:
        """End the process as a power cut would: SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._forget()

    def _forget(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
