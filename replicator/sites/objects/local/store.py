"""A directory as an object store."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from replicator.errors import Corrupt, Rejected, SiteError, Unavailable
from replicator.events import Events, RequestDone
from replicator.flow.limits import SiteLimits
from replicator.flow.splice import Splice, Stream, splice_file
from replicator.flow.thread import run_in_thread
from replicator.model.digest import Digest, algorithm, encoded, new_hash
from replicator.ports import Chunk, Clock, ObjectInfo, ObjectPage, ObjectStore, ObjectUpload
from replicator.sites.objects.keys import check_prefix, parts_of, shown
from replicator.sites.objects.local import files
from replicator.sites.objects.local.copying import hash_step
from replicator.sites.objects.local.errormap import disk_error, error_word
from replicator.sites.objects.local.files import OpenFile
from replicator.sites.objects.local.listing import Below, walk
from replicator.sites.objects.local.tree import Parts, Tree, version_of
from replicator.sites.objects.local.upload import LocalUpload
from replicator.sites.objects.local.workspace import Busy, Workspace, sweep
from replicator.sites.objects.settings import LocalSettings

T = TypeVar("T")

PAGE_ENTRIES: Final = 1000
THREADS: Final = 16
LOCK_SECONDS: Final = 30.0
"""How long another writer of one key may keep us waiting; it holds the lock for one small write."""
_LOCK_POLL_SECONDS: Final = 0.02
_VERIFIED_FILES: Final = 50_000


class LocalStore:
    """`ports.ObjectStore` on a directory.

    An object is a file. It is written under a temporary name, written out, renamed and its folder written out:
    what is there is whole and survives a power cut. Conditions hold among all processes that write through this
    class (a `flock` per key); `if_absent` against everybody, where the file system has hard links. Files and
    folders get the owner and mode of the root. Folders are made as needed and removed when they become empty.

    The work is done in threads of the store's own. A call that is cancelled ends when its thread has: its
    effect is whole or not there.

    Args:
        settings: the directory. It is made by the first write where it is missing.
        events: gets `RequestDone`, and of the gates `InFlight` and `LimitChanged`.
        clock: the time.
    """

    def __init__(self, settings: LocalSettings, *, events: Events, clock: Clock) -> None:
        self._site = settings.name
        self._events = events
        self._clock = clock
        self._limits = SiteLimits(settings.name, settings.limits, events=events, clock=clock)
        self._tree = Tree(settings.path)
        self._workspace = Workspace(self._tree)
        self._tree.may_expect = settings.must_exist is not False
        self._tree.is_expected = settings.must_exist is True
        self._verified: OrderedDict[str, Digest] = OrderedDict()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"objects-{settings.name}")

    @property
    def site(self) -> str:
        """The site's name."""
        return self._site

    @property
    def conditional(self) -> bool:
        """True unless the file system turned out to have no `flock`: then only one process may write."""
        return self._workspace.has_locks

    def set_bytes_per_second(self, rate: float | None) -> None:
        """See `ports.LimitsBytes`."""
        self._limits.set_bytes_per_second(rate)

    def limit_to(self, share: float) -> None:
        """See `ports.SharesLimits`."""
        self._limits.limit_to(share)

    def expect_content(self) -> None:
        """See `ports.ExpectsContent`; not if the settings say that the directory need not exist."""
        self._tree.is_expected = self._tree.may_expect

    async def stat(self, key: str) -> ObjectInfo | None:
        """See `ports.ObjectStore`."""
        operation = shown("look at object", key)
        parts = parts_of(self._site, operation, key)
        async with self._limits.slot("requests"):
            return await self._do(
                "look at object", operation, functools.partial(files.look_at, self._tree, key, parts)
            )

    async def stat_all(self, keys: Sequence[str]) -> Sequence[ObjectInfo | None]:
        """See `ports.LooksAtMany`: one trip to a thread, which opens the folder of neighbours once."""
        operation = shown("look at objects", ", ".join(keys[:3]))
        objects = [(key, parts_of(self._site, shown("look at object", key), key)) for key in keys]
        async with self._limits.slot("requests"):
            call = functools.partial(files.look_at_all, self._tree, objects)
            return await self._do("look at object", operation, call)

    async def get(self, key: str, max_bytes: int) -> tuple[bytes, str]:
        """See `ports.ObjectStore`."""
        operation = shown("read object", key)
        parts = parts_of(self._site, operation, key)
        async with self._limits.slot("requests"):
            call = functools.partial(files.read_small, self._tree, parts, max_bytes)
            data, version, size = await self._do("read object", operation, call)
        if size > max_bytes or len(data) > max_bytes:
            raise Corrupt(self._site, operation, f"has {size} bytes, more than the {max_bytes} allowed")
        await self._limits.pace_bytes(len(data))
        return data, version

    @contextlib.asynccontextmanager
    async def read(
        self, key: str, offset: int = 0, *, size: int | None = None
    ) -> AsyncIterator[AsyncIterator[Chunk]]:
        """See `ports.ObjectStore`. An offset beyond the end is `Rejected`, one at the end reads nothing."""
        async with self.opened(key, offset, size=size) as file:
            chunks = self._chunks(file, shown("read object", key))
            async with contextlib.aclosing(chunks):
                yield Stream(chunks, functools.partial(self._splice, file))

    @contextlib.asynccontextmanager
    async def opened(self, key: str, offset: int = 0, *, size: int | None = None) -> AsyncIterator[OpenFile]:
        """The object's open file, for a sibling on the same file system. A "reads" slot is held meanwhile."""
        operation = shown("read object", key)
        file = OpenFile(self._tree, parts_of(self._site, operation, key), offset)
        async with self._limits.slot("reads", size):
            try:
                there = await self._do("read object", operation, file.open)
                if offset > there:
                    raise Rejected(self._site, operation, f"from byte {offset}, but it has only {there}")
                yield file
            finally:
                await self._run(file.close)

    async def _chunks(self, file: OpenFile, operation: str) -> AsyncGenerator[bytes, None]:
        while not file.is_over and (chunk := await self._mapped(operation, file.next)):
            await self._limits.pace_bytes(len(chunk))
            yield chunk

    async def _splice(self, file: OpenFile, splice: Splice) -> None:
        """Not where bytes wait for their turn. A file that fails meanwhile ends it; `next` then raises."""
        if self._limits.paces_bytes:
            return
        splice.narrow(file.size - file.at)
        if splice.is_worth_it:
            splice.count_with(file.skip)
            await splice_file(file.fd, file.at, splice)

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str | None:
        """See `ports.ObjectStore`.

        Raises:
            Unavailable: with a condition, another process kept the key's lock for `LOCK_SECONDS`.
        """
        operation = shown("write object", key)
        parts = parts_of(self._site, operation, key)
        await self._limits.pace_bytes(len(data))
        write = functools.partial(files.write, self._workspace, parts, data)
        if if_absent or if_match is not None:
            write = functools.partial(
                files.write_if, self._workspace, key, parts, data, None if if_absent else if_match
            )
        deadline = self._clock.monotonic() + LOCK_SECONDS
        while True:
            async with self._limits.slot("requests"):
                with contextlib.suppress(Busy):
                    return await self._do("write object", operation, write)
            if self._clock.monotonic() >= deadline:
                raise Unavailable(self._site, operation, "another process keeps it locked")
            await self._clock.sleep(_LOCK_POLL_SECONDS)

    @contextlib.asynccontextmanager
    async def upload(self, key: str, size: int | None) -> AsyncIterator[ObjectUpload]:
        """See `ports.ObjectStore`. Room for `size` bytes is asked for before the first one is written."""
        operation = shown("write object", key)
        parts = parts_of(self._site, operation, key)
        async with self._limits.slot("writes", size):
            upload = LocalUpload(
                self._workspace,
                parts,
                size,
                run=functools.partial(self._do, "write object", operation),
                limits=self._limits,
                wrong=functools.partial(Corrupt, self._site, operation),
                proven=self._prove,
            )
            try:
                yield upload
            finally:
                await self._leave(upload)

    async def list(self, prefix: str, *, delimiter: bool = False) -> AsyncIterator[ObjectPage]:
        """See `ports.ObjectStore`. Raises `NotFound` where the directory itself is missing."""
        operation = shown("list objects", prefix)
        check_prefix(self._site, operation, prefix)
        entries = walk(self._tree, prefix, delimiter=delimiter)
        while True:
            async with self._limits.slot("requests"):
                page = await self._do("list objects", operation, functools.partial(_page, entries))
            if not page:
                return
            yield ObjectPage(
                [entry for entry in page if isinstance(entry, ObjectInfo)],
                [entry.prefix for entry in page if isinstance(entry, Below)],
            )

    async def copy(
        self, origin: ObjectStore, origin_key: str, key: str, *, digest: Digest | None = None
    ) -> bool:
        """See `ports.ObjectStore`: shares blocks where the file system can, else copies; what arrives is hashed.

        Not by hard link: the two sites may have other owners, and one of them may be tidied up by truncating.
        False for a directory on another file system.
        """
        if not isinstance(origin, LocalStore):
            return False
        operation = shown("copy object", key)
        parts = parts_of(self._site, operation, key)
        async with self._limits.slot("writes"), origin.opened(origin_key) as source:
            shares = functools.partial(_shares, source, self._tree)
            if not await self._do("copy object", operation, shares):
                return False
            wrong = functools.partial(Corrupt, origin.site, shown("read object", origin_key))
            await self._duplicate(source, parts, operation, digest, wrong)
        return True

    async def link(self, origin_key: str, key: str, *, digest: Digest | None = None) -> None:
        """See `ports.ObjectStore`: a hard link; where there are none, as `copy`.

        A file is hashed before its first link, unless it was verified when it was written; not again while it is the same file.
        """
        operation = shown("link object", f"{origin_key} as {key}")
        parts = parts_of(self._site, operation, key)
        origin_parts = parts_of(self._site, operation, origin_key)
        wrong = functools.partial(Corrupt, self._site, shown("read object", origin_key))
        if digest is not None:
            await self._verify(origin_key, digest, wrong)
        async with self._limits.slot("writes"):
            call = functools.partial(self._workspace.link, origin_parts, parts)
            if not await self._do("link object", operation, call):
                async with self.opened(origin_key) as source:
                    await self._duplicate(source, parts, operation, digest, wrong)

    async def _verify(self, key: str, digest: Digest, wrong: Callable[[str], SiteError]) -> None:
        operation = shown("read object", key)
        async with self.opened(key) as file:
            facts = os.fstat(file.fd)
            if self._verified.get(version_of(facts)) == digest:
                return
            hashed, at = new_hash(digest), 0
            while count := await self._mapped(operation, functools.partial(hash_step, file.fd, at, hashed)):
                at += count
        _compare(digest, hashed.hexdigest(), wrong)
        self._prove(facts, digest)

    def _prove(self, facts: os.stat_result, digest: Digest) -> None:
        """Notes that a file has been hashed: while it is the same file, that is not done again."""
        self._verified[version_of(facts)] = digest
        if len(self._verified) > _VERIFIED_FILES:
            self._verified.popitem(last=False)

    async def _duplicate(
        self,
        source: OpenFile,
        parts: Parts,
        operation: str,
        digest: Digest | None,
        wrong: Callable[[str], SiteError],
    ) -> None:
        target = LocalUpload(
            self._workspace,
            parts,
            source.size,
            run=functools.partial(self._mapped, operation),
            limits=self._limits,
            wrong=functools.partial(Corrupt, self._site, operation),
            proven=self._prove,
        )
        try:
            hashed = new_hash(digest) if digest else None
            await target.copy_from(source.fd, hashed)
            if digest and hashed:
                _compare(digest, hashed.hexdigest(), wrong)
            await target.commit(digest)
        finally:
            await self._leave(target)

    async def _leave(self, upload: LocalUpload) -> None:
        """Removes what was not committed; what was has no file open any more, and costs no trip to a thread."""
        if upload.is_open:
            await self._run(upload.close)

    async def delete(self, key: str) -> None:
        """See `ports.ObjectStore`. Folders that it leaves empty go too."""
        operation = shown("delete object", key)
        parts = parts_of(self._site, operation, key)
        async with self._limits.slot("requests"):
            await self._do("delete object", operation, functools.partial(files.delete, self._tree, parts))

    async def sweep(self, is_ours: Callable[[str], bool]) -> None:  # noqa: ARG002 - all of it is in a folder of our own
        """See `ports.ObjectStore`: temporary files and locks of processes that have ended."""
        async with self._limits.slot("requests"):
            await self._do("sweep", "sweep", functools.partial(sweep, self._tree))

    async def aclose(self) -> None:
        """See `ports.ObjectStore`."""
        await self._run(self._workspace.close)
        self._threads.shutdown()

    async def _do(self, verb: str, operation: str, call: Callable[[], T]) -> T:
        """What `call` returns, told as a request; `verb` is the metric's label, `operation` the error's."""
        began = self._clock.monotonic()
        code = "cancelled"
        try:
            result = await self._run(call)
            code = "ok"
        except OSError as error:
            code = error_word(error)
            raise disk_error(self._site, operation, error) from None
        except Busy:
            code = "busy"
            raise
        finally:
            self._events.emit(RequestDone(self._site, verb, code, self._clock.monotonic() - began))
        return result

    async def _mapped(self, operation: str, call: Callable[[], T]) -> T:
        """As `_do`, as a part of a request that is told already."""
        try:
            return await self._run(call)
        except OSError as error:
            raise disk_error(self._site, operation, error) from None

    async def _run(self, call: Callable[[], T]) -> T:
        """Runs the call in a thread and waits for its end even when cancelled: it holds descriptors of ours."""
        return await run_in_thread(call, self._threads)


def _page(entries: Iterator[ObjectInfo | Below]) -> list[ObjectInfo | Below]:
    return list(itertools.islice(entries, PAGE_ENTRIES))


def _compare(digest: Digest, found: str, wrong: Callable[[str], SiteError]) -> None:
    if found != encoded(digest):
        raise wrong(f"damaged: its bytes hash to {algorithm(digest)}:{found}, not to {digest}")


def _shares(source: OpenFile, tree: Tree) -> bool:
    tree.create()
    return os.fstat(source.fd).st_dev == tree.path.stat().st_dev
