"""What the README tells a stranger to type and to write, done (`make test` itself excepted)."""

import contextlib
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from edgeagents.model.agent import AgentDefinition

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
KEYS = {
    "events", "decisions", "commands_sent", "commands_proven", "failures", "refused_by_gate", "lost", "duplicated",
    "event_to_command_ms", "comfort_violation_degree_hours", "energy_kwh",
}  # fmt: skip


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.strip().splitlines()]


def test_the_first_two_commands_are_demo_and_test() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]


@pytest.mark.timeout(150)
def test_headless_demo_proves_commands_and_loses_nothing() -> None:
    command = next(line for line in COMMANDS if "--json" in line)

    done = subprocess.run(
        shlex.split(command),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
        env=plain_environment(),
    )

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result.keys() >= KEYS
    assert result["commands_proven"] >= 5, result
    assert result["failures"] <= 0.01 * result["commands_sent"], result
    assert (result["lost"], result["duplicated"]) == (0, 0), result
    assert result["event_to_command_ms"]["p50"] > 0
    assert processes_that_mention("edgeagents-demo-") == []


@pytest.mark.timeout(120)
def test_demo_shows_the_home_and_ends_cleanly_on_ctrl_c() -> None:
    parent, child = pty.openpty()
    process = subprocess.Popen(
        ["make", "demo"], cwd=ROOT, stdin=child, stdout=child, stderr=child, start_new_session=True,
        env=plain_environment() | {"TERM": "xterm", "COLUMNS": "140", "LINES": "45"},
    )  # fmt: skip
    os.close(child)
    try:
        shown = read_until(parent, "who decided what", 60)
        assert "living" in shown
        os.killpg(process.pid, signal.SIGINT)
        read_until(parent, None, 30)
        process.wait(15)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(parent)
    assert processes_that_mention("edgeagents-demo-") == []


def test_the_agent_in_the_readme_is_a_valid_file() -> None:
    agent = AgentDefinition.model_validate(yaml.safe_load(blocks("yaml")[0]))

    assert agent.mode == "act"
    assert agent.may[0].resource == "Level"


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def plain_environment() -> dict[str, str]:
    """Return our environment without what a `make test` around us and other settings put there."""
    others = ("EDGEAGENTS_", "EDGEX_", "MAKE", "MFLAGS", "ARGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(others)}


def read_until(descriptor: int, text: str | None, seconds: float) -> str:
    """Return what a terminal showed until a text appeared in it (None: until it was closed)."""
    shown, until_s = "", time.monotonic() + seconds
    while time.monotonic() < until_s:
        if select.select([descriptor], [], [], 0.2)[0]:
            try:
                data = os.read(descriptor, 65_536)
            except OSError:  # the other end is closed
                return shown
            if not data:
                return shown
            shown += data.decode(errors="replace")
        if text is not None and text in shown:
            return shown
    assert text is None, f"{text!r} never appeared in:\n{shown[-2000:]}"
    raise AssertionError(f"the program did not end in {seconds} s")


def processes_that_mention(text: str) -> list[str]:
    """Return the command lines of processes that name a folder in their arguments or environment, or write to it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                arguments, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:  # ended meanwhile, or not ours
                continue
            output = b""  # of one that is forked all else is its parent's
            with contextlib.suppress(OSError):
                output = bytes((entry / "fd" / "1").readlink())
            if text.encode() in arguments + environment + output:
                found.append(arguments.replace(b"\0", b" ").decode(errors="replace"))
    return found
