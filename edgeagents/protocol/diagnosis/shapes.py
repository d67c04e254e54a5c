"""What another service answered, read with care: what is of another shape reads as empty, and breaks nothing.

A diagnosis is for what is not well: one odd answer must not hide all that the other checks found.
"""

from collections.abc import Mapping
from typing import Any


def mapping(value: Any) -> Mapping[str, Any]:
    """Return an object; empty for anything else."""
    return dict(value) if isinstance(value, Mapping) else {}


def items(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list; none of anything else."""
    return [dict(item) for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def strings(value: Any) -> list[str]:
    """Return a list's entries as texts; none of anything else."""
    return [str(item) for item in value] if isinstance(value, list) else []


def whole(value: Any) -> int:
    """Return a whole number; 0 for anything else."""
    return value if isinstance(value, int) else 0
