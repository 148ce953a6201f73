"""The `index.json` of one layout, safe with several writers: tasks of this process and agents elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from replicator.errors import NotFound, SiteError, Unavailable
from replicator.ports import ObjectStore
from replicator.sites.layouts.oci.index import MAX_INDEX_BYTES, Index, empty_index, parse_index
from replicator.sites.layouts.oci.marker import Marker
from replicator.sites.layouts.place import Place

ATTEMPTS: Final = 100
"""So often a rewrite begins anew because another agent was faster; each time somebody's rewrite went through."""

Change = Callable[[Index], None]
"""Changes an index in place; done again on a newer one where another agent was faster. May raise a `SiteError`."""


class _Waiter:
    def __init__(self, change: Change) -> None:
        self.change = change
        self.ended = False
        self.error: SiteError | None = None


class IndexFile:
    """One `index.json`.

    Changes that come while another is being written wait and then go out together, in one rewrite: a thousand
    tags are not a thousand rewrites.

    Args:
        store: where it lies.
        key: under which key.
        marker: what makes the folder a layout; always there before the first index is.
        place: for errors.
    """

    def __init__(self, store: ObjectStore, key: str, marker: Marker, place: Place) -> None:
        self._store = store
        self._key = key
        self._marker = marker
        self._place = place
        self._lock = asyncio.Lock()
        self._waiting: list[_Waiter] = []
        self._read: tuple[str, bytes] | None = None

    async def load(self) -> Index:
        """The index as it is now.

        Raises:
            NotFound: there is none.
            Corrupt: it is not to be understood, or too large, or its folder is no layout.
            Unsupported: a newer layout.
        """
        _, data = await self._fetch()
        await self._marker.require()
        return self._parsed(data)

    async def change(self, change: Change) -> None:
        """Returns when the change is in the file.

        Raises:
            Unavailable: other agents were faster every time.
            SiteError: what `change` raised, or the store; the file is then as it was.
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
        """Writes for all who wait. Cancelled, it leaves them waiting, and the next of them starts anew."""
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
            try:
                version, before = await self._fetch()
                index = self._parsed(before)
            except NotFound:
                version, before, index = None, b"", empty_index()
            _apply(batch, index)
            data = index.encode()
            if all(waiter.error for waiter in batch) or (version is not None and data == before):
                return
            if version is None:
                await self._marker.make()
                written = await self._store.put(self._key, data, if_absent=True)
            else:
                await self._marker.require()
                written = await self._store.put(self._key, data, if_match=version)
            if written is not None:
                self._read = (written, data)
                return
        cause = f"other agents rewrote {self._key} {ATTEMPTS} times while we tried to"
        raise Unavailable(self._place.site, "write index", cause, repository=self._place.repository)

    async def _fetch(self) -> tuple[str, bytes]:
        """Version and bytes; fetched only where the version is not the one read (or written) last."""
        info = await self._store.stat(self._key)
        if info is None:
            self._read = None
            raise self._place.not_found("read index", "no such repository: there is no index.json")
        if self._read is None or self._read[0] != info.version:
            data, version = await self._store.get(self._key, MAX_INDEX_BYTES)
            self._read = (version, data)
        return self._read

    def _parsed(self, data: bytes) -> Index:
        try:
            return parse_index(data)
        except ValueError as error:
            raise self._place.corrupt("read index", f"{self._key}: {error}") from error


def _apply(batch: list[_Waiter], index: Index) -> None:
    for waiter in batch:
        waiter.error = None
        try:
            waiter.change(index)
        except SiteError as error:
            waiter.error = error
