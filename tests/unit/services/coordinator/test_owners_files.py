"""The owner's agent files as the coordinator reads them."""

import asyncio
from pathlib import Path

import pytest

from services.coordinator import app
from services.coordinator.app import OwnersAgents

FILE = "{name: ada, watches: [{profile: Valve}]}"


async def test_a_folder_that_goes_away_leaves_the_former_files_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "ada.yaml").write_text(FILE)
    owners = OwnersAgents(folder)
    looks = 0
    look, enough = owners.look, asyncio.Event()

    def counted() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            loop.call_soon_threadsafe(enough.set)
        look()

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(owners, "look", counted)
    monkeypatch.setattr(app, "FILES_AGAIN_S", 0.0)
    folder.rename(tmp_path / "elsewhere")
    running = asyncio.ensure_future(owners.run())
    async with asyncio.timeout(10):
        await asyncio.wait([running, asyncio.ensure_future(enough.wait())], return_when=asyncio.FIRST_COMPLETED)
    assert not running.done()
    assert set(owners.agents) == {"ada"}
    running.cancel()
