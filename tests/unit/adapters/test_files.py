"""The owner's files: every mistake is told with file, field and remedy."""

import contextlib
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.adapters.files import (
    MAX_FILE_BYTES,
    MAX_VALUES,
    agent_files,
    load_agent,
    load_agents,
    load_site,
    load_yaml,
    looks_of,
)
from edgeagents.adapters.provisioning import load_inventory
from edgeagents.errors import ConfigurationError
from edgeagents.protocol.fitting import site_problems

HOME = Path(__file__).resolve().parents[3] / "edgex-profiles" / "home"
AGENT = "name: air\nwatches:\n  - {profile: sensor}\n"


def write(folder: Path, text: str | bytes, name: str = "air.yaml") -> Path:
    """Return the path of a file that holds a text."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def complaint(path: Path) -> str:
    """Return why an agent file is refused, without its folder."""
    with pytest.raises(ConfigurationError) as caught:
        load_agent(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AGENT + "modus: act\n", ": modus: unknown field: remove it, or correct its spelling"),
        ("name: air\n", ": watches: missing: add it"),
        (AGENT + "mode: run\n", ": mode: Input should be 'observe' or 'act'"),
        (AGENT + "may:\n  - {profile: p, resource: r, minimun: 3}\n", ": may[0].minimun: unknown field"),
        (AGENT + "may:\n  - {profile: p, resource: r, minimum: 5, maximum: 3}\n", "may[0]: minimum 5.0 is above"),
        (AGENT + "may:\n  - {profile: p, resource: r, rate: {count: 0, per: 1h}}\n", "may[0].rate.count: Input should"),
        (AGENT + "may:\n  - {profile: p, resource: r, rate: {count: 1, per: 1x}}\n", "'1x' is no duration: write 90s"),
        (AGENT + "ttl: 2h\n", ": ttl: Input should be less than or equal to 3600"),
        (AGENT + "name: heat\n", ", line 4: not YAML: 'name' stands there twice"),
        (AGENT + "goals: {a: 1, a: 2}\n", ", line 4: not YAML: 'a' stands there twice"),
        ("name: [air\n", ", line 2: not YAML: "),
        ("- a\n- b\n", ": AgentDefinition: Input should be a valid dictionary"),
        ("", ": name: missing: add it; watches: missing: add it"),
        (AGENT + "description: 2026-13-45\n", ": not YAML: month must be in 1..12"),
        ("? [a]\n: b\n", "unhashable key"),
        (b"\xff\xfe\x00", ": not YAML: "),
        ("name: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("[" * 3000, ": not YAML: "),
        ("a: &a [*a]\n", ", line 1: not YAML: found unconstructable recursive node"),
        ("a: &a {b: 1, <<: [*a, *a]}\n", ", line 1: not YAML: found unconstructable recursive node"),
        ("name: air\nwatches: [{topic: rules/+}]\n", "topic 'rules/+' is not kept: write rules/agents, or events/"),
        ("name: air\nwatches: [{topic: system-events/x}]\n", "topic 'system-events/x' is not kept"),
        ("name: guard\nwatches: [{profile: p}]\n", ": name: the name 'guard' is taken"),
        (AGENT + "leads: !!bool maybe\n", ", line 4: not YAML: 'maybe' is no bool"),
        (AGENT + "ttl: !!int ''\n", ", line 4: not YAML: '' is no int"),
        (AGENT + "ttl: !!float ''\n", ", line 4: not YAML: '' is no float"),
        (AGENT + "description: !!timestamp foo\n", ", line 4: not YAML: 'foo' is no timestamp"),
        (AGENT + "goals: {a: 1" + ":0" * 300 + ".5}\n", ", line 4: not YAML: '1:0:0:0"),
        (AGENT + "ttl: 1" + ":0" * 600 + "\n", "… is too long for a number: put a text into quotes"),
        (AGENT + "goals: !!map [a]\n", ", line 4: not YAML: 'sequence' is no map"),
        (AGENT + "ttl: '" + "0" * 70 + "5s'\n", "is no duration: write 90s"),
    ],
)
def test_a_wrong_agent_file_is_told_with_place_and_remedy(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert expected in complaint(write(tmp_path, text))


@pytest.mark.parametrize("topic", ["rules/agents", "events/device/svc/profile/device/source"])
def test_topics_that_the_stream_keeps_can_be_watched(tmp_path: Path, topic: str) -> None:
    agent = load_agent(write(tmp_path, f"name: air\nwatches: [{{topic: {topic}}}]\n"))
    assert agent.watches[0].topic == topic


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    text = complaint(write(tmp_path, "name: AIR\nmode: run\nwatches: []\n"))
    assert all(f"{field}: " in text for field in ("name", "mode", "watches"))


def test_a_merged_mapping_may_repeat_what_it_merges(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n"
    assert load_yaml(write(tmp_path, text))["b"] == {"x": 3, "y": 2}


def merged(levels: int) -> str:
    """Return a small file in which each level merges the one before ten times."""
    lines = [f"x{i}: &x{i} {{<<: [{', '.join([f'*x{i - 1}'] * 10)}]}}\n" for i in range(1, levels)]
    return "x0: &x0 {a0: 1, a1: 2, a2: 3}\n" + "".join(lines)


def test_a_few_aliases_that_make_much_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    assert load_yaml(write(tmp_path, merged(4)))["x3"] == {"a0": 1, "a1": 2, "a2": 3}
    many = "a: &a [" + "b," * 2000 + "]\n" + "c: [" + "*a," * 2000 + "]\n"
    for text in (merged(8), merged(100), many):
        assert len(text) < 20_000
        assert f"line 1: not YAML: more than {MAX_VALUES} values" in complaint(write(tmp_path, text))


def test_files_that_are_absent_or_too_large_are_told(tmp_path: Path) -> None:
    assert "No such file or directory: does the file exist, may we read it?" in complaint(tmp_path / "gone.yaml")
    assert "larger than 1048576 bytes" in complaint(write(tmp_path, "#" * (MAX_FILE_BYTES + 1)))


def test_a_folder_of_agents_is_read_by_name_and_a_name_counts_once(tmp_path: Path) -> None:
    write(tmp_path, AGENT, "one.yaml")
    write(tmp_path, AGENT.replace("air", "heat"), "two.yml")
    write(tmp_path, "not read", "notes.txt")
    assert sorted(load_agents(tmp_path)) == ["air", "heat"]
    write(tmp_path, AGENT, "three.yaml")
    with pytest.raises(ConfigurationError, match=r"one\.yaml and .*three\.yaml both declare agent 'air'"):
        load_agents(tmp_path)
    with pytest.raises(ConfigurationError, match="no such folder"):
        load_agents(tmp_path / "gone")


def test_good_doubled_and_wrong_agent_files_are_told_apart(tmp_path: Path) -> None:
    one, two = write(tmp_path, AGENT, "one.yaml"), write(tmp_path, AGENT, "two.yaml")
    heat = write(tmp_path, AGENT.replace("air", "heat"), "heat.yaml")
    bad = write(tmp_path, "name: x", "bad.yaml")
    files = agent_files(tmp_path)
    assert (sorted(files.agents), files.paths) == (["heat"], {"heat": heat})
    assert files.doubled == {"air": f"{one} and {two} both declare agent 'air': keep one of them"}
    assert list(files.wrong) == [bad]
    assert files.wrong[bad].startswith(f"{bad}: ")
    with pytest.raises(ConfigurationError, match=r"bad\.yaml"):
        load_agents(tmp_path)


def test_hidden_files_are_an_editors_or_a_systems_and_no_agents(tmp_path: Path) -> None:
    air = write(tmp_path, AGENT)
    write(tmp_path, b"\x00\x05\x16\x07", "._air.yaml")
    write(tmp_path, AGENT, ".air.yml")
    (tmp_path / ".#air.yaml").symlink_to("ann@desk.4711:1")
    files = agent_files(tmp_path)
    assert (files.paths, files.wrong, files.doubled) == ({"air": air}, {}, {})
    assert list(looks_of(tmp_path)) == [air]


def test_a_pipe_is_refused_instead_of_waited_for_and_a_folder_is_told_where_a_file_is_wanted(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    folder = tmp_path / "old.yaml"
    folder.mkdir()
    files = agent_files(tmp_path)
    assert files.wrong == {path: f"{path}: no regular file: write one, or take this away" for path in (folder, pipe)}


def test_a_wrong_site_file_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, "interlocks:\n  - {name: x, forbid: {device: a, resource: b}, during: {}}\n", "site.yaml")
    with pytest.raises(ConfigurationError) as caught:
        load_site(path)
    assert "interlocks[0].forbid: give exactly one of equals, above, below" in str(caught.value)
    assert "interlocks[0].during.device: missing: add it" in str(caught.value)


@given(st.binary(max_size=60) | st.text("&*[]{}:-,?|>!%@` \n\tab1~<", max_size=60).map(str.encode))
def test_any_bytes_are_yaml_or_a_configuration_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    for load in (load_yaml, load_agent):
        with contextlib.suppress(ConfigurationError):
            load(path)


def test_the_homes_site_file_fits_its_profiles() -> None:
    inventory = load_inventory(HOME / "profiles", HOME / "devices")
    devices = {device.name: device for device in inventory.devices}
    profiles = {profile.name: profile for profile in inventory.profiles}
    assert site_problems(load_site(HOME / "site.yaml"), devices, profiles) == []


def test_the_homes_files_say_nothing_twice() -> None:
    for path in HOME.rglob("*.yaml"):
        assert load_yaml(path) == yaml.safe_load(path.read_text())
