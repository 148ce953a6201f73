"""A reply whose body is read as it comes, at the site's pace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from replicator.flow.limits import SiteLimits
from replicator.flow.splice import Splice
from replicator.ports import Chunk
from replicator.sites.registry.call import Call
from replicator.sites.registry.payload.answer import Answer
from replicator.sites.registry.wire import Wire

MAX_CHUNK_BYTES: Final = 1 << 20


class StreamReply:
    """A reply whose body is still to be read, within its context."""

    def __init__(self, wire: Wire, call: Call, response: Answer, limits: SiteLimits) -> None:
        self.status = response.status
        self.headers = response.headers
        self.url = response.url
        self._wire = wire
        self._call = call
        self._response = response
        self._limits = limits
        self._reading = wire.reading(response)

    async def splice(self, splice: Splice) -> None:
        """See `flow.splice.Spliceable`: the next bytes of the body, between two of `chunks`."""
        if not self._limits.paces_bytes:
            await self._reading.splice(splice)

    async def chunks(self) -> AsyncIterator[Chunk]:
        """The body as it comes, at most 1 MiB at a time, at the site's pace.

        Raises:
            Unavailable: it broke off, nothing came for `Timeouts.read`, or it is too slow.
        """
        async with aclosing(self._wire.chunks(self._call, self._response, self._reading)) as body:
            async for data in body:
                for start in range(0, len(data), MAX_CHUNK_BYTES):
                    chunk = data if len(data) <= MAX_CHUNK_BYTES else data[start : start + MAX_CHUNK_BYTES]
                    await self._limits.pace_bytes(len(chunk))
                    yield chunk
