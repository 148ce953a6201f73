"""An archive that is read, as an object store."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Final, NoReturn

import msgspec

from replicator.errors import Corrupt, NotFound, Unsupported
from replicator.model.decoding import JSON_ERRORS
from replicator.model.digest import Digest, algorithm, encoded, new_hash
from replicator.model.mediatypes import OCI_INDEX
from replicator.ports import BlobSource, Chunk, ObjectInfo, ObjectPage, ObjectStore, ObjectUpload
from replicator.sites.archive.keys import MARKER_BODY, Key, listing, parse_key
from replicator.sites.archive.names import name_of, plain, repository_of
from replicator.sites.archive.tar import Extent, scan
from replicator.sites.archive.threads import in_thread
from replicator.sites.bounds import MAX_INDEX_BYTES, MAX_MARKER_BYTES
from replicator.sites.layouts.oci.entries import Entry, digest_in
from replicator.sites.layouts.oci.index import parse_index
from replicator.sites.layouts.oci.marker import VERSION
from replicator.sites.layouts.oci.paths import INDEX, MARKER

_CHUNK_BYTES: Final = 1 << 20


class ArchiveReader:
    """`ports.ObjectStore` over an archive: `NAME/index.json`, `NAME/blobs/...` of each repository `NAME`.

    `index.json` and `blobs/...` are there too, with all roots.

    Args:
        site: the site's name.
        fd: the archive, a file that can be read at any offset; closed with the store.
        files: what is in it.
        entries: the entries of its index.
    """

    def __init__(self, site: str, fd: int, files: Mapping[str, Extent], entries: Sequence[Entry]) -> None:
        self._site = site
        self._fd = fd
        self._blobs = {
            key.digest: extent for name, extent in files.items() if (key := parse_key(name)) and key.digest
        }
        self._elsewhere: dict[Digest, BlobSource] = {}
        self.entries = entries
        self._indexes: dict[str, bytes] = {"": _index(entries)}
        repositories: dict[str, list[Entry]] = {}
        for entry in entries:
            repository = repository_of(entry)
            if repository is not None:
                repositories.setdefault(repository, []).append(plain(entry))
        self._roots = {
            name: frozenset(digest for entry in named if (digest := digest_in(entry)) is not None)
            for name, named in repositories.items()
        }
        self.repositories = tuple(sorted(repositories))
        self._indexes |= {f"{name}/": _index(named) for name, named in repositories.items()}

    @classmethod
    async def open(cls, site: str, fd: int) -> ArchiveReader:
        """Reads what is in the archive. The descriptor is the reader's from now on, also where this fails.

        Raises:
            Corrupt: cut short, altered, a newer layout, or no OCI layout in a tar.
        """
        try:
            files, entries = await in_thread(site, "read archive", lambda: _contents(fd))
        except BaseException:
            os.close(fd)
            raise
        return cls(site, fd, files, entries)

    @property
    def site(self) -> str:
        """The site's name."""
        return self._site

    @property
    def conditional(self) -> bool:
        """Nothing is written, so nothing is overwritten."""
        return True

    def unnamed(self) -> list[str]:
        """Roots that belong to no repository, as they are called."""
        return [name_of(entry) for entry in self.entries if repository_of(entry) is None]

    def roots(self, repository: str) -> frozenset[Digest]:
        """What the index names of a repository."""
        return self._roots[repository]

    def size_of(self, digest: Digest) -> int | None:
        """The size of a blob; None where it is not in the archive."""
        extent = self._blobs.get(digest)
        return extent.size if extent else None

    def supplement(self, source: BlobSource) -> None:
        """Reads a blob that is not in the archive from there, from now on."""
        self._elsewhere[source.descriptor.digest] = source

    async def verify(self) -> None:
        """Reads every blob. Raises `Corrupt` for the first whose bytes are not those of its name."""
        for digest, extent in sorted(self._blobs.items(), key=lambda item: item[1].offset):
            found = await in_thread(
                self._site, "verify archive", functools.partial(_hash, self._fd, digest, extent)
            )
            if found != encoded(digest):
                came = f"{algorithm(digest)}:{found}"
                raise Corrupt(
                    self._site, "verify archive", f"it is altered: the bytes of {digest} hash to {came}"
                )

    # --- reading ---

    async def stat(self, key: str) -> ObjectInfo | None:
        """See `ports.ObjectStore`."""
        parts = parse_key(key)
        if parts is not None and parts.digest is not None:
            extent = self._blobs.get(parts.digest)
            return ObjectInfo(key, extent.size, parts.digest, 0.0) if extent else None
        data = self._own(parts)
        return None if data is None else ObjectInfo(key, len(data), "1", 0.0)

    async def get(self, key: str, max_bytes: int) -> tuple[bytes, str]:
        """See `ports.ObjectStore`."""
        parts = parse_key(key)
        data = self._own(parts)
        if data is not None:
            return data, "1"
        extent = self._extent(key, parts)
        if extent.size > max_bytes:
            raise Corrupt(
                self._site,
                f"read object {key}",
                f"has {extent.size} bytes, more than the {max_bytes} allowed",
            )
        return await in_thread(self._site, f"read object {key}", lambda: _read(self._fd, extent)), "1"

    def read(
        self,
        key: str,
        offset: int = 0,
        *,
        size: int | None = None,  # noqa: ARG002 - an archive has no gates
    ) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """See `ports.ObjectStore`."""
        return self._opened(key, offset)

    @asynccontextmanager
    async def _opened(self, key: str, offset: int) -> AsyncGenerator[AsyncIterator[Chunk], None]:
        parts = parse_key(key)
        elsewhere = self._elsewhere.get(parts.digest) if parts and parts.digest else None
        if elsewhere is not None:
            async with elsewhere.open(offset) as chunks:
                yield chunks
            return
        async with aclosing(self._chunks(key, self._extent(key, parts), offset)) as own:
            yield own

    async def _chunks(self, key: str, extent: Extent, offset: int) -> AsyncGenerator[bytes, None]:
        at, end = extent.offset + offset, extent.offset + extent.size
        while at < end:
            part = Extent(at, min(_CHUNK_BYTES, end - at))
            yield await in_thread(self._site, f"read object {key}", functools.partial(_read, self._fd, part))
            at += part.size

    async def list(self, prefix: str, *, delimiter: bool = False) -> AsyncIterator[ObjectPage]:
        """See `ports.ObjectStore`. Only the repositories' folders are listed."""
        folders = [f"{name}/" for name in self.repositories]
        blobs = [(digest, extent.size) for digest, extent in self._blobs.items()]
        page = listing(prefix, folders, blobs, delimiter=delimiter)
        if page.objects or page.prefixes:
            yield page

    def _own(self, parts: Key | None) -> bytes | None:
        """The content of one of a layout's own files."""
        if parts is None or parts.digest is not None or parts.folder not in self._indexes:
            return None
        return MARKER_BODY if parts.name == MARKER else self._indexes[parts.folder]

    def _extent(self, key: str, parts: Key | None) -> Extent:
        extent = self._blobs.get(parts.digest) if parts and parts.digest else None
        if extent is None:
            raise NotFound(self._site, f"read object {key}", "it is not in the archive")
        return extent

    # --- writing: not here ---

    async def put(
        self,
        key: str,
        data: bytes,  # noqa: ARG002
        *,
        if_absent: bool = False,  # noqa: ARG002
        if_match: str | None = None,  # noqa: ARG002
    ) -> str | None:
        """Unsupported."""
        self._refuse(key)

    def upload(self, key: str, size: int | None) -> AbstractAsyncContextManager[ObjectUpload]:  # noqa: ARG002
        """Unsupported."""
        self._refuse(key)

    async def copy(
        self,
        origin: ObjectStore,  # noqa: ARG002
        origin_key: str,  # noqa: ARG002
        key: str,  # noqa: ARG002
        *,
        digest: Digest | None = None,  # noqa: ARG002
    ) -> bool:
        """Shares nothing with other stores."""
        return False

    async def link(self, origin_key: str, key: str, *, digest: Digest | None = None) -> None:  # noqa: ARG002
        """Unsupported."""
        self._refuse(key)

    async def delete(self, key: str) -> None:
        """Unsupported."""
        self._refuse(key)

    async def sweep(self, is_ours: Callable[[str], bool]) -> None:
        """Nothing is left behind."""

    async def aclose(self) -> None:
        """Closes the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _refuse(self, key: str) -> NoReturn:
        raise Unsupported(self._site, f"write object {key}", "an archive that is there is only read")


def _index(entries: Sequence[Entry]) -> bytes:
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def _small(fd: int, files: Mapping[str, Extent], name: str, most: int) -> bytes:
    extent = files[name]
    if extent.size > most:
        raise ValueError(f"has {extent.size} bytes, more than the {most} allowed")
    return _read(fd, extent)


def _contents(fd: int) -> tuple[dict[str, Extent], Sequence[Entry]]:
    """What an archive has. Raises ValueError that says what is wrong."""
    files = scan(fd)
    for name in (MARKER, INDEX):
        if name not in files:
            raise ValueError(f"{name} is missing: not an OCI layout in a tar, or never finished")
    try:
        marker = msgspec.json.decode(_small(fd, files, MARKER, MAX_MARKER_BYTES), type=dict[str, object])
    except JSON_ERRORS as error:
        raise ValueError(f"{MARKER} is not what it should be: {error}") from error
    version = marker.get("imageLayoutVersion")
    if version != VERSION:
        raise ValueError(f"its layout is of version {version!r}; {VERSION} is the one that is known")
    try:
        return files, list(parse_index(_small(fd, files, INDEX, MAX_INDEX_BYTES)).entries())
    except ValueError as error:
        raise ValueError(f"{INDEX}: {error}") from error


def _read(fd: int, extent: Extent) -> bytes:
    data = bytearray()
    while len(data) < extent.size:
        part = os.pread(fd, extent.size - len(data), extent.offset + len(data))
        if not part:
            raise ValueError("it became shorter while it was read")
        data += part
    return bytes(data)


def _pieces(fd: int, extent: Extent) -> Iterator[bytes]:
    for start in range(0, extent.size, _CHUNK_BYTES):
        yield _read(fd, Extent(extent.offset + start, min(_CHUNK_BYTES, extent.size - start)))


def _hash(fd: int, digest: Digest, extent: Extent) -> str:
    hashed = new_hash(digest)
    for piece in _pieces(fd, extent):
        hashed.update(piece)
    return hashed.hexdigest()
