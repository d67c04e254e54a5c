"""One bucket of the broker's object store: named bytes that are too large for a message, cut and checked by nats-py.

Nobody but a bucket's owner reads or writes it (`permissions.py`); the guard makes it. What was deleted leaves nothing
behind, not even the note that nats-py would leave.

Source: NATS ADR-20 (JetStream object store), nats-py 2.16.
"""

import asyncio
import base64
import binascii
import contextlib
import io
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import nats.js.errors
from nats.js.api import StorageType
from nats.js.object_store import (
    OBJ_ALL_META_PRE_TEMPLATE,
    OBJ_CHUNKS_PRE_TEMPLATE,
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
        subjects = OBJ_ALL_META_PRE_TEMPLATE.format(bucket=self.bucket)
        async with self._in_time("its names"):
            info = await finished(self._bus.js.stream_info(self._stream, subjects_filter=subjects))
        found = set()
        for subject in info.state.subjects or {}:
            with contextlib.suppress(binascii.Error, UnicodeDecodeError):
                found.add(base64.urlsafe_b64decode(subject.rpartition(".")[2]).decode())
        return found

    async def get(self, name: str, most_bytes: int) -> bytes:
        """Return the bytes of an object, whose SHA-256 is compared.

        Args:
            name: of the object.
            most_bytes: what is longer is not read.

        Raises:
            NotFoundError: there is none.
            TooLargeError: it is longer than `most_bytes`.
            InvalidInputError: it is not what was put there.
            UnavailableError: the broker refuses, or does not answer in time.
        """
        async with self._in_time(name):
            size = (await finished(self._store.get_info(name))).size or 0
            if size > most_bytes:
                raise TooLargeError(f"object {name} in {self.bucket}: {size} bytes: at most {most_bytes} are read")
            found = io.BytesIO()
            await finished(self._store.get(name, writeinto=cast(Any, found)))
        data = found.getvalue()
        if len(data) != size:
            raise InvalidInputError(f"object {name} in {self.bucket}: {len(data)} bytes of {size}: not whole")
        return data

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
            with contextlib.suppress(nats.js.errors.NotFoundError, nats.js.errors.BadObjectMetaError):
                info = await finished(self._store.get_info(name, show_deleted=True))
                await self._purge(OBJ_CHUNKS_PRE_TEMPLATE.format(bucket=self.bucket, obj=info.nuid))
            coded = base64.urlsafe_b64encode(name.encode()).decode()
            await self._purge(OBJ_META_PRE_TEMPLATE.format(bucket=self.bucket, obj=coded))

    async def _purge(self, subject: str) -> None:
        await finished(self._bus.js.purge_stream(self._stream, subject=subject))

    @contextlib.asynccontextmanager
    async def _in_time(self, what: str) -> AsyncIterator[None]:
        where = f"object store {self.bucket}: {what}"
        try:
            async with asyncio.timeout(self._wait_s):
                yield
        except nats.js.errors.DigestMismatchError as error:
            raise InvalidInputError(f"{where}: not what was put there") from error
        except nats.js.errors.NotFoundError as error:
            raise NotFoundError(f"{where}: not there (yet)") from error
        except nats.js.errors.BadObjectMetaError as error:
            raise InvalidInputError(f"{where}: what tells of it cannot be read") from error
        except (*BROKER_ERRORS, ValueError) as error:
            raise UnavailableError(f"{where}: {str(error) or type(error).__name__}") from error
