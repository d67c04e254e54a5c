"""What docs/rules.md tells an owner to write and to type fits the agents and the compose file as they are."""

import re
from pathlib import Path

import yaml

from edgeagents.model.agent import AgentDefinition
from services.agent.rules import RuleBook

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


def test_the_agent_of_the_page_is_one_and_its_rules_read_what_both_sinks_say() -> None:
    [text] = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    agent = AgentDefinition.model_validate(yaml.safe_load(text))
    keys = RuleBook(agent, "docs/rules.md").keys
    assert {("rule", "warm"), ("ekuiper", "wanted")} <= set(keys)
    assert [watch.topic for watch in agent.watches if watch.topic] == ["rules/agents"]


def test_the_addresses_of_the_page_are_those_of_the_compose_file() -> None:
    aliases = {name: service.get("networks", {}) for name, service in SERVICES.items()}
    assert "http://edgeagents-guard:59750/api/v3/rule" in PAGE
    assert "edgeagents-guard" in aliases["guard"]["edgex"]["aliases"]
    environment = SERVICES["rules-engine"]["environment"]
    connection = {name: value for name, value in environment.items() if name.startswith("CONNECTION__EDGEX__")}
    selectors = {name.split("__")[2].lower() for name in connection}
    assert selectors == set(re.findall(r'"connectionSelector": "(\w+)", "topic"', PAGE))
    assert connection["CONNECTION__EDGEX__MQTTMSGBUS__SERVER"] == "edgex-mqtt-broker"
    assert "`tcp`, `edgex-mqtt-broker`, `1883`" in PAGE


def test_every_picture_of_the_docs_is_there_small_and_shown() -> None:
    shown = set(re.findall(r"\]\(pictures/([\w-]+\.png)\)", PAGE))
    files = {path.name: path.stat().st_size for path in (ROOT / "docs" / "pictures").glob("*.png")}
    assert shown == set(files)
    assert max(files.values()) < 200_000
