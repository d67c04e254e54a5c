"""What was not accepted, counted; the first ones of each minute are written down."""

import time
from collections import Counter, deque
from typing import Final

from edgeagents.audit import Audit

MOST_AUDITED: Final = 50  # a minute; all are counted


class Refusals:
    """Counts refusals of one kind by their causes, and has the audit know of some."""

    def __init__(self, audit: Audit, kind: str, counts: Counter[str]) -> None:
        """Write records of `kind`; count in `counts`, as `refused_<cause>`."""
        self._audit = audit
        self._kind = kind
        self._counts = counts
        self._audited: deque[float] = deque(maxlen=MOST_AUDITED)

    def add(self, sender: str, cause: str, text: str) -> None:
        """Take one in."""
        self._counts[f"refused_{cause}"] += 1
        now_s = time.monotonic()
        if len(self._audited) == MOST_AUDITED and now_s - self._audited[0] < 60:
            return
        self._audited.append(now_s)
        plain = text[:500].encode(errors="backslashreplace").decode()
        self._audit.append(self._kind, sender=sender, cause=cause, text=plain)
