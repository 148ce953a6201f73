"""`serve` inside a test: any store, any layout, and what was told of each request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.ports import Clock, ObjectStore
from replicator.serve.answered import Answered
from replicator.serve.content import Content, LayoutSite
from replicator.serve.server import Listener, RegistryServer
from replicator.sites.layouts.distribution.site import DistributionSite
from replicator.sites.layouts.oci.site import OciSite


def layout_site(layout: str, store: ObjectStore) -> LayoutSite:
    """A site over the store."""
    if layout == "distribution":
        return DistributionSite(store, events=Events())
    return OciSite(store, events=Events())


@dataclass
class Served:
    """A registry that is being served.

    Attributes:
        site: what is served, for writing to it.
        url: where.
        answered: what was told of requests.
        sent: bytes told of, by operation.
        reported: failures told of.
    """

    site: LayoutSite
    url: str = ""
    client: aiohttp.ClientSession = field(init=False)
    answered: list[Answered] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    reported: list[Exception] = field(default_factory=list)
    server: RegistryServer = field(init=False)

    @property
    def under_way(self) -> int:
        """Requests that are being answered."""
        return self.server.under_way

    async def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        """What is answered; keywords are headers, with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.request(
            method, f"{self.url}{path}", headers=named, allow_redirects=False
        ) as got:
            return Reply(got.status, got.headers, await got.read())

    async def head(self, path: str, **headers: str) -> Reply:
        """The same without a body."""
        return await self.get(path, "HEAD", **headers)


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's value."""
        import json  # noqa: PLC0415 - a property calls it

        return json.loads(self.body)

    @property
    def code(self) -> tuple[int, str]:
        """Status and the spec's error code."""
        return self.status, self.json["errors"][0]["code"]


class _Audience:
    def __init__(self, served: Served) -> None:
        self._served = served

    def sent(self, operation: str, count: int) -> None:
        self._served.sent[operation] = self._served.sent.get(operation, 0) + count

    def answered(self, answered: Answered) -> None:
        self._served.answered.append(answered)


@asynccontextmanager
async def serving(
    site: LayoutSite,
    *,
    clock: Clock | None = None,
    expose: Callable[[str], tuple[bytes, str]] | None = None,
    connector: aiohttp.BaseConnector | None = None,
    **listener: Any,
) -> AsyncIterator[Served]:
    """Serves on a free port of loopback; `listener` are fields of `Listener`."""
    served = Served(site)

    def report(_operation: str, error: Exception) -> None:
        served.reported.append(error)

    server = RegistryServer(
        Content(site, clock=clock or SystemClock()), audience=_Audience(served), report=report, expose=expose
    )
    served.server = server
    async with (
        server.listening(Listener("127.0.0.1", 0, **listener)) as served.url,
        aiohttp.ClientSession(connector=connector, auto_decompress=False) as served.client,
    ):
        yield served
