"""docker-compose.yml as it is written: what needs no engine to be seen."""

import inspect
import re
import textwrap
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

import edgeagents
from edgeagents.model.task import MOST_TASK_BYTES
from edgeagents.protocol.task_book import Book
from edgeagents.protocol.task_ledger import MOST_TASKS
from services.agent import phrases
from services.guard.roads import SERVICES_ROADS
from services.inference.app import InferenceSettings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
PAGE = (ROOT / "docs" / "compose.md").read_text()
ENV = (ROOT / ".env").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = {name: service for name, service in SERVICES.items() if "IMAGE_PREFIX" in service["image"]}
INSIDE = {"coordinator", "inference"}  # services that are behind the guard's door, as agents are
AGENTS = sorted(path.stem for path in (ROOT / "edgex-profiles" / "home" / "agents").glob("*.yaml"))


def mounts(service: dict[str, Any]) -> list[list[str]]:
    """Return source, target and mode of each volume of a service, and of each of the owner's files."""
    texts = [*service.get("volumes", [])]
    texts += [f"{FILE['secrets'][item['source']]['file']}:{item['target']}:ro" for item in service.get("secrets", [])]
    found = []
    for text in texts:
        for word, usual in (("SITE_DIR", "./edgex-profiles/home"), ("MODELS_DIR", "./models")):
            text = text.replace(f"${{{word}:-{usual}}}", word)
        found.append([*text.split(":"), "rw"][:3])
    return found


def networks(service: dict[str, Any]) -> set[str]:
    return set(service.get("networks") or [])


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_service_of_ours_is_confined(name: str) -> None:
    service = OURS[name]
    assert service["user"] == "2002:2001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]
    assert service["logging"]["options"]["max-size"]
    assert service["image"].endswith(":${IMAGE_VERSION:-" + edgeagents.__version__ + "}")
    assert service["restart"] == "no" or service["healthcheck"]["test"][0] == "CMD"


def test_the_version_is_the_projects() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == edgeagents.__version__
    assert f"IMAGE_VERSION={edgeagents.__version__}\n" in (ROOT / ".env").read_text()


@pytest.mark.parametrize("volume", sorted(name for name in FILE["volumes"] if name.endswith("-credentials")))
def test_credentials_are_seen_by_one_consumer_that_cannot_write_them(volume: str) -> None:
    users = {name: mode for name, service in OURS.items() for source, _, mode in mounts(service) if source == volume}
    assert users.pop("credentials") == "rw"
    assert list(users.values()) == ["ro"]


def test_every_agent_of_the_home_has_a_service_of_its_own() -> None:
    assert [name for name in sorted(OURS) if name.startswith("agent-")] == [f"agent-{name}" for name in AGENTS]
    for name in AGENTS:
        service = OURS[f"agent-{name}"]
        assert service["environment"]["EDGEAGENTS_NATS_USER"] == f"agent-{name}"
        assert [f"SITE_DIR/agents/{name}.yaml", "/etc/edgeagents/agent.yaml", "ro"] in mounts(service)


def test_an_owners_file_that_is_missing_is_an_error_and_no_folder_that_docker_makes() -> None:
    used = {item["source"] for service in SERVICES.values() for item in service.get("secrets", [])}
    assert used == set(FILE["secrets"])
    home = ROOT / "edgex-profiles" / "home"
    for service in OURS.values():
        secret = [source for source, *_ in mounts({"secrets": service.get("secrets", [])})]
        bound = [source for source, *_ in mounts(service) if source.startswith("SITE_DIR") and source not in secret]
        assert all((home / source.removeprefix("SITE_DIR/")).is_file() for source in secret)
        assert all((home / source.removeprefix("SITE_DIR/")).is_dir() for source in bound)


def test_an_agent_sees_no_file_of_another() -> None:
    for name in AGENTS:
        seen = {source for source, *_ in mounts(OURS[f"agent-{name}"])}
        own = {f"SITE_DIR/agents/{name}.yaml", f"SITE_DIR/preferences/{name}.yaml", f"agent-{name}-credentials"}
        assert seen <= own | {"SITE_DIR/words.yaml"}


def test_agents_are_on_no_network_of_edgex_and_have_no_way_out() -> None:
    both = {name for name, service in SERVICES.items() if networks(service) >= {"edgex", "agents"}}
    assert both == {"nats", "guard"}
    for name, service in SERVICES.items():
        if name not in both and name != "credentials":
            assert networks(service) == ({"agents"} if name.startswith("agent-") or name in INSIDE else {"edgex"}), name
    assert FILE["networks"]["agents"]["internal"] is True
    assert SERVICES["credentials"]["network_mode"] == "none"


def test_mqtt_and_the_guards_pages_listen_on_names_of_edgexs_network_alone() -> None:
    nats, guard = OURS["nats"], OURS["guard"]
    assert nats["environment"]["EDGEAGENTS_BROKER_MQTT_HOST"] in nats["networks"]["edgex"]["aliases"]
    assert not (nats["networks"]["agents"] or {}).get("aliases")
    assert guard["environment"]["SERVICE_HOST"] in guard["networks"]["edgex"]["aliases"]
    assert guard["environment"]["EDGEAGENTS_DOOR_HOST"] in guard["networks"]["agents"]["aliases"]


def test_the_embedded_core_answers_under_edgexs_names() -> None:
    names = {"edgex-core-keeper", "edgex-core-metadata", "edgex-core-data", "edgex-core-command"}
    assert names <= set(OURS["core"]["networks"]["edgex"]["aliases"])
    assert OURS["core"]["profiles"] == ["embedded"]


def test_ports_are_published_on_the_chosen_address_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    owners = [port for port in published if port.startswith("${OWNER_ADDRESS:-127.0.0.1}:")]
    assert [port.rpartition(":")[2] for port in owners] == ["4222", "59741", "59743"], "who asks nobody, and the broker"
    assert all(port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:") for port in published if port not in owners)


def test_what_the_coordinator_may_hold_fits_its_memory() -> None:
    """A record costs 2.2 bytes for each of its task (measured: 34.6 KB of RSS for 16 KB); the service itself 60 MB."""
    held = MOST_TASKS + inspect.signature(Book).parameters["most_ended"].default
    assert OURS["coordinator"]["mem_limit"] == "1g"
    assert held * 2.2 * MOST_TASK_BYTES + 60e6 < 1 << 30


def test_nothing_of_ours_waits_for_a_profile_or_mounts_the_host_for_writing() -> None:
    for name, service in OURS.items():
        assert set(service.get("depends_on", {})) <= {"credentials"}, name
        for source, _, mode in mounts(service):
            assert mode == "ro" or source in FILE["volumes"], (name, source)
            assert "docker.sock" not in source


def test_it_holds_nothing_that_debians_compose_refuses() -> None:
    assert "name" not in FILE
    assert "version" not in FILE
    assert all(word not in TEXT for word in ("subpath:", "start_interval:", "service_healthy: true"))


def test_the_databases_password_reaches_all_that_use_it() -> None:
    password = "${POSTGRES_PASSWORD:-postgres}"
    assert SERVICES["database"]["environment"]["POSTGRES_PASSWORD"] == password
    # Keeper from its own configuration, all others from the common one.
    key = "WRITABLE_INSECURESECRETS_DB_SECRETDATA_PASSWORD"
    assert SERVICES["core-keeper"]["environment"][key] == password
    assert SERVICES["core-common-config-bootstrapper"]["environment"][f"ALL_SERVICES_{key}"] == password


def test_no_other_password_stands_in_an_environment_and_the_page_tells_of_this_one() -> None:
    shown = {
        name
        for name, service in SERVICES.items()
        for key, value in service.get("environment", {}).items()
        if re.search("PASSWORD|TOKEN|SECRETDATA", key) and not re.search("_FILE$|TOKENS", key) and value
    }
    assert shown == {"database", "core-keeper", "core-common-config-bootstrapper"}
    assert "of the database, of keeper and of the bootstrapper" in PAGE
    assert "ports" not in SERVICES["database"]


def test_the_ui_asks_keeper_what_services_there_are() -> None:
    asked = SERVICES["ui"]["environment"]
    assert (asked["REGISTRY_TYPE"], asked["REGISTRY_SERVICEVERSION"]) == ("keeper", "v4")
    assert asked["REGISTRY_HOST"] in SERVICES["core-keeper"]["networks"]["edgex"]["aliases"]
    assert asked["REGISTRY_HOST"] in SERVICES["core"]["networks"]["edgex"]["aliases"]
    assert asked["REGISTRY_PORT"] == "59890"


def test_versions_in_env_are_the_files_own_defaults() -> None:
    lines = (line.partition("=") for line in (ROOT / ".env").read_text().splitlines() if "_VERSION=" in line)
    for name, _, version in lines:
        assert f"${{{name}:-{version}}}" in TEXT, name


@pytest.mark.parametrize("name", [*(f"agent-{name}" for name in AGENTS), *sorted(INSIDE)])
def test_who_is_inside_is_asked_for_its_health_where_it_listens_and_at_no_port_of_ours(name: str) -> None:
    place = OURS[name]["environment"]["EDGEAGENTS_PLACE_FILE"]
    assert OURS[name]["healthcheck"]["test"][-2:] == [place, "/api/v3/ping"]
    assert any(place.startswith(mount.partition(":")[0] + "/") for mount in OURS[name]["tmpfs"]), "it may be written"


@pytest.mark.parametrize("name", sorted(INSIDE))
def test_coordinator_and_language_model_are_reached_at_the_guard_alone(name: str) -> None:
    service, road = OURS[name], SERVICES_ROADS[name]
    assert "ports" not in service, "no port leads to a network without a way out"
    assert any(port.endswith(f":{road.port}") for port in OURS["guard"]["ports"])
    assert service["environment"]["EDGEX_CONFIG_PROVIDER"] == "keeper.http://edgeagents-door:59745"
    assert service["environment"]["EDGEAGENTS_NATS_USER"] == name


def test_the_owners_command_line_finds_everything() -> None:
    told, guard = OURS["edgeagents"]["environment"], OURS["guard"]["networks"]["edgex"]["aliases"][0]
    for name in INSIDE:
        assert told[f"EDGEAGENTS_{name.upper()}_URL"] == f"http://{guard}:{SERVICES_ROADS[name].port}"
    places = {target for _, target, _ in mounts(OURS["edgeagents"])}
    assert {told["EDGEAGENTS_GUARD_SITE_FILE"], told["EDGEAGENTS_GUARD_AGENTS_DIR"]} <= places


def test_the_owners_command_line_sees_both_volumes_and_writes_neither() -> None:
    told = OURS["edgeagents"]["environment"]
    guard, store = told["EDGEAGENTS_GUARD_STATE_DIR"], told["EDGEAGENTS_BROKER_STORE"]
    seen = [entry for entry in mounts(OURS["edgeagents"]) if entry[0].endswith("-state")]
    assert seen == [["guard-state", guard, "ro"], ["nats-state", store, "ro"]]
    assert "run --rm edgeagents doctor\n" in PAGE
    recipe = (ROOT / "services" / "Dockerfile").read_text()
    assert all(f"/folders{place}" in recipe for _, place, _ in seen), "mounted first, a volume is not root's"


def test_the_images_keep_the_sentences_of_every_language_that_agents_understand() -> None:
    recipe = (ROOT / "services" / "Dockerfile").read_text()
    kept = next(line for line in recipe.splitlines() if "home_assistant_intents/data" in line)
    assert {name for name in phrases._FILES.values() if f"! -name {name} " in kept} == set(phrases._FILES.values())


def test_a_model_is_read_from_a_folder_that_may_be_replaced_and_not_written() -> None:
    service = OURS["inference"]
    assert ["MODELS_DIR", "/models", "ro"] in mounts(service)
    folder = service["environment"]["EDGEAGENTS_INFERENCE_MODEL"]
    usual = InferenceSettings.model_fields["model"].default
    assert folder == "/models/${MODEL_NAME:-" + usual.name + "}", "a folder below it: one made anew is seen"
    assert service["environment"]["EDGEAGENTS_INFERENCE_MODEL_DIGEST"] == "${MODEL_DIGEST:-}", "any, if none is named"
    assert (ROOT / "models" / "README.md").is_file(), "Docker makes a folder that is missing, as root's"


def test_the_assistant_knows_the_owners_words() -> None:
    service = OURS["agent-assistant"]
    words = service["environment"]["EDGEAGENTS_AGENT_WORDS_FILE"]
    assert ["SITE_DIR/words.yaml", words, "ro"] in mounts(service)
    assert (ROOT / "edgex-profiles" / "home" / "words.yaml").is_file()


def test_every_image_of_the_file_is_built() -> None:
    built = (ROOT / "services" / "images.sh").read_text().partition("services=(")[2].partition(")")[0].split()
    named = {service["image"].partition("}-")[2].partition(":")[0] for service in OURS.values()}
    assert named == set(built)


def blocks(heading: str) -> list[str]:
    """Return the indented blocks of a part of docs/compose.md."""
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [textwrap.dedent(text) for text in re.findall(r"(?:^    .*\n|^\n(?=    ))+", part, flags=re.MULTILINE)]


def test_beside_an_edgex_with_a_broker_of_its_own_ours_takes_another_name_and_the_guard_brings_events_over() -> None:
    chosen = dict(line.split("=", 1) for line in blocks("EdgeX is there already")[0].split())
    assert all(f"${{{name}:-" in TEXT or name == "COMPOSE_PROFILES" for name in chosen)
    name = "${MQTT_NAME:-edgex-mqtt-broker}"
    assert OURS["nats"]["networks"]["edgex"]["aliases"] == [name]
    assert chosen["MQTT_NAME"] not in name
    assert OURS["guard"]["environment"]["EDGEAGENTS_MQTT_URL"] == "${EDGEX_MQTT_URL:-}"
    assert urlsplit(chosen["EDGEX_MQTT_URL"]).hostname in name, "theirs keeps the name that EdgeX knows"
    assert all(f"# {name}={value}\n" in ENV for name, value in chosen.items() if value)


def test_the_page_leaves_out_just_the_homes_agents() -> None:
    found = yaml.safe_load(blocks("The owner's files")[0])
    assert found == {"services": {f"agent-{name}": {"profiles": ["home"]} for name in AGENTS}}


def test_an_agent_more_is_confined_and_mounted_as_the_homes_are() -> None:
    found = yaml.safe_load(blocks("An agent more")[0])
    mine, usual = found["services"]["agent-night"], OURS["agent-air"]
    for key in ("user", "read_only", "tmpfs", "cap_drop", "security_opt", "networks", "dns", "depends_on"):
        assert mine[key] == usual[key], key
    assert set(mine["environment"]) == set(usual["environment"]) - {
        f"EDGEAGENTS_SITE_TIME_{name}" for name in ("START_S", "WALL_START_S", "FACTOR")
    }
    assert mine["secrets"] == [{"source": "agent-night", "target": usual["environment"]["EDGEAGENTS_AGENT_FILE"]}]
    assert found["secrets"]["agent-night"]["file"] == FILE["secrets"]["agent-air"]["file"].replace("air", "night")
    assert found["services"]["credentials"]["volumes"] == ["agent-night-credentials:/credentials/agent-night"]
    assert mine["volumes"] == ["agent-night-credentials:/run/credentials:ro"]
