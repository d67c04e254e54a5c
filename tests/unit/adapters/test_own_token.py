"""Behind the door a service answers to who shows its own token, and to nobody else."""

from pathlib import Path

import pytest

from edgeagents.adapters.token_files import OwnToken
from edgeagents.errors import ConfigurationError, UnauthorisedError

TOKEN = "token-of-agent-air-01"


async def test_its_own_token_opens_it_and_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    own = OwnToken(tmp_path / "token")
    await own.check(f"Bearer {TOKEN}")
    await own.check(f"bearer  {TOKEN} ")
    for header in ("", TOKEN, "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", "Bearer é"):
        with pytest.raises(UnauthorisedError, match="ask at its ports"):
            await own.check(header)


async def test_a_token_that_was_rotated_counts_at_once(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    own = OwnToken(tmp_path / "token")
    (tmp_path / "token").write_text("another-token-of-air-2")
    await own.check("Bearer another-token-of-air-2")
    with pytest.raises(UnauthorisedError):
        await own.check(f"Bearer {TOKEN}")


def test_a_file_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="none"):
        OwnToken(tmp_path / "none")
