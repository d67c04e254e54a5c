"""The gateway that the bench of the language model asks on: ten agents that start."""

from pathlib import Path

from edgeagents.adapters.files import agent_files
from services.agent.bargaining import load_bargaining
from tests.bench.inference import AGENTS, profiles


def test_ten_agents_have_files_that_they_start_with(tmp_path: Path) -> None:
    folder = profiles(tmp_path / "home") / "agents"
    found = agent_files(folder)
    assert (len(found.agents), found.wrong, found.doubled) == (AGENTS, {}, {})
    for name, agent in found.agents.items():
        load_bargaining(agent, found.paths[name])
