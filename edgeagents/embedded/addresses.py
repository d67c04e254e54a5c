"""Ports of services in a keeper that was started before, or restored from a backup: they follow this run's ports.

A service takes its port from keeper once it has a configuration there, as every EdgeX service does; a gateway that
goes on in its old folder may have to take other ports. Written before the core starts, as the core does for its own.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from edgeagents.errors import StoreError


def move_ports(core: Path, ports: Mapping[str, int]) -> None:
    """Have keeper say other ports of services that it knows already; the core must not run.

    Args:
        core: the embedded core's state folder; without a keeper in it nothing is to be done.
        ports: by service key.

    Raises:
        StoreError: keeper's file cannot be read or written.
    """
    path = core / "keeper.sqlite"
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=10)) as database, database:
            database.executemany(
                "UPDATE key_values SET body = json_set(body, '$.value', ?) WHERE name = ?",
                [(str(port), f"edgex/v4/{key}/Service/Port") for key, port in ports.items()],
            )
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}: does another core run on it?") from error
