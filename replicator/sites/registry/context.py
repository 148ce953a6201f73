"""What all repositories of one registry share."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from yarl import URL

from replicator.events import Events, Warned
from replicator.ports import Clock
from replicator.sites.bounds import DEFAULT_MAX_BLOB_BYTES
from replicator.sites.cleanup import CleanupRequests
from replicator.sites.registry.capabilities import Knowledge
from replicator.sites.registry.creations import Creations
from replicator.sites.registry.http import Transport
from replicator.sites.registry.identity.settings import Identity
from replicator.sites.registry.immutable import FixedTags
from replicator.sites.registry.refusedlistings import RefusedListings
from replicator.sites.registry.vendors.listing import Closable

CLEANUP_SECONDS: Final = 3.0
"""How long a cleanup request may take."""


class BulkMemory(msgspec.Struct):
    """What listings in bulk share: what was refused, whose turn it is to try, which requests were not found, what is open."""

    refused: RefusedListings = msgspec.field(default_factory=RefusedListings)
    trial: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    missing: set[str] = msgspec.field(default_factory=set)
    kept: Closable | None = None

    async def aclose(self) -> None:
        """Closes what is kept open."""
        if self.kept is not None:
            await self.kept.aclose()


class Registry(msgspec.Struct, frozen=True):
    """One registry as its repositories see it: how to ask, what it can do, whom to tell.

    `written_as`: how the config names it, where that is another name. `has_login`: credentials were configured (others may still be found where docker keeps them). `unlisted`:
    repositories that refused to list their tags and are not known to exist. `tried`: what was found out by a small write,
    one at a time under `trying`. `refused_types`: media types of manifests that it has refused.
    """

    site: str
    url: URL
    transport: Transport
    knowledge: Knowledge
    events: Events
    clock: Clock
    has_login: bool = False
    max_blob_bytes: int = DEFAULT_MAX_BLOB_BYTES
    parallel_reads: int | None = None
    written_as: str = ""
    identity: Identity | None = None
    fixed: FixedTags = msgspec.field(default_factory=FixedTags)
    bulk: BulkMemory = msgspec.field(default_factory=BulkMemory)
    unlisted: set[str] = msgspec.field(default_factory=set)
    refused_types: set[str] = msgspec.field(default_factory=set)
    tried: set[str] = msgspec.field(default_factory=set)
    trying: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    creations: Creations = msgspec.field(default_factory=Creations)
    cleanups: CleanupRequests = msgspec.field(default_factory=lambda: CleanupRequests(CLEANUP_SECONDS))

    def warn(self, text: str) -> None:
        """Emits a warning for the operator."""
        self.events.emit(Warned(self.site, text))
