"""Agent files that come, change and go while the guard runs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.files import agent_files
from edgeagents.model.site import Site
from services.guard import folder as folder_module
from services.guard.folder import AgentFolder, Change, Known, have_effect, taken_in
from services.guard.jobs import Means
from services.guard.owner import Owner
from tests.contract.waiting import until


def write(folder: Path, file: str, name: str = "", **more: str) -> None:
    """Write an agent file; its name is the file's."""
    lines = {"name": name or file, "watches": "[{profile: x}]", **more}
    (folder / f"{file}.yaml").write_text("".join(f"{key}: {text}\n" for key, text in lines.items()))


def known_of(folder: Path) -> Known:
    """Return what a start finds."""
    return taken_in(Known({}, {}), agent_files(folder))[0]


def test_what_is_new_different_and_gone_is_told(tmp_path: Path) -> None:
    for name in ("air", "heat", "old"):
        write(tmp_path, name)
    known = known_of(tmp_path)
    write(tmp_path, "night")
    write(tmp_path, "heat", mode="act")
    (tmp_path / "old.yaml").unlink()
    now, change = taken_in(known, agent_files(tmp_path))
    assert change == Change(added=("night",), changed=("heat",), removed=("old",))
    assert sorted(now.agents) == ["air", "heat", "night"]
    assert not taken_in(now, agent_files(tmp_path))[1]


def test_a_file_that_cannot_be_read_leaves_in_force_what_it_said(tmp_path: Path) -> None:
    write(tmp_path, "air", mode="act")
    known = known_of(tmp_path)
    (tmp_path / "air.yaml").write_text("name: air\nmode: perhaps\n")
    now, change = taken_in(known, agent_files(tmp_path))
    assert not change
    assert now.agents["air"].mode == "act"
    assert "mode" in now.wrong[tmp_path / "air.yaml"]
    again, _ = taken_in(now, agent_files(tmp_path))
    assert again.agents["air"].mode == "act", "however often it is looked at"
    (tmp_path / "air.yaml").unlink()
    gone, change = taken_in(again, agent_files(tmp_path))
    assert (change.removed, dict(gone.wrong)) == (("air",), {})


def test_a_new_file_that_cannot_be_read_adds_nobody_and_hinders_nobody(tmp_path: Path) -> None:
    write(tmp_path, "air")
    known = known_of(tmp_path)
    (tmp_path / "new.yaml").write_text("{{")
    write(tmp_path, "night")
    now, change = taken_in(known, agent_files(tmp_path))
    assert (change.added, list(now.wrong)) == (("night",), [tmp_path / "new.yaml"])


def test_a_second_file_of_one_name_leaves_the_agent_without_permissions(tmp_path: Path) -> None:
    write(tmp_path, "air")
    known = known_of(tmp_path)
    write(tmp_path, "copy", "air")
    now, change = taken_in(known, agent_files(tmp_path))
    assert change.removed == ("air",)
    assert "both declare agent 'air'" in now.doubled["air"]


def test_a_second_file_that_declares_an_agent_whose_file_is_wrong_for_a_moment_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, "air", mode="observe")
    known = known_of(tmp_path)
    (tmp_path / "air.yaml").write_text("nonsense: true\n")
    write(tmp_path, "other", "air", mode="act")
    now, change = taken_in(known, agent_files(tmp_path))
    assert (change.removed, now.agents) == (("air",), {})
    assert "air.yaml declared agent 'air' and is wrong now" in now.doubled["air"]
    assert "other.yaml declares it" in now.doubled["air"]


def test_it_stays_so_however_often_it_is_looked_at_and_nobody_counts_once_the_second_file_is_gone(
    tmp_path: Path,
) -> None:
    write(tmp_path, "air", mode="observe")
    known = known_of(tmp_path)
    (tmp_path / "air.yaml").write_text("nonsense: true\n")
    write(tmp_path, "other", "air", mode="act")
    for _ in range(3):
        known, _ = taken_in(known, agent_files(tmp_path))
        assert (dict(known.agents), list(known.doubled)) == ({}, ["air"])
    (tmp_path / "other.yaml").unlink()
    for _ in range(2):
        known, _ = taken_in(known, agent_files(tmp_path))
        assert (dict(known.agents), list(known.unread)) == ({}, [tmp_path / "air.yaml"])
    write(tmp_path, "air", mode="observe")
    known, change = taken_in(known, agent_files(tmp_path))
    assert (change.added, dict(known.unread)) == (("air",), {})


@pytest.mark.parametrize("broken", [("air",), ("other",), ("air", "other")])
def test_two_files_of_one_name_stay_two_while_one_of_them_is_wrong(tmp_path: Path, broken: tuple[str, ...]) -> None:
    write(tmp_path, "air", mode="observe")
    write(tmp_path, "other", "air", mode="act")
    known = known_of(tmp_path)
    for file in broken:
        (tmp_path / f"{file}.yaml").write_text("nonsense: true\n")
        for _ in range(2):
            known, change = taken_in(known, agent_files(tmp_path))
            assert (dict(known.agents), change) == ({}, Change())
    for file in broken:
        (tmp_path / f"{file}.yaml").unlink()
    known, change = taken_in(known, agent_files(tmp_path))
    assert change.added == (("air",) if len(broken) == 1 else ())
    assert not known.rivals


def test_of_which_wrong_files_nobody_knows_what_they_say_is_told(tmp_path: Path) -> None:
    for name in ("air", "heat"):
        write(tmp_path, name)
    (tmp_path / "zed.yaml").write_text("name: [zed\n")
    known = known_of(tmp_path)
    assert list(known.unread) == [tmp_path / "zed.yaml"]
    (tmp_path / "heat.yaml").write_text("name: [heat\n")
    known, change = taken_in(known, agent_files(tmp_path))
    assert not change, "what heat.yaml said before counts on"
    assert (len(known.wrong), list(known.unread)) == (2, [tmp_path / "zed.yaml"])
    write(tmp_path, "zed")
    known, change = taken_in(known, agent_files(tmp_path))
    assert (change.added, dict(known.unread)) == (("zed",), {})


def test_an_agent_moves_to_another_file_once_the_former_is_gone(tmp_path: Path) -> None:
    write(tmp_path, "air", mode="act")
    known = known_of(tmp_path)
    (tmp_path / "air.yaml").unlink()
    write(tmp_path, "other", "air", mode="observe")
    now, change = taken_in(known, agent_files(tmp_path))
    assert (change.changed, now.agents["air"].mode, dict(now.doubled)) == (("air",), "observe", {})


async def test_who_is_removed_is_judged_anew_before_anything_is_waited_for(tmp_path: Path) -> None:
    steps: list[str] = []

    class Stopped(Exception):
        pass

    async def on_disk() -> None:
        steps.append("disk")
        raise Stopped

    owner = Owner(Site(), {})
    means = SimpleNamespace(
        owner=owner,
        desk=SimpleNamespace(judge_anew=lambda: steps.append("judged")),
        orders=SimpleNamespace(take_over=on_disk),
    )
    with pytest.raises(Stopped):
        await have_effect(cast(Means, means), cast(Bus, None), Known({}, {}), Change(removed=("air",)))
    assert steps == ["judged", "disk"]


class Watched:
    """A folder that is watched, and what it led to."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.changes: list[Change] = []
        self.folder = AgentFolder(folder, known_of(folder), self.take)

    async def take(self, known: Known, change: Change) -> None:
        self.changes.append(change)

    async def read(self, times: int) -> None:
        await until(lambda: len(self.changes) >= times, f"read {times} times")


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setattr(folder_module, "LOOK_S", 0.02)
    (tmp_path / "agents").mkdir()
    write(tmp_path / "agents", "air")
    found = Watched(tmp_path / "agents")
    task = asyncio.create_task(found.folder.run())
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_is_read_again_when_a_file_is_different_and_not_otherwise(watched: Watched) -> None:
    await watched.read(1)
    assert watched.changes == [Change()], "nothing has changed since the start"
    await asyncio.sleep(0.2)
    assert len(watched.changes) == 1
    write(watched.path, "night")
    await watched.read(2)
    assert watched.changes[1] == Change(added=("night",))


async def test_what_is_wrong_is_said_once(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    await watched.read(1)
    (watched.path / "air.yaml").write_text("name: [\n")
    await watched.read(2)
    write(watched.path, "night")
    await watched.read(3)
    assert caplog.text.count("not YAML") == 1
    assert "what was known before counts on" in caplog.text
    assert sorted(watched.folder.known.agents) == ["air", "night"]


async def test_a_file_that_never_could_be_read_is_said_to_give_nothing(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    await watched.read(1)
    (watched.path / "zed.yaml").write_text("name: [\n")
    await watched.read(2)
    assert "zed.yaml, line 2: not YAML" in caplog.text
    assert "until then its agent has no permissions" in caplog.text
    assert "what was known before counts on" not in caplog.text


async def test_a_folder_that_is_gone_is_not_the_word_that_there_are_no_agents(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    await watched.read(1)
    (watched.path / "air.yaml").unlink()
    watched.path.rmdir()
    await watched.read(2)
    assert sorted(watched.folder.known.agents) == ["air"]
    assert "no such folder" in caplog.text


async def test_an_empty_folder_is_a_volume_that_is_not_mounted_and_said_once(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    await watched.read(1)
    (watched.path / "air.yaml").unlink()
    await watched.read(2)
    assert sorted(watched.folder.known.agents) == ["air"]
    assert watched.changes[-1] == Change()
    await asyncio.sleep(0.1)
    assert caplog.text.count("no agent file at all: is the volume mounted?") == 1
    write(watched.path, "night")
    await watched.read(3)
    assert watched.changes[-1] == Change(added=("night",), removed=("air",)), "files are the owner's word again"
    assert not watched.folder.known.wrong
