"""Settled conflicts over HTTP, as EdgeX spells its answers: list them, look at one.

Source: edgex-wire.md section 4; docs/conflicts.md.
"""

from typing import Any, Final

from edgeagents.adapters.bootstrap import EdgexService
from edgeagents.adapters.web_pages import shows
from edgeagents.errors import InvalidInputError
from services.coordinator.leader import Leader
from services.coordinator.mediator import Mediator
from services.coordinator.shown import ConflictList, OneConflict

MOST_LISTED: Final = 1_000


def add_conflict_routes(service: EdgexService, leader: Leader, mediator: Mediator) -> None:
    """Add the routes about conflicts to the common ones."""
    app = service.app

    @app.get("/api/v3/conflict/all", **shows(ConflictList, "The conflicts, the newest first."))
    async def listed(limit: int = 100) -> dict[str, Any]:
        """List conflicts settled since this start, the newest first, and what was counted."""
        if not 0 < limit <= MOST_LISTED:
            raise InvalidInputError(f"limit {limit}: 1 to {MOST_LISTED}")
        leader.check_serving()
        return {
            "apiVersion": "v3", "statusCode": 200, "conflicts": mediator.listed(limit),
            "counts": dict(mediator.counts),
        }  # fmt: skip

    @app.get("/api/v3/conflict/id/{name}", **shows(OneConflict, "The conflict."))
    async def one(name: str) -> dict[str, Any]:
        """Tell how a conflict was settled, and why."""
        leader.check_serving()
        return {"apiVersion": "v3", "statusCode": 200, "conflict": mediator.record(name)}
