"""A filter names the subjects that nats-server would deliver for it, and no others."""

import pytest

from edgeagents.adapters.subject_filters import matcher


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("gw.acts.air.coordinator", "gw.acts.air.coordinator", True),
        ("gw.acts.air.coordinator", "gw.triggers.air", False),
        ("gw.sessions.*", "gw.sessions.air", True), ("gw.sessions.*", "gw.sessions.air.x", False),
        ("gw.sessions.*", "gw.sessions", False), ("gw.*.air", "gw.x.air", True), ("gw.*.air", "gw.x.y.air", False),
        ("gw.>", "gw.a.b", True), ("gw.>", "gw", False), (">", "$O.prefixes.C.a", True), ("*", "a", True),
        ("gw.a+b.*", "gw.a+b.c", True), ("gw.a+b.*", "gw.aab.c", False), ("a.*.>", "a.b.c.d", True),
        ("a.*.>", "a.b", False),
    ],
)  # fmt: skip
def test_subjects_and_filters(pattern: str, subject: str, fits: bool) -> None:
    assert matcher(pattern)(subject) is fits
