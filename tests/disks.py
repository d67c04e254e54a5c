"""Small disks of a test's own, and disks that are full for a while. Only root can mount them."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SMALL = "24m"


def need_root() -> None:
    """Skip where no small disk can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk that gets full")


@contextlib.contextmanager
def small_disk(folder: Path, size: str = SMALL) -> Iterator[None]:
    """Have a folder be a disk of its own, a small one."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def full(folder: Path, filler_name: str = "filler") -> Iterator[None]:
    """Fill a disk to the last byte while the context is open."""
    filler = folder / filler_name
    try:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for block in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(block)):
                        pass
        yield
    finally:
        filler.unlink()
