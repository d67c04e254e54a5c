"""`edgeagents backup` and `edgeagents restore`: a gateway's state in one file.

Source: docs/backup.md.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from edgeagents.adapters.backup_archive import Manifest
from edgeagents.adapters.gateway_backup import Place, Told, back_up
from edgeagents.adapters.gateway_backup import restore as put_back
from edgeagents.cli.lines import clean
from edgeagents.cli.source import broker_settings
from edgeagents.errors import ConfigurationError

Folder = Annotated[Path | None, Parameter(help='folder of a gateway of `make demo ARGS="--keep FOLDER"`')]
GuardDir = Annotated[Path | None, Parameter(help="the guard's volume, where there is no such folder; with --nats")]
Nats = Annotated[str, Parameter(env_var="EDGEAGENTS_NATS_URL", help="address of the gateway's broker")]
User = Annotated[str, Parameter(env_var="EDGEAGENTS_NATS_USER", help="a user that may use all of JetStream")]
Password = Annotated[Path | None, Parameter(env_var="EDGEAGENTS_NATS_PASSWORD_FILE", help="file with its password")]
Secrets = Annotated[bool, Parameter(help="take tokens and passwords, too: then the file itself is a secret")]
Force = Annotated[bool, Parameter(help="replace state that is there; it is kept aside")]


def backup(
    *, to: Path | None = None, folder: Folder = None, guard_dir: GuardDir = None, nats: Nats = "",
    nats_user: User = "", nats_password_file: Password = None, with_secrets: Secrets = False,
) -> None:  # fmt: skip
    """Write the state of a gateway, running or stopped, into one file."""
    place = _place(folder, guard_dir, nats, nats_user, nats_password_file)
    target = to or Path(f"gateway-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar")
    with _shown("backup") as told:
        manifest = asyncio.run(back_up(place, target, told, with_secrets=with_secrets))
    _say(f"{target}: {_summary(manifest)}, {target.stat().st_size / 1e6:.1f} MB")


def restore(
    archive: Path, *, folder: Folder = None, guard_dir: GuardDir = None, nats: Nats = "",
    nats_user: User = "", nats_password_file: Password = None, force: Force = False,
) -> None:  # fmt: skip
    """Put the state of a backup into a stopped gateway."""
    place = _place(folder, guard_dir, nats, nats_user, nats_password_file)
    with _shown("restore") as told:
        done = asyncio.run(put_back(place, archive, told, force=force))
    _say(f"restored {_summary(done.manifest)}; what follows is of a generation above {done.generation}")
    if done.aside is not None:
        _say(f"the state before is kept in {done.aside}")


def _place(folder: Path | None, guard_dir: Path | None, url: str, user: str, password: Path | None) -> Place:
    if folder is not None and guard_dir is None:
        return Place.of_folder(folder)
    if folder is None and guard_dir is not None and url:
        broker = broker_settings(nats_url=url, nats_user=user, nats_password_file=password, connect_timeout_s=5.0)
        return Place.of_volume(guard_dir, broker)
    raise ConfigurationError("whose state? give --folder, or --guard-dir together with --nats")


def _summary(manifest: Manifest) -> str:
    held = sum(manifest.last_sequences.values())
    secrets = "with secrets" if manifest.has_secrets else "without secrets"
    return (
        f"gateway {manifest.gateway!r} of {manifest.created}, generation {manifest.generation}, "
        f"{len(manifest.last_sequences)} streams up to {held} messages, {secrets}"
    )


def _say(text: str) -> None:
    Console(soft_wrap=True).print(Text(clean(text)))


@contextlib.contextmanager
def _shown(what: str) -> Iterator[Told]:
    """Yield what shows the next thing that is done, on a terminal as a bar that comes and goes."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda name: progress.update(task, description=clean(f"{what}: {name}"), advance=1)
