"""An archive that is written, as an object store."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import msgspec

from replicator.errors import NotFound, Unsupported
from replicator.model.digest import Digest
from replicator.model.mediatypes import OCI_INDEX
from replicator.ports import Chunk, ObjectInfo, ObjectPage, ObjectStore, ObjectUpload
from replicator.sites.archive.keys import MARKER_BODY, Key, blob_name, listing, parse_key
from replicator.sites.archive.names import renamed
from replicator.sites.archive.output import Output
from replicator.sites.archive.tar import header, padding, trailer
from replicator.sites.archive.threads import in_thread
from replicator.sites.layouts.oci.entries import Entry
from replicator.sites.layouts.oci.index import parse_index
from replicator.sites.layouts.oci.paths import INDEX, MARKER

T = TypeVar("T")

_IN_MEMORY_BYTES: Final = 256 * 1024


class ArchiveWriter:
    """`ports.ObjectStore` that writes a tar in one pass: blobs as they are done, at last the index.

    A blob that comes in waits in a file without a name until it is whole, as a tar has one file after the other.

    Args:
        site: the site's name.
        output: where the archive goes; closed with the store.
        spool: a folder for blobs that are coming in.
        have: blobs that the other side has, with their sizes: they are said to be here, and left out.
    """

    def __init__(
        self, site: str, output: Output, *, spool: Path | None, have: Mapping[Digest, int] | None = None
    ) -> None:
        self._site = site
        self._output = output
        self._spool = spool
        self._have = have or {}
        self._blobs: dict[Digest, int] = {}
        self._own: dict[str, dict[str, tuple[bytes, int]]] = {}
        self._lock = asyncio.Lock()

    @property
    def site(self) -> str:
        """The site's name."""
        return self._site

    @property
    def conditional(self) -> bool:
        """Nobody else writes here."""
        return True

    async def finish(self) -> None:
        """Writes the index and makes the archive visible. Nothing may be written afterwards."""
        entries: list[Entry] = []
        for folder, files in sorted(self._own.items()):
            if INDEX in files:
                index = parse_index(files[INDEX][0])
                entries += renamed(index, folder.rstrip("/")) if folder else index.entries()
        data = msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
        async with self._lock:
            await self._append(MARKER, MARKER_BODY)
            await self._append(INDEX, data)
            await self._do("finish archive", lambda: self._output.append(b"", b"", trailer()))
            await self._do("finish archive", self._output.finish)

    # --- reading what was written ---

    async def stat(self, key: str) -> ObjectInfo | None:
        """See `ports.ObjectStore`. What the other side has is here, too."""
        parts = parse_key(key)
        if parts is None:
            return None
        if parts.digest is not None:
            size = self._blobs.get(parts.digest, self._have.get(parts.digest))
            return None if size is None else ObjectInfo(key, size, parts.digest, 0.0)
        found = self._own.get(parts.folder, {}).get(parts.name)
        return None if found is None else ObjectInfo(key, len(found[0]), str(found[1]), 0.0)

    async def get(self, key: str, max_bytes: int) -> tuple[bytes, str]:  # noqa: ARG002 - ours are small
        """See `ports.ObjectStore`; of the index alone."""
        parts = parse_key(key)
        found = None if parts is None else self._own.get(parts.folder, {}).get(parts.name)
        if found is None:
            raise NotFound(self._site, f"read object {key}", "the file does not exist in the archive")
        return found[0], str(found[1])

    def read(
        self,
        key: str,
        offset: int = 0,  # noqa: ARG002
        *,
        size: int | None = None,  # noqa: ARG002
    ) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """Unsupported: a pipe is not read again."""
        raise Unsupported(self._site, f"read object {key}", "an archive that is being written is not read")

    async def list(self, prefix: str, *, delimiter: bool = False) -> AsyncIterator[ObjectPage]:
        """See `ports.ObjectStore`."""
        page = listing(prefix, list(self._own), self._blobs.items(), delimiter=delimiter)
        if page.objects or page.prefixes:
            yield page

    # --- writing ---

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str | None:
        """See `ports.ObjectStore`."""
        parts = self._known(key)
        if parts.digest is not None:
            await self._keep(parts.digest, len(data), data)
            return parts.digest
        files = self._own.setdefault(parts.folder, {})
        before = files.get(parts.name)
        if (if_absent and before) or (
            if_match is not None and (before is None or if_match != str(before[1]))
        ):
            return None
        version = before[1] + 1 if before else 1
        files[parts.name] = (data, version)
        return str(version)

    def upload(self, key: str, size: int | None) -> AbstractAsyncContextManager[ObjectUpload]:  # noqa: ARG002 - counted
        """See `ports.ObjectStore`."""
        return self._upload(key)

    @asynccontextmanager
    async def _upload(self, key: str) -> AsyncGenerator[ObjectUpload, None]:
        digest = self._known(key).digest
        if digest is None:
            raise Unsupported(self._site, f"write object {key}", "only blobs are uploaded")
        with tempfile.SpooledTemporaryFile(
            max_size=_IN_MEMORY_BYTES, dir=str(self._spool) if self._spool else None
        ) as file:
            yield _Upload(self, digest, file)

    async def keep_file(self, digest: Digest, file: IO[bytes], size: int) -> None:
        """Appends a blob that is whole."""

        def source() -> int | bytes:
            file.flush()
            if size > _IN_MEMORY_BYTES:
                return file.fileno()
            file.seek(0)
            return file.read()

        await self._keep(digest, size, await self._do("write blob", source))

    async def _keep(self, digest: Digest, size: int, source: int | bytes) -> None:
        async with self._lock:
            if digest not in self._blobs:
                await self._append(blob_name(digest), source, size)
                self._blobs[digest] = size

    async def _append(self, name: str, source: int | bytes, size: int | None = None) -> None:
        length = len(source) if isinstance(source, bytes) else size or 0
        await self._do(
            f"write object {name}",
            functools.partial(self._output.append, header(name, length), source, padding(length)),
        )

    async def do_write(self, file: IO[bytes], chunk: Chunk) -> None:
        """Takes a chunk of a blob that is coming in."""
        await self._do("write blob", lambda: file.write(chunk))

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
        """See `ports.ObjectStore`: all repositories have the same blobs already."""
        if await self.stat(key) is None:
            raise NotFound(self._site, f"link object {key}", f"{origin_key} does not exist in the archive")

    async def delete(self, key: str) -> None:
        """Unsupported: what is written is written."""
        raise Unsupported(self._site, f"delete object {key}", "nothing is taken out of an archive")

    async def sweep(self, is_ours: Callable[[str], bool]) -> None:
        """Nothing is left behind."""

    async def aclose(self) -> None:
        """Closes the output; where it was not finished, it is gone."""
        self._output.close()

    def _known(self, key: str) -> Key:
        parts = parse_key(key)
        if parts is None:
            raise Unsupported(self._site, f"write object {key}", "not a file of an OCI layout")
        return parts

    async def _do(self, operation: str, call: Callable[[], T]) -> T:
        return await in_thread(self._site, operation, call)


class _Upload:
    """A blob that is coming in."""

    def __init__(self, writer: ArchiveWriter, digest: Digest, file: Any) -> None:
        self._writer = writer
        self._digest = digest
        self._file = file
        self._size = 0

    async def write(self, chunk: Chunk) -> None:
        """Takes the next bytes."""
        self._size += len(chunk)
        await self._writer.do_write(self._file, chunk)

    async def commit(self, digest: Digest | None = None) -> None:  # noqa: ARG002 - nothing is hashed later
        """Appends the blob to the archive."""
        await self._writer.keep_file(self._digest, self._file, self._size)
