"""Exports of made-up chains, for tests that read them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

from edgeagents.model.message import AuditRecord
from edgeagents.protocol.chains import Entry, Problem, Verifier
from edgeagents.trail import StreamTrail, export


class MadeUp:
    """A trail of records that no broker holds."""

    def __init__(self, records: Sequence[AuditRecord]) -> None:
        self._records = records

    async def entries(self) -> AsyncIterator[Entry]:
        """Yield the records, one a place."""
        for place, record in enumerate(self._records, 1):
            yield Entry(place, record.writer, record.incarnation, record, 1_700_000_000_000_000_000)

    def problems(self, verifier: Verifier) -> list[Problem]:
        """Return what is wrong with them."""
        return verifier.end(len(self._records))

    def oldest_may_be_gone(self) -> bool:
        """Say no."""
        return False


def export_of(path: Path, records: Sequence[AuditRecord]) -> Path:
    """Write records to an export, as a gateway would, and return its path."""
    asyncio.run(export(cast(StreamTrail, MadeUp(records)), "gw", path))
    return path
