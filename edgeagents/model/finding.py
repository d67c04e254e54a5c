"""What a check of a gateway found: how it stands, in words, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Level: TypeAlias = Literal["ok", "skipped", "warning", "failed"]
LEVELS: Final[tuple[Level, ...]] = ("ok", "skipped", "warning", "failed")  # mildest first


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnosis.

    Args:
        check: what was looked at, in a word or two.
        level: `skipped`: it could not be looked at from here, or only after something else is repaired.
        found: what is so.
        remedy: what to do; empty when nothing is to be done.
    """

    check: str
    level: Level
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """Return that a check is content."""
    return Finding(check, "ok", found)


def warning(check: str, found: str, remedy: str) -> Finding:
    """Return that something works, and deserves a look."""
    return Finding(check, "warning", found, remedy)


def failed(check: str, found: str, remedy: str) -> Finding:
    """Return that something does not work."""
    return Finding(check, "failed", found, remedy)


def skipped(check: str, found: str, remedy: str = "") -> Finding:
    """Return that something was not looked at, and why."""
    return Finding(check, "skipped", found, remedy)


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level there is; `ok` of nothing."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")
