"""An object store in memory that counts, fails, and dies when it is told to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from replicator.errors import Corrupt, NotFound, Rejected, SiteError
from replicator.model.digest import Digest, algorithm, digest_of
from replicator.ports import Chunk, ObjectInfo, ObjectPage, ObjectStore, ObjectUpload

Method = Literal["stat", "get", "read", "put", "upload", "list", "copy", "link", "delete", "sweep"]
CHUNK_BYTES = 64 * 1024


class Killed(BaseException):
    """What a process that is killed does not live to see."""


class _Upload:
    def __init__(self, commit: Callable[[bytes], None]) -> None:
        self._data = bytearray()
        self._commit = commit

    async def write(self, chunk: Chunk) -> None:
        await asyncio.sleep(0)
        self._data += chunk

    async def commit(self, digest: Digest | None = None) -> None:
        await asyncio.sleep(0)
        self._commit(bytes(self._data))


class MemoryStore:
    """A `replicator.ports.ObjectStore`.

    Args:
        site: the site's name.
        objects: what it holds.
        page: how many keys one page of a listing has.

    Attributes:
        calls: how often each method was called; `list` counts pages, as each is a request.
        lives: how many more changes go through before it is killed in the middle of one; None: any number.
        siblings: stores from which it can copy.
        before_put: called with the key before each `put`, such as to let another writer go first.
    """

    conditional = True

    def __init__(
        self, site: str = "store", objects: dict[str, bytes] | None = None, *, page: int = 1_000
    ) -> None:
        self.site = site
        self.objects = {} if objects is None else objects
        self.page = page
        self.calls: Counter[str] = Counter()
        self.lives: int | None = None
        self.siblings: list[MemoryStore] = []
        self.before_put: Callable[[str], None] = lambda _: None
        self.open_uploads = 0
        self.closed = False
        self.swept: Callable[[str], bool] | None = None
        self._faults: list[tuple[Method, str, SiteError]] = []

    def fail(self, method: Method, key: str, error: SiteError) -> None:
        """The next call of the method with a key that contains `key` fails."""
        self._faults.append((method, key, error))

    async def stat(self, key: str) -> ObjectInfo | None:
        await self._called("stat", key)
        return self._info(key) if key in self.objects else None

    async def get(self, key: str, max_bytes: int) -> tuple[bytes, str]:
        await self._called("get", key)
        data = self._data(key)
        if len(data) > max_bytes:
            raise Corrupt(self.site, f"read object {key}", f"has {len(data)} bytes")
        return data, self._info(key).version

    @asynccontextmanager
    async def read(
        self, key: str, offset: int = 0, *, size: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        await self._called("read", key)
        data = self._data(key)

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(offset, len(data), CHUNK_BYTES):
                await asyncio.sleep(0)
                yield data[start : start + CHUNK_BYTES]

        yield chunks()

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str | None:
        await self._called("put", key)
        self.before_put(key)
        found = self._info(key).version if key in self.objects else None
        if (if_absent and found is not None) or (if_match is not None and found != if_match):
            return None
        self._change(key, data)
        return self._info(key).version

    @asynccontextmanager
    async def upload(self, key: str, size: int | None) -> AsyncIterator[ObjectUpload]:
        await self._called("upload", key)
        self.open_uploads += 1
        try:
            yield _Upload(lambda data: self._change(key, data))
        finally:
            self.open_uploads -= 1

    async def list(self, prefix: str, *, delimiter: bool = False) -> AsyncIterator[ObjectPage]:
        found: list[ObjectInfo | str] = []
        for key in sorted(self.objects):
            if not key.startswith(prefix):
                continue
            below, slash, _ = key[len(prefix) :].partition("/")
            if not (delimiter and slash):
                found.append(self._info(key))
            elif prefix + below not in found[-1:]:
                found.append(prefix + below)
        for start in range(0, max(1, len(found)), self.page):
            await self._called("list", prefix)
            part = found[start : start + self.page]
            objects = [one for one in part if isinstance(one, ObjectInfo)]
            yield ObjectPage(objects, [one for one in part if isinstance(one, str)])

    async def copy(
        self, origin: ObjectStore, origin_key: str, key: str, *, digest: Digest | None = None
    ) -> bool:
        await self._called("copy", key)
        if not isinstance(origin, MemoryStore) or origin not in self.siblings:
            return False
        self._change(key, self._verified(origin, origin_key, digest))
        return True

    async def link(self, origin_key: str, key: str, *, digest: Digest | None = None) -> None:
        await self._called("link", key)
        self._change(key, self._verified(self, origin_key, digest))

    async def delete(self, key: str) -> None:
        await self._called("delete", key)
        self._change(key, None)

    async def sweep(self, is_ours: Callable[[str], bool]) -> None:
        await self._called("sweep", "")
        self.swept = is_ours

    async def aclose(self) -> None:
        self.closed = True

    # ---

    def _verified(self, origin: MemoryStore, key: str, digest: Digest | None) -> bytes:
        data = origin._data(key)
        if digest is not None and digest_of(data, algorithm(digest)) != digest:
            raise Corrupt(origin.site, f"copy object {key}", f"its bytes do not hash to {digest}")
        return data

    async def _called(self, method: Method, key: str) -> None:
        self.calls[method] += 1
        if not {"", ".", ".."}.isdisjoint(key.rstrip("/").split("/")) and key:
            raise Rejected(self.site, f"{method} {key}", "a key that leads elsewhere")
        await asyncio.sleep(0)
        for fault in self._faults:
            if fault[0] == method and fault[1] in key:
                self._faults.remove(fault)
                raise fault[2]

    def _change(self, key: str, data: bytes | None) -> None:
        if self.lives is not None:
            if self.lives == 0:
                raise Killed
            self.lives -= 1
        if data is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = data

    def _data(self, key: str) -> bytes:
        try:
            return self.objects[key]
        except KeyError:
            raise NotFound(self.site, f"read object {key}", "there is no such object") from None

    def _info(self, key: str) -> ObjectInfo:
        data = self.objects[key]
        return ObjectInfo(key, len(data), digest_of(data)[7:23], 0.0)
