"""Blobs as objects: read, written once their bytes are known to be right, copied between sites of one store."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import Final, Protocol, runtime_checkable

from replicator.errors import Corrupt, NotFound, SiteError
from replicator.flow.parallel import each
from replicator.flow.splice import Splice, Stream, pass_on
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, algorithm, encoded, new_hash
from replicator.ports import BlobSource, Chunk, LooksAtMany, ObjectInfo, ObjectStore, VerifiesItself
from replicator.ports.power import Power
from replicator.sites.layouts.errors import RepositoryErrors

_WRITE: Final = "write blob"
_COPY: Final = "copy blob"
_AT_ONCE: Final = 64
"""Objects that one call of a store looks at, at most."""


@runtime_checkable
class KeepsObjects(Protocol, metaclass=Power):
    """A repository whose blobs are objects, so that another site of the same store can copy them."""

    @property
    def store(self) -> ObjectStore:
        """Where they lie."""
        ...

    def blob_key(self, digest: Digest) -> str:
        """The key of a blob, there or not."""
        ...


@runtime_checkable
class TakesSplices(Protocol, metaclass=Power):
    """An upload that a thread can write to."""

    async def splice(self, chunks: AsyncIterator[Chunk], narrow: Callable[[Splice], None]) -> None:
        """Has a thread write the next bytes of a stream, if it can. Not while a chunk is being asked for or written.

        Args:
            chunks: the stream.
            narrow: called with the splice before it goes down the stream.

        Raises:
            SiteError: the store failed.
        """
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
        self._position = 0

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
            self._position = offset
            counted = await stack.enter_async_context(aclosing(self._counted(chunks)))
            yield Stream(counted, partial(self._splice, chunks))

    async def _counted(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk, None]:
        size = self.descriptor.size
        with self._remembering():
            async for chunk in chunks:
                self._add(len(chunk))
                if size is not None and self._position > size:
                    raise self._wrong(f"it has more than the {size} bytes that its descriptor says")
                yield chunk
                del chunk  # its memory may be used again
            if size is not None and self._position < size:
                raise self._wrong(f"it ended after {self._position} of {size} bytes")

    async def _splice(self, chunks: AsyncIterator[Chunk], splice: Splice) -> None:
        if self.descriptor.size is not None:
            splice.narrow(self.descriptor.size - self._position)
        splice.count_with(self._add)
        await pass_on(chunks, splice)

    def _add(self, count: int) -> None:
        self._position += count

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
    coming = _Coming(source, errors)
    async with store.upload(key, source.descriptor.size) as upload:
        async with source.open() as chunks:
            async for chunk in chunks:
                coming.take(chunk)
                await upload.write(chunk)
                del chunk  # its memory may be used again
                if isinstance(upload, TakesSplices):
                    await upload.splice(chunks, coming.narrow)
        coming.check()
        await upload.commit(source.descriptor.digest)


class _Coming:
    """What has come of a blob that is being written."""

    def __init__(self, source: BlobSource, errors: RepositoryErrors) -> None:
        self._source = source
        self._errors = errors
        self._digest = source.descriptor.digest
        self._size = source.descriptor.size
        # Hashing takes more of a copy's time than all else: once is enough.
        is_verified = isinstance(source, VerifiesItself) and source.is_verified
        self._hashed = None if is_verified else new_hash(self._digest)
        self._count = 0

    def take(self, chunk: Chunk) -> None:
        """Counts and hashes. Raises where it is more than there should be."""
        self._add(len(chunk))
        if self._size is not None and self._count > self._size:
            raise self._failed(f"more than its {self._size} bytes came")
        if self._hashed is not None:
            self._hashed.update(chunk)

    def narrow(self, splice: Splice) -> None:
        """Has a splice do the same, to the last byte at most."""
        if self._size is not None:
            splice.narrow(self._size - self._count)
        if self._hashed is not None:
            splice.hash_with(self._hashed.update)
        splice.count_with(self._add)

    def check(self) -> None:
        """Raises unless it was all, and the right bytes."""
        if self._size is not None and self._count < self._size:
            raise self._failed(f"{self._count} bytes came where its descriptor says {self._size}")
        if self._hashed is not None and self._hashed.hexdigest() != encoded(self._digest):
            came = f"{algorithm(self._digest)}:{self._hashed.hexdigest()}"
            raise self._corrupt(f"the bytes that came hash to {came}")

    def _add(self, count: int) -> None:
        self._count += count

    def _failed(self, what: str) -> SiteError:
        return self._source.failure or self._corrupt(what)

    def _corrupt(self, what: str) -> SiteError:
        return self._errors.corrupt(_WRITE, f"{self._digest}: {what}")


async def has_object(store: ObjectStore, key: str, size: int | None) -> bool:
    """Whether an object of that size (any, where None) is there."""
    return _is(await store.stat(key), size)


async def has_objects(store: ObjectStore, wanted: Sequence[tuple[str, int | None]]) -> list[bool]:
    """As `has_object` of each key and size."""
    if not isinstance(store, LooksAtMany):
        return await each(wanted, lambda one: has_object(store, *one))
    keys = [key for key, _ in wanted]
    pages = await each([keys[at : at + _AT_ONCE] for at in range(0, len(keys), _AT_ONCE)], store.stat_all)
    found = itertools.chain.from_iterable(pages)
    return [_is(one, size) for one, (_, size) in zip(found, wanted, strict=True)]


def _is(found: ObjectInfo | None, size: int | None) -> bool:
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
