"""Tokens in files that may be replaced while a service runs: read anew when the file is another one.

    tokens = TokenFile(path, read_tokens)      # a mapping of names to tokens, as the file has it now
    Rest(name, address, http, tokens=FileToken(path))   # a file's only token, for calls of ours

A file is told apart by inode, size and time, so a look costs one system call.
"""

import hmac
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from edgeagents.errors import ConfigurationError, UnauthorisedError, UnavailableError
from edgeagents.settings import read_secret

log = logging.getLogger(__name__)

NO_FILE: Final = (0, 0, 0)


class FileToken:
    """The token that a file holds; calls carry it as a bearer, and a refused one is looked up again."""

    def __init__(self, path: Path) -> None:
        """Read `path` with each call: it is small, and somebody may have rotated it.

        Raises:
            ConfigurationError: it cannot be read now.
        """
        self._path = path
        read_secret(path)

    async def bearer(self) -> SecretStr:
        """Return the token there is now.

        Raises:
            UnavailableError: the file cannot be read any more.
        """
        try:
            return read_secret(self._path)
        except ConfigurationError as error:
            raise UnavailableError(str(error)) from error

    def forget(self, used: SecretStr) -> None:
        """Do nothing: the file is read each time."""


class OwnToken:
    """Lets in who shows the token that a file holds now: for a service whose one caller has it from the same hand."""

    def __init__(self, path: Path) -> None:
        """Compare with the token in `path`, read anew with each call.

        Raises:
            ConfigurationError: it cannot be read now.
        """
        self._file = FileToken(path)

    async def check(self, header: str) -> None:
        """Return when an `Authorization` header carries the token.

        Raises:
            UnauthorisedError: it does not.
            UnavailableError: the file cannot be read any more.
        """
        kind, _, shown = header.partition(" ")
        token = (await self._file.bearer()).get_secret_value()
        if kind.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(), token.encode()):
            raise UnauthorisedError("this service is reached by the guard: ask at its ports")


class TokenFile(Mapping[str, str]):
    """Name -> token as a file has them now; what cannot be read later leaves the former ones in force."""

    def __init__(self, path: Path, read: Callable[[Path], Mapping[str, str]]) -> None:
        """Read `path` by `read`.

        Raises:
            ConfigurationError: it cannot be read, or holds something else.
        """
        self._path = path
        self._read = read
        self._seen = _mark(path)
        self._tokens = read(path)

    def __getitem__(self, name: str) -> str:
        """Return the token of a name."""
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        return iter(self._now())

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._now())

    def _now(self) -> Mapping[str, str]:
        mark = _mark(self._path)
        if mark != self._seen:
            self._seen = mark  # what is wrong is told once
            try:
                self._tokens = self._read(self._path)
                log.info("%s: %d tokens taken over", self._path, len(self._tokens))
            except ConfigurationError as error:
                log.error("%s: the former tokens stay", error)
        return self._tokens


def _mark(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return NO_FILE
    return found.st_ino, found.st_size, found.st_mtime_ns
