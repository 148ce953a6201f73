"""What all repositories of one registry share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from yarl import URL

from replicator.events import Events, Warned
from replicator.ports import Clock
from replicator.sites.bounds import DEFAULT_MAX_BLOB_BYTES
from replicator.sites.registry.capabilities import Knowledge
from replicator.sites.registry.creations import Creations
from replicator.sites.registry.http import Transport
from replicator.sites.registry.identity.settings import Identity
from replicator.sites.registry.immutable import FixedTags
from replicator.sites.registry.vendors.listing import Closable

FAREWELL_SECONDS: Final = 3.0
"""How long a farewell (see `Farewells`) may take."""


class Farewells:
    """Requests that must still go out after whoever asked for the work was cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, farewell: Coroutine[Any, Any, object]) -> None:
        """Waits for the farewell, `FAREWELL_SECONDS` at most; cancelling the wait does not end the farewell."""
        task = asyncio.create_task(_bounded(farewell))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def aclose(self) -> None:
        """Waits until all have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)


async def _bounded(farewell: Coroutine[Any, Any, object]) -> None:
    try:
        async with asyncio.timeout(FAREWELL_SECONDS):
            await farewell
    except TimeoutError:
        return


@dataclass(slots=True)
class BulkMemory:
    """What listings in bulk share: whose turn it is to try, which requests were not found, what is kept open."""

    trial: asyncio.Lock = field(default_factory=asyncio.Lock)
    missing: set[str] = field(default_factory=set)
    kept: Closable | None = None

    async def aclose(self) -> None:
        """Closes what is kept open."""
        if self.kept is not None:
            await self.kept.aclose()


@dataclass(frozen=True, slots=True)
class Registry:
    """One registry as its repositories see it: how to ask, what it can do, whom to tell.

    `written_as`: how the config names it, where that is another name. `has_login`: credentials were configured (others may still be found where docker keeps them). `unlisted`:
    repositories that refused to list their tags and are not known to exist. `tried`: what was found out by a small write,
    one at a time under `trying`.
    """

    site: str
    url: URL
    transport: Transport
    knowledge: Knowledge
    events: Events
    clock: Clock
    has_login: bool = False
    max_blob_bytes: int = DEFAULT_MAX_BLOB_BYTES
    written_as: str = ""
    identity: Identity | None = None
    fixed: FixedTags = field(default_factory=FixedTags)
    bulk: BulkMemory = field(default_factory=BulkMemory)
    unlisted: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)
    trying: asyncio.Lock = field(default_factory=asyncio.Lock)
    creations: Creations = field(default_factory=Creations)
    farewells: Farewells = field(default_factory=Farewells)

    def warn(self, text: str) -> None:
        """Emits a warning for the operator."""
        self.events.emit(Warned(self.site, text))
