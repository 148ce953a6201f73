"""Object stores: what a layout of images stands on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import msgspec

from replicator.model.digest import Digest
from replicator.ports.power import Power
from replicator.ports.repository import Chunk


class ObjectInfo(msgspec.Struct, frozen=True):
    """One object.

    `key` is relative to the store's root, parts parted by "/"; `version` is an ETag, or what a directory has for
    one (time, size, inode); `modified` in epoch seconds.
    """

    key: str
    size: int
    version: str
    modified: float


class ObjectPage(msgspec.Struct, frozen=True):
    """A page of a listing: objects, and (with a delimiter) the prefixes below, without a trailing "/"."""

    objects: Sequence[ObjectInfo] = ()
    prefixes: Sequence[str] = ()


class ObjectUpload(Protocol):
    """An object being written: nothing is visible before `commit`."""

    async def write(self, chunk: Chunk) -> None:
        """Takes the next bytes."""
        ...

    async def commit(self, digest: Digest | None = None) -> None:
        """Makes the object visible, whole and durable.

        `digest`: that of the bytes, if the writer has verified it. A store that hashes before it links need not do so again.
        """
        ...


class ObjectStore(Protocol):
    """What both layouts stand on: a bucket (below a prefix) or a directory. Keys cannot leave the root.

    Every failure is a `SiteError` of the site; operations name the key.
    """

    @property
    def site(self) -> str:
        """The site's name."""
        ...

    async def stat(self, key: str) -> ObjectInfo | None:
        """The object's facts; None if it does not exist or is a folder."""
        ...

    async def get(self, key: str, max_bytes: int) -> tuple[bytes, str]:
        """A small object's bytes and version. Raises `NotFound`, `Corrupt` where it is larger."""
        ...

    def read(
        self, key: str, offset: int = 0, *, size: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """An object's bytes from `offset` on, in chunks of at most 1 MiB. Raises `NotFound`.

        `size`: its bytes, where the caller knows: large objects leave room to small ones.
        """
        ...

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str | None:
        """Writes a small object at once, atomically and durably; returns its version.

        None: the condition did not hold and nothing was written. A store without conditional writes (told by its
        `conditional` property) checks first, which is good for one writer.
        """
        ...

    @property
    def conditional(self) -> bool:
        """Whether conditions of `put` hold against other writers."""
        ...

    def upload(self, key: str, size: int | None) -> AbstractAsyncContextManager[ObjectUpload]:
        """Writes a large object; leaving the context without `commit` leaves nothing behind."""
        ...

    def list(self, prefix: str, *, delimiter: bool = False) -> AsyncIterator[ObjectPage]:
        """Objects whose key begins with `prefix`; with `delimiter` only one level ("/") of it."""
        ...

    async def copy(
        self, origin: ObjectStore, origin_key: str, key: str, *, digest: Digest | None = None
    ) -> bool:
        """Copies within the store (server-side; reflink on disk). False: not the same store.

        With a digest, the content is verified as far as the store can: a directory hashes what it copies, a bucket
        compares the checksums that its objects have.

        Raises:
            NotFound: the origin does not have the object.
            Corrupt: the content is not that of the digest, or changed on the way; nothing is visible.
        """
        ...

    async def link(self, origin_key: str, key: str, *, digest: Digest | None = None) -> None:
        """Gives the same content a second key: a hard link where the store has them, else a copy.

        With a digest, verified as in `copy`. Raises as `copy` does.
        """
        ...

    async def delete(self, key: str) -> None:
        """Removes an object, if it exists."""
        ...

    async def sweep(self, is_ours: Callable[[str], bool]) -> None:
        """Removes what a killed run of ours left behind: temporary files, stale multipart uploads.

        Args:
            is_ours: whether we would write a key in parts. Others may keep their own things in the same bucket.
        """
        ...

    async def aclose(self) -> None:
        """Gives everything back."""
        ...


@runtime_checkable
class LooksAtMany(Protocol, metaclass=Power):
    """An `ObjectStore` that looks at several objects for little more than at one."""

    async def stat_all(self, keys: Sequence[str]) -> Sequence[ObjectInfo | None]:
        """As `stat` of each key, in their order."""
        ...


class OpenedFile(Protocol):
    """An object that is a file, open for reading. `fd` is the lender's: duplicate it to keep it."""

    @property
    def fd(self) -> int:
        """The descriptor."""
        ...

    @property
    def size(self) -> int:
        """Bytes, as of when it was opened."""
        ...


@runtime_checkable
class OpensFiles(Protocol):
    """A store whose objects are files, so that the kernel can send them."""

    def opened(
        self, key: str, offset: int = 0, *, size: int | None = None
    ) -> AbstractAsyncContextManager[OpenedFile]:
        """The object's open file, at that offset; `size` and what is raised as for `ObjectStore.read`."""
        ...
