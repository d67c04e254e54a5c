"""Nothing leaves: a process that loads and runs a model opens no socket, and leaves no file behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.unit.inference.graphs import linear

RUNS = """
import sys
from pathlib import Path
import numpy as np
from edgeagents.inference.folder import open_folder
from edgeagents.inference.session import Session
import onnxruntime
session = Session(open_folder(Path(sys.argv[1])))
for _ in range(200):
    session.run({"x": np.ones((4, 3), np.float32)})
print("ran")
"""


def sealed(tmp_path: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(text)
    (tmp_path / "home").mkdir(exist_ok=True)
    environ = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    return subprocess.run(
        [sys.executable, "-m", "tests.sealed", str(script), *arguments], capture_output=True, text=True, timeout=120,
        env=environ | {"HOME": str(tmp_path / "home"), "PYTHONPATH": os.getcwd()}, check=False,
    )  # fmt: skip


def test_a_model_is_loaded_and_run_without_a_socket(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    found = sealed(tmp_path, RUNS, str(linear(tmp_path / "model")))
    assert (found.returncode, found.stdout) == (0, "ran\n"), found.stderr
    assert list((tmp_path / "home").rglob("*")) == [], "no name of this device is written down either"


def test_whoever_opens_a_socket_in_there_is_ended(tmp_path: Path) -> None:
    assert sealed(tmp_path, "import socket\nsocket.socket()\n").returncode == -signal.SIGSYS


def test_telemetry_is_off_before_anybody_imports_the_runtime(tmp_path: Path) -> None:
    found = sealed(
        tmp_path, "import os, sys\nimport edgeagents.inference\nprint(os.environ['ORT_DISABLE_TELEMETRY'],"
        " 'onnxruntime' in sys.modules)\n",
    )  # fmt: skip
    assert found.stdout == "1 False\n", found.stderr
