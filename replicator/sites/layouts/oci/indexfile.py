"""The `index.json` of one layout, safe with several writers: tasks of this process and agents elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from replicator.errors import NotFound, SiteError, Unavailable
from replicator.flow.thread import run_in_thread
from replicator.ports import ObjectStore
from replicator.sites.bounds import MAX_INDEX_BYTES
from replicator.sites.layouts.errors import RepositoryErrors
from replicator.sites.layouts.oci.index import Index, empty_index, parse_index
from replicator.sites.layouts.oci.marker import Marker

ATTEMPTS: Final = 100
"""How often a rewrite starts again because another agent was faster; each time, that agent's rewrite succeeded."""

_INLINE_ENTRIES: Final = 200
_INLINE_BYTES: Final = 32 * 1024
"""Up to here the work takes less than a millisecond, and less than a thread's start."""

Change = Callable[[Index], None]
"""Changes an index in place; repeated on a newer one if another agent was faster. May raise a `SiteError`.

Called in a thread if the index is large.
"""

T = TypeVar("T")


class Memory(Protocol):
    """Decides which indexes stay in memory."""

    def keep(self, file: IndexFile, entries: int) -> None:
        """Takes note that a file's index is in memory, used last, and how large it is."""
        ...


class _Waiter:
    def __init__(self, change: Change) -> None:
        self.change = change
        self.ended = False
        self.error: SiteError | None = None


class IndexFile:
    """One `index.json`.

    Changes that come while another is being written wait and then go out together, in one rewrite. What was read or
    written last stays in memory, parsed, and is used as long as the file has the same version: a lookup costs one
    `stat` of the store. Large indexes are parsed and encoded in threads.

    Args:
        store: where it lies.
        key: under which key.
        marker: what makes the folder a layout; it exists before the first index does.
        errors: makes those of the repository.
        memory: is told of each use; calls `forget` when it needs the room.
    """

    def __init__(
        self, store: ObjectStore, key: str, marker: Marker, errors: RepositoryErrors, memory: Memory
    ) -> None:
        self._store = store
        self._key = key
        self._marker = marker
        self._errors = errors
        self._memory = memory
        self._lock = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._waiting: list[_Waiter] = []
        self._read: tuple[str, Index] | None = None

    async def load(self) -> Index:
        """The index as it is now; not to be changed.

        Raises:
            NotFound: the file does not exist.
            Corrupt: it cannot be parsed, exceeds a bound, or its folder is not a layout.
            Unsupported: a newer layout.
        """
        _, index = await self._fetch()
        await self._marker.require()
        return index

    def forget(self) -> None:
        """Gives the memory back; the next use reads the file again."""
        self._read = None

    async def change(self, change: Change) -> None:
        """Returns when the change is in the file.

        Raises:
            Unavailable: other agents were faster every time.
            SiteError: raised by `change` or by the store; the file is then unchanged.
        """
        waiter = _Waiter(change)
        self._waiting.append(waiter)
        try:
            async with self._lock:
                if not waiter.ended:
                    await self._commit(self._waiting)
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if waiter.error is not None:
            raise waiter.error

    async def _commit(self, waiting: list[_Waiter]) -> None:
        """Writes for all who wait. Cancelled, it leaves them waiting, and the next of them starts again."""
        batch = list(waiting)
        failure: SiteError | None = None
        try:
            await self._rewrite(batch)
        except SiteError as error:
            failure = error
        for waiter in batch:
            waiter.ended = True
            waiter.error = waiter.error or failure
            if waiter in waiting:
                waiting.remove(waiter)

    async def _rewrite(self, batch: list[_Waiter]) -> None:
        for _ in range(ATTEMPTS):
            version: str | None
            try:
                version, before = await self._fetch()
            except NotFound:
                version, before = None, empty_index()
            index, data = await _run(lambda base=before: _changed(batch, base), len(before) > _INLINE_ENTRIES)  # type: ignore[misc]
            if all(waiter.error for waiter in batch) or (version is not None and not index.is_changed):
                return
            if len(data) > MAX_INDEX_BYTES:
                cause = f"{self._key} would have {len(data)} bytes, more than the {MAX_INDEX_BYTES} allowed"
                raise self._errors.rejected("write index", cause)
            if version is None:
                await self._marker.make()
                written = await self._store.put(self._key, data, if_absent=True)
            else:
                await self._marker.require()
                written = await self._store.put(self._key, data, if_match=version)
            if written is not None:
                self._remember(written, index)
                return
        cause = f"other agents rewrote {self._key} {ATTEMPTS} times in the meantime"
        raise Unavailable(self._errors.site, "write index", cause, repository=self._errors.repository)

    async def _fetch(self) -> tuple[str, Index]:
        """Version and content; read only if the version is not the one that was read or written last."""
        info = await self._store.stat(self._key)
        if info is None:
            self._read = None
            raise self._errors.not_found("read index", "repository not found: no index.json")
        if self._read is None or self._read[0] != info.version:
            async with self._reading:
                if self._read is None or self._read[0] != info.version:
                    return await self._parse()
        self._memory.keep(self, len(self._read[1]))
        return self._read

    async def _parse(self) -> tuple[str, Index]:
        before = self._read[1] if self._read else None
        data, version = await self._store.get(self._key, MAX_INDEX_BYTES)
        try:
            index = await _run(lambda: parse_index(data, before), len(data) > _INLINE_BYTES)
        except ValueError as error:
            raise self._errors.corrupt("read index", f"{self._key}: {error}") from error
        return self._remember(version, index)

    def _remember(self, version: str, index: Index) -> tuple[str, Index]:
        self._read = (version, index)
        self._memory.keep(self, len(index))
        return version, index


async def _run(call: Callable[[], T], in_thread: bool) -> T:  # noqa: FBT001 - private, and the condition reads well
    return await run_in_thread(call) if in_thread else call()


def _changed(batch: list[_Waiter], before: Index) -> tuple[Index, bytes]:
    """The index with all changes that do not fail, and the file."""
    index = before.copy()
    for waiter in batch:
        waiter.error = None
        try:
            waiter.change(index)
        except SiteError as error:
            waiter.error = error
    return index, index.encode() if index.is_changed or not len(before) else b""
