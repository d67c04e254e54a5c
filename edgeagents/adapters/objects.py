"""One bucket of the broker's object store: named bytes that are too large for a message, cut and checked by nats-py.

Nobody but a bucket's owner reads or writes it (`permissions.py`); the guard makes it. What was deleted leaves nothing
behind, not even the note that nats-py would leave.

Source: NATS ADR-20 (JetStream object store), nats-py 2.16.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import sys
from collections.abc import AsyncIterator
from typing import Final

import nats.js.errors
from nats.js.api import StorageType
from nats.js.object_store import (
    OBJ_ALL_CHUNKS_PRE_TEMPLATE,
    OBJ_ALL_META_PRE_TEMPLATE,
    OBJ_CHUNKS_PRE_TEMPLATE,
    OBJ_DIGEST_TEMPLATE,
    OBJ_META_PRE_TEMPLATE,
    OBJ_STREAM_TEMPLATE,
    ObjectStore,
)

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.nats_client import finished
from edgeagents.adapters.streams import BROKER_ERRORS
from edgeagents.errors import InvalidInputError, NotFoundError, TooLargeError, UnavailableError

WAIT_S: Final = 10.0  # for one object; a disk syncs some hundred of its parts


def object_stream(bucket: str) -> str:
    """Return the name of the stream that a bucket is kept in."""
    return OBJ_STREAM_TEMPLATE.format(bucket=bucket)


class Objects:
    """What lies in one bucket; every call has a deadline."""

    def __init__(self, bus: Bus, bucket: str, wait_s: float = WAIT_S) -> None:
        """Use a connected bus; `wait_s` is the longest that one call may take."""
        self._bus, self.bucket, self._wait_s = bus, bucket, wait_s
        self._stream = object_stream(bucket)
        self._store = ObjectStore(bucket, self._stream, bus.js)

    async def ensure(self, max_bytes: int) -> None:
        """Make the bucket, or leave one that is there as it is.

        Raises:
            UnavailableError: the broker refuses, or does not answer.
        """
        async with self._in_time("making it"):
            with contextlib.suppress(nats.js.errors.BadRequestError):  # it is there, with another limit
                await finished(
                    self._bus.js.create_object_store(self.bucket, max_bytes=max_bytes, storage=StorageType.FILE)
                )

    async def names(self) -> set[str]:
        """Return the names of all objects.

        Raises:
            NotFoundError: there is no such bucket (yet).
            UnavailableError: the broker refuses, or does not answer.
        """
        async with self._in_time("its names"):
            subjects = await self._subjects(OBJ_ALL_META_PRE_TEMPLATE)
        found = set()
        for subject in subjects:
            with contextlib.suppress(binascii.Error, UnicodeDecodeError):
                found.add(base64.urlsafe_b64decode(subject.rpartition(".")[2]).decode())
        return found

    async def get(self, name: str, most_bytes: int) -> bytes:
        """Return the bytes of an object, whose SHA-256 is compared.

        Its parts are asked for one by one: a consumer, with which nats-py reads, waits for ever where one is missing.

        Args:
            name: of the object.
            most_bytes: what is longer is not read.

        Raises:
            NotFoundError: there is none.
            TooLargeError: it is longer than `most_bytes`.
            InvalidInputError: it is not what was put there, or not all of it is there.
            UnavailableError: the broker refuses, or does not answer in time.
        """
        async with self._in_time(name):
            info = await finished(self._store.get_info(name))
            size, parts = info.size or 0, info.chunks or 0
            if size > most_bytes:
                raise TooLargeError(f"object {name} in {self.bucket}: {size} bytes: at most {most_bytes} are read")
            data = await self._parts(
                OBJ_CHUNKS_PRE_TEMPLATE.format(bucket=self.bucket, obj=info.nuid), parts, most_bytes
            )
        told = OBJ_DIGEST_TEMPLATE.format(digest=base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode())
        if len(data) != size or (size and told != info.digest):
            raise InvalidInputError(f"object {name} in {self.bucket}: not what was put there, or not all of it")
        return data

    async def _parts(self, subject: str, count: int, most_bytes: int) -> bytes:
        found, sequence, left = list[bytes](), 0, most_bytes
        for _ in range(count):
            try:
                part = await finished(self._bus.js.get_msg(self._stream, seq=sequence + 1, subject=subject, next=True))
            except nats.js.errors.NotFoundError:
                break
            found.append(part.data or b"")
            sequence, left = part.seq or sequence + 1, left - len(found[-1])
            if left < 0:
                break
        return b"".join(found)

    async def put(self, name: str, data: bytes) -> None:
        """Keep bytes under a name; what lay there before is gone then.

        Raises:
            UnavailableError: the bucket is full or not there, or the broker does not answer in time.
        """
        async with self._in_time(name):
            await finished(self._store.put(name, data))

    async def delete(self, name: str) -> None:
        """Take an object out, with all that tells of it; what is not there is taken out already.

        Raises:
            UnavailableError: the broker refuses, or does not answer in time.
        """
        async with self._in_time(name):
            nuid = await self._nuid(name)
            coded = base64.urlsafe_b64encode(name.encode()).decode()
            # The note first: parts without one are tidied away, a note without parts would be read in vain.
            await self._purge(OBJ_META_PRE_TEMPLATE.format(bucket=self.bucket, obj=coded))
            if nuid:
                await self._purge(OBJ_CHUNKS_PRE_TEMPLATE.format(bucket=self.bucket, obj=nuid))

    async def tidy(self) -> int:
        """Take out what no object's note tells of, as a stop in the middle of `put` leaves it; return how many.

        Raises:
            NotFoundError: there is no such bucket (yet).
            UnavailableError: the broker refuses, or does not answer in time.
        """
        told = {await self._nuid(name) for name in await self.names()}
        async with self._in_time("what is left of objects"):
            there = await self._subjects(OBJ_ALL_CHUNKS_PRE_TEMPLATE)
            left = [subject for subject in there if subject.rpartition(".")[2] not in told]
            for subject in left:
                await self._purge(subject)
        return len(left)

    async def room_bytes(self) -> int:
        """Return how many bytes the bucket takes before it is full.

        Raises:
            NotFoundError: there is no such bucket (yet).
            UnavailableError: the broker refuses, or does not answer in time.
        """
        async with self._in_time("its room"):
            info = await finished(self._bus.js.stream_info(self._stream))
        most = info.config.max_bytes if info.config.max_bytes is not None else -1
        return max(0, most - info.state.bytes) if most >= 0 else sys.maxsize

    async def _nuid(self, name: str) -> str:
        """Return by which name the parts of an object go; empty: there is none, or its note is none."""
        try:
            async with self._in_time(name):
                return (await finished(self._store.get_info(name, show_deleted=True))).nuid or ""
        except (NotFoundError, InvalidInputError):
            return ""

    async def _subjects(self, template: str) -> set[str]:
        info = await finished(
            self._bus.js.stream_info(self._stream, subjects_filter=template.format(bucket=self.bucket))
        )
        return set(info.state.subjects or {})

    async def _purge(self, subject: str) -> None:
        await finished(self._bus.js.purge_stream(self._stream, subject=subject))

    @contextlib.asynccontextmanager
    async def _in_time(self, what: str) -> AsyncIterator[None]:
        where = f"object store {self.bucket}: {what}"
        try:
            async with asyncio.timeout(self._wait_s):
                yield
        except nats.js.errors.NotFoundError as error:
            raise NotFoundError(f"{where}: not there (yet)") from error
        except nats.js.errors.BadObjectMetaError as error:
            raise InvalidInputError(f"{where}: what tells of it cannot be read") from error
        except (*BROKER_ERRORS, ValueError, TypeError, KeyError) as error:
            raise UnavailableError(f"{where}: {str(error) or type(error).__name__}") from error
