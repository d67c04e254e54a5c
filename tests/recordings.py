"""The recordings of a real EdgeX: where they are, and their lines as values.

The path is `EDGEX_RECORDINGS`, by default `../shared/edgex-recordings` beside the repository. Without them
the tests that need them are skipped, visibly; in CI they fail.
"""

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ROOT.parent / "shared" / "edgex-recordings"


@dataclass(frozen=True, slots=True)
class BusLine:
    """One recorded message: `number` counts lines from 1."""

    number: int
    subject: str
    data: bytes
    headers: dict[str, str] = field(default_factory=dict)
    reply: str = ""


@dataclass(frozen=True, slots=True)
class HttpLine:
    """One recorded request and its answer; `answer` is the body's text."""

    case: str
    service: str
    method: str
    path: str
    request: Any
    status: int
    content_type: str
    answer: str

    def json(self) -> Any:
        """Return the answer's body, parsed."""
        return json.loads(self.answer)


def folder() -> Path:
    """Return the folder of the recordings; skips the test without one, fails it in CI."""
    path = Path(os.environ.get("EDGEX_RECORDINGS") or DEFAULT)
    if not path.is_dir():
        text = f"no recordings of a real EdgeX in {path}: set EDGEX_RECORDINGS to their folder"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    return path


def _lines(name: str) -> Iterator[dict[str, Any]]:
    path = folder() / name
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def bus_lines(name: str = "bus-mqtt-json.jsonl") -> list[BusLine]:
    """Return the messages of one bus recording, in order."""
    return [
        BusLine(
            number,
            line["subject"],
            line["text"].encode() if "text" in line else base64.b64decode(line["base64"]),
            line.get("headers") or {},
            line.get("reply") or "",
        )
        for number, line in enumerate(_lines(name), 1)
    ]


def http_lines(name: str = "http-core.jsonl") -> list[HttpLine]:
    """Return the requests and answers of one HTTP recording, in order."""
    return [
        HttpLine(
            line["case"], line["service"], line["method"], line["path"], line.get("request"), line["status"],
            line.get("content_type") or "", line["answer"],
        )
        for line in _lines(name)
    ]  # fmt: skip
