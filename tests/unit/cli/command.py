"""Runs the command `edgeagents` in this process."""

from typing import NamedTuple

import pytest

from edgeagents.cli import main


class Done(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Done:
    """Return what `edgeagents WORDS` does."""
    capsys.readouterr()
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        code = int(end.code or 0)
    return Done(code, *capsys.readouterr())
