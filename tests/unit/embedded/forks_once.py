"""Lets the process that imports it fork once; after that the system has no room for another, it says."""

import errno
import os

_fork, _left = os.fork, [1]


def fork() -> int:
    """Fork, or say that there are too many processes."""
    if not _left:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    _left.pop()
    return _fork()


os.fork = fork
