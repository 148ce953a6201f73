"""Our own registry client as tests want it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from replicator.events import Event, Events
from replicator.flow.clock import SystemClock
from replicator.flow.settings import LimitSettings
from replicator.ports import Clock
from replicator.sites.bounds import DEFAULT_MAX_BLOB_BYTES
from replicator.sites.registry.settings import Login, RegistrySettings
from replicator.sites.registry.site import RegistrySite
from replicator.sites.timeouts import Timeouts
from tests.fakes.source import BytesSource


@asynccontextmanager
async def registry_site(
    url: str,
    capabilities: Mapping[str, bool | int | str] | None = None,
    *,
    seen: list[Event] | None = None,
    user: str = "",
    password: str = "",
    clock: Clock | None = None,
    redirects: Literal["same-scheme", "any"] = "same-scheme",
    max_blob_bytes: int = DEFAULT_MAX_BLOB_BYTES,
    kind: str = "",
    limits: LimitSettings | None = None,
    timeouts: Timeouts | None = None,
) -> AsyncIterator[RegistrySite]:
    """A site named "there", closed at the end; its events go to `seen`, docker's credentials are left alone.

    `capabilities` are set as in the config.
    """
    events = Events()
    if seen is not None:
        events.subscribe(seen.append)
    settings = RegistrySettings(
        "there",
        url,
        login=Login(user, lambda: password) if user else None,
        docker_config=False,
        proxy="",
        capabilities=capabilities or {},
        redirects=redirects,
        max_blob_bytes=max_blob_bytes,
        kind=kind,
        limits=limits or LimitSettings(),
        timeouts=timeouts or Timeouts(),
    )
    site = RegistrySite(settings, events=events, clock=clock or SystemClock())
    try:
        yield site
    finally:
        await site.aclose()


class CountedSource(BytesSource):
    """A source that knows how many of its readings are open: `open_now`."""

    open_now = 0

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        self.open_now += 1
        try:
            async with super().open(offset) as chunks:
                yield chunks
        finally:
            self.open_now -= 1
