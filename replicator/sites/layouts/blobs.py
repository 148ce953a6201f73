"""Blobs as objects: read, written once their bytes are known to be right, copied between sites of one store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from typing import Final, Protocol, runtime_checkable

from replicator.errors import Corrupt, NotFound, SiteError
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, algorithm, encoded, new_hash
from replicator.ports import BlobSource, Chunk, ObjectStore, VerifiesItself
from replicator.sites.layouts.errors import RepositoryErrors

_WRITE: Final = "write blob"
_COPY: Final = "copy blob"


@runtime_checkable
class KeepsObjects(Protocol):
    """A repository whose blobs are objects, so that another site of the same store can copy them."""

    @property
    def store(self) -> ObjectStore:
        """Where they lie."""
        ...

    def blob_key(self, digest: Digest) -> str:
        """The key of a blob, there or not."""
        ...


class StoredBlob:
    """A `BlobSource` over one object. The number of bytes is held against the descriptor's, the hash is not."""

    def __init__(
        self, store: ObjectStore, key: str, descriptor: Descriptor, errors: RepositoryErrors
    ) -> None:
        self.descriptor = descriptor
        self.failure: SiteError | None = None
        self._store = store
        self._key = key
        self._errors = errors

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncGenerator[AsyncIterator[Chunk], None]:
        """The bytes from `offset` on; see `ports.BlobSource`."""
        self.failure = None
        size = self.descriptor.size
        if size is not None and 0 < size <= offset:
            yield _nothing()  # a store would call the range unsatisfiable
            return
        async with AsyncExitStack() as stack:
            with self._remembering():
                chunks = await stack.enter_async_context(self._store.read(self._key, offset, size=size))
            yield await stack.enter_async_context(aclosing(self._counted(chunks, offset)))

    async def _counted(self, chunks: AsyncIterator[Chunk], position: int) -> AsyncGenerator[Chunk, None]:
        size = self.descriptor.size
        with self._remembering():
            async for chunk in chunks:
                position += len(chunk)
                if size is not None and position > size:
                    raise self._wrong(f"it has more than the {size} bytes that its descriptor says")
                yield chunk
            if size is not None and position < size:
                raise self._wrong(f"it ended after {position} of {size} bytes")

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            with self._errors.named():
                yield
        except SiteError as error:
            self.failure = error
            raise

    def _wrong(self, what: str) -> SiteError:
        return self._errors.corrupt("read blob", f"{self.descriptor.digest}: {what}")


async def write_stream(store: ObjectStore, key: str, source: BlobSource, errors: RepositoryErrors) -> None:
    """Puts a blob under its key; nothing is visible before its bytes are known to be those of its digest.

    Raises:
        Corrupt: other bytes, or another number of them, than the source's descriptor says.
        SiteError: of the store, or the source's own.
    """
    descriptor = source.descriptor
    digest, size = descriptor.digest, descriptor.size
    # Hashing takes more of a copy's time than all else: once is enough.
    hashed = None if isinstance(source, VerifiesItself) and source.is_verified else new_hash(digest)
    count = 0
    async with store.upload(key, size) as upload:
        async with source.open() as chunks:
            async for chunk in chunks:
                count += len(chunk)
                if size is not None and count > size:
                    raise source.failure or errors.corrupt(
                        _WRITE, f"{digest}: more than its {size} bytes came"
                    )
                if hashed is not None:
                    hashed.update(chunk)
                await upload.write(chunk)
        if size is not None and count < size:
            raise source.failure or errors.corrupt(
                _WRITE, f"{digest}: {count} bytes came where its descriptor says {size}"
            )
        if hashed is not None and hashed.hexdigest() != encoded(digest):
            came = f"{algorithm(digest)}:{hashed.hexdigest()}"
            raise errors.corrupt(_WRITE, f"{digest}: the bytes that came hash to {came}")
        await upload.commit()


async def has_object(store: ObjectStore, key: str, size: int | None) -> bool:
    """Whether an object of that size (any, where None) is there."""
    found = await store.stat(key)
    return found is not None and size in (None, found.size)


async def copy_stored(
    store: ObjectStore, key: str, descriptor: Descriptor, origin: KeepsObjects, errors: RepositoryErrors
) -> bool:
    """Has the store copy a blob from another of its sites. False: the two are in different stores; nothing was done.

    True without asking the origin where the blob is there already.

    Raises:
        NotFound: the origin does not have the blob.
        Corrupt: its size is not the descriptor's, or the store found other content; nothing of it is visible.
    """
    if type(origin.store) is not type(store):
        return False
    if await has_object(store, key, descriptor.size):
        return True  # never written over: other repositories may have the same object
    origin_key = origin.blob_key(descriptor.digest)
    found = await origin.store.stat(origin_key)
    if found is None:
        raise NotFound(origin.store.site, _COPY, f"no blob {descriptor.digest}")
    if descriptor.size not in (None, found.size):
        raise Corrupt(origin.store.site, _COPY, _other_size(descriptor, found.size))
    if not await store.copy(origin.store, origin_key, key, digest=descriptor.digest):
        return False
    if await has_object(store, key, found.size):
        return True
    await store.delete(key)
    raise errors.corrupt(_COPY, _other_size(descriptor, None))


def _other_size(descriptor: Descriptor, size: int | None) -> str:
    found = "another number of bytes arrived than" if size is None else f"it has {size} bytes, not the"
    return f"{descriptor.digest}: {found} {descriptor.size} of its descriptor"


async def _nothing() -> AsyncIterator[Chunk]:
    none: tuple[bytes, ...] = ()
    for chunk in none:
        yield chunk
