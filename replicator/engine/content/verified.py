"""A blob from its source: resumed where it broke, verified before the end of it is given out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from time import monotonic
from typing import Final

import msgspec

from replicator.errors import Advice, Corrupt, SiteError, TooSlow
from replicator.flow.patience import CORRUPT_READINGS, SLOW_READINGS, STALLED_READINGS
from replicator.flow.splice import Splice, Stream, pass_on
from replicator.flow.thread import run_in_thread
from replicator.model.descriptor import Descriptor
from replicator.model.digest import algorithm, encoded, new_hash
from replicator.ports import BlobSource, Chunk, ReadsWhole, Repository

THREAD_BYTES: Final = 512 * 1024
"""From here on bytes are hashed in a thread: the event loop has others to serve. For fewer the way there costs as much."""

STALLED_SECONDS: Final = 120.0
"""Nor is a blob waited for any longer without one more byte, once it has been tried again.

A registry that hangs takes 60 s for each reading of a body, and two minutes where it does not even answer: it has failed
after two to four minutes.
"""


class BlobPlace(msgspec.Struct, frozen=True):
    """One repository that is said to have the blob."""

    site: str
    repository: str
    source: BlobSource

    @classmethod
    def at(cls, repository: Repository, descriptor: Descriptor) -> BlobPlace:
        """The blob in that repository."""
        return cls(repository.site, repository.name, repository.blob(descriptor))


def _ignore(_: BlobPlace, __: SiteError) -> None:
    """Nobody wants to know."""


class _Wrong(Exception):
    """What came is not the blob; the text says why."""


class VerifiedBlob:
    """A `BlobSource` over the places that have a blob: mirrors first, the source last.

    It gives out exactly the bytes of the digest or raises: the last chunk (any chunk, where the size is not known) is
    held back until the hash matches, so that a destination never has the whole of a wrong blob. A reading that breaks goes
    on at its offset, with the hash state kept; a place that fails is left for the next one. `Corrupt` is raised with the
    advice to try again while another reading or place may do better.

    Args:
        descriptor: what is wanted; its size, where known, bounds the reading.
        places: where to read, in order; at least one.
        on_read: told the site's name and the number of bytes as they come in.
        on_lost: told which place was left for the next one, and why.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        places: Sequence[BlobPlace],
        on_read: Callable[[str, int], None],
        on_lost: Callable[[BlobPlace, SiteError], None] = _ignore,
    ) -> None:
        self.descriptor = descriptor
        self.failure: SiteError | None = None
        self.is_verified = True
        self._places = list(places)
        self._on_read = on_read
        self._on_lost = on_lost
        self._hashed = 0
        """How much of it the hash has seen, which begins anew with the first reading."""
        self._corrupt = 0
        self._position = 0
        self._reading: AsyncIterator[Chunk] | None = None

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncGenerator[AsyncIterator[Chunk], None]:
        """The bytes from `offset` on. Beyond what was read before, all is read again and the first part dropped."""
        self.failure = None
        if offset == 0 or offset > self._hashed:
            self._restart()
        chunks = Stream(self._verified(offset), self._splice)
        try:
            yield chunks
        finally:
            await chunks.aclose()

    async def whole(self) -> bytes:
        """All of a small blob, from the first place that gives it; see `ports.ReadsWhole`."""
        place = self._places[0]
        if not isinstance(place.source, ReadsWhole):
            async with self.open() as chunks:
                return b"".join([chunk async for chunk in chunks])
        self.failure = None
        self._restart()
        try:
            data = await place.source.whole()
            self._position = 0
            await self._take(place, data)
            self._position = len(data)
            self._check()
        except _Wrong as wrong:
            self.failure = self._corrupted(str(wrong))
            raise self.failure from None
        except SiteError as error:
            if len(self._places) == 1:
                self.failure = error
                raise
            self._leave(error)
            return await self.whole()
        return data

    def _restart(self) -> None:
        self._hash = new_hash(self.descriptor.digest)
        self._hashed = 0

    async def _verified(self, offset: int) -> AsyncGenerator[Chunk, None]:
        held: Chunk = b""
        size = self.descriptor.size
        self._position = min(offset, self._hashed)
        try:
            # Closed here and now where whoever reads leaves early: a collector would free the source's slot later.
            async with aclosing(self._readings()) as readings:
                async for chunk in readings:
                    given = chunk[max(0, offset - self._position) :]
                    self._position += len(chunk)
                    if held:
                        yield held
                    held = given
                    if size is not None and self._position < size:  # it is not the last one
                        del chunk
                        if given:
                            yield given
                        del given  # its memory may be used again
                        held = b""
            self._check()
        except _Wrong as wrong:
            self.failure = self._corrupted(str(wrong))
            raise self.failure from None
        except SiteError as error:
            self.failure = error
            raise
        if held:
            yield held

    async def _readings(self) -> AsyncGenerator[Chunk, None]:
        """Chunks from the position to the end, over as many readings and places as it takes."""
        # Not the run's clock: this adds up time limits of the wire, which are real.
        stalled, slow, since = 0, 0, monotonic()
        # A site may refuse to be asked for what comes after the last byte.
        while self._position != self.descriptor.size:
            before = self._position
            place = self._places[0]
            try:
                async with place.source.open(before) as chunks:
                    self._reading = chunks
                    async for chunk in chunks:
                        await self._take(place, chunk)
                        yield chunk
                        del chunk  # its memory may be used again
                        # after the chunk was taken: a slow destination is not the source's fault
                        since = monotonic()
            except SiteError as error:
                stalled = 0 if self._position > before else stalled + 1
                slow = slow + 1 if isinstance(error, TooSlow) else 0
                hangs = stalled > 1 and monotonic() - since >= STALLED_SECONDS
                if len(self._places) > 1:
                    self._leave(error)
                    stalled, slow, since = 0, 0, monotonic()  # the next place has a patience of its own
                elif (
                    slow >= SLOW_READINGS
                    or stalled >= STALLED_READINGS
                    or hangs
                    or error.advice is not Advice.RETRY
                ):
                    raise
            else:
                return
            finally:
                self._reading = None

    async def _splice(self, splice: Splice) -> None:
        """Never to the last byte, which only the ordinary way gives out."""
        size, site = self.descriptor.size, self._places[0].site
        if size is None or self._position != self._hashed:
            return

        def count(moved: int) -> None:
            self._position += moved
            self._hashed += moved
            self._on_read(site, moved)

        splice.narrow(size - self._position - 1)
        splice.hash_with(self._hash.update)
        splice.count_with(count)
        await pass_on(self._reading, splice)

    def _leave(self, error: SiteError) -> None:
        """Gives the first place up."""
        self._corrupt = 0
        self._on_lost(self._places.pop(0), error)

    async def _take(self, place: BlobPlace, chunk: Chunk) -> None:
        self._on_read(place.site, len(chunk))
        size = self.descriptor.size
        end = self._position + len(chunk)
        if size is not None and end > size:
            raise _Wrong(f"more than the {size} bytes of its descriptor")
        if end > self._hashed:
            new = memoryview(chunk)[self._hashed - self._position :]
            self._hashed = end  # first: a thread hashes to the end also where this is cancelled
            if len(new) < THREAD_BYTES:
                self._hash.update(new)
            else:
                await run_in_thread(partial(self._hash.update, new))

    def _check(self) -> None:
        size = self.descriptor.size
        if size is not None and self._position < size:
            raise _Wrong(f"{self._position} bytes where its descriptor says {size}")
        found = self._hash.hexdigest()
        if found != encoded(self.descriptor.digest):
            raise _Wrong(f"its bytes hash to {algorithm(self.descriptor.digest)}:{found}")

    def _corrupted(self, what: str) -> Corrupt:
        place = self._places[0]
        self._corrupt += 1
        again = self._corrupt < CORRUPT_READINGS or len(self._places) > 1
        error = Corrupt(
            place.site,
            "read blob",
            f"{self.descriptor.digest}: {what}",
            repository=place.repository,
            advice=Advice.RETRY if again else Advice.LATER,
        )
        if self._corrupt >= CORRUPT_READINGS and again:
            self._leave(error)
        self._restart()
        return error
