"""Tokens in files that are replaced while a service runs."""

import logging
import os
from pathlib import Path

import pytest

from edgeagents.adapters.token_files import FileToken, TokenFile
from edgeagents.embedded.command_routes import bearer_guard, read_tokens
from edgeagents.errors import ConfigurationError, UnavailableError


def replace(path: Path, text: str) -> None:
    """Put another file in a file's place, as `edgeagents credentials` does."""
    aside = path.with_name("aside")
    aside.write_text(text)
    os.replace(aside, path)


async def test_a_file_token_is_the_one_of_the_moment(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    token = FileToken(path)
    first = await token.bearer()
    assert first.get_secret_value() == "first"
    token.forget(first)
    replace(path, "second\n")
    assert (await token.bearer()).get_secret_value() == "second"
    path.unlink()
    with pytest.raises(UnavailableError, match="token"):
        await token.bearer()


def test_a_file_token_without_a_file_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing-here"):
        FileToken(tmp_path / "nothing-here")


def test_a_token_file_shows_what_the_file_has_now(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("guard: one-token\n")
    tokens = TokenFile(path, read_tokens)
    assert dict(tokens) == {"guard": "one-token"}
    replace(path, "guard: another-token\nowner: third-token\n")
    assert dict(tokens) == {"guard": "another-token", "owner": "third-token"}
    assert len(tokens) == 2
    assert tokens["owner"] == "third-token"


@pytest.mark.parametrize("bad", ["", "no colon here\n"])
def test_what_cannot_be_read_leaves_the_former_tokens_and_is_told_once(
    tmp_path: Path, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens"
    path.write_text("guard: one-token\n")
    tokens = TokenFile(path, read_tokens)
    replace(path, bad)
    with caplog.at_level(logging.ERROR):
        assert dict(tokens) == {"guard": "one-token"}
        assert dict(tokens) == {"guard": "one-token"}
    assert [record.getMessage() for record in caplog.records if "the former tokens stay" in record.getMessage()] != []
    assert len(caplog.records) == 1
    path.unlink()
    assert dict(tokens) == {"guard": "one-token"}
    replace(path, "guard: new-token\n")
    assert dict(tokens) == {"guard": "new-token"}


def test_core_command_asks_for_the_token_of_the_moment(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("guard: one-token\n")
    allowed = bearer_guard(TokenFile(path, read_tokens))
    assert allowed({b"authorization": b"Bearer one-token"})
    replace(path, "guard: another-token\n")
    assert not allowed({b"authorization": b"Bearer one-token"})
    assert allowed({b"authorization": b"Bearer another-token"})
