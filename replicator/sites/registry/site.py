"""A registry as a site."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from yarl import URL

from replicator.events import Events
from replicator.flow.limits import SiteLimits
from replicator.flow.retry import DEFAULT_BUDGET, Budget
from replicator.ports import Capabilities, Clock, SharedPulls, SiteCheck
from replicator.sites.registry.capabilities import Knowledge
from replicator.sites.registry.check import check_registry
from replicator.sites.registry.context import Registry
from replicator.sites.registry.creations import Creations
from replicator.sites.registry.http import Timeouts, Transport
from replicator.sites.registry.listing import catalog_pages
from replicator.sites.registry.repository import RegistryRepository
from replicator.sites.registry.settings import RegistrySettings


class RegistrySite:
    """A registry over HTTP, as `ports.Site`. Connects when first asked for something.

    `timeouts` replaces those of the settings; `budget` is how often it asks: see `http.Transport`.

    Raises:
        ConfigError: the settings cannot be used; asks nobody for that.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        *,
        events: Events,
        clock: Clock,
        timeouts: Timeouts | None = None,
        budget: Budget = DEFAULT_BUDGET,
    ) -> None:
        knowledge = Knowledge(settings.name, settings.url, settings.capabilities, settings.kind)
        limits = SiteLimits(settings.name, settings.limits, events=events, clock=clock)
        self._limits = limits
        self._registry = Registry(
            site=settings.name,
            url=URL(settings.url, encoded=True),
            transport=Transport(
                settings,
                limits=limits,
                events=events,
                clock=clock,
                timeouts=timeouts,
                budget=budget,
                see=knowledge.see,
            ),
            knowledge=knowledge,
            events=events,
            clock=clock,
            has_login=settings.login is not None,
            max_blob_bytes=settings.max_blob_bytes,
            parallel_reads=settings.parallel_reads,
            written_as=settings.written_as,
            identity=settings.identity,
            creations=Creations(settings.create),
        )

    def __repr__(self) -> str:
        return f"<RegistrySite {self.name}>"

    @property
    def name(self) -> str:
        """The name in the config."""
        return self._registry.site

    @property
    def capabilities(self) -> Capabilities:
        """As preset for the host, seen in answers so far, and configured."""
        return self._registry.knowledge.capabilities

    def repositories(self) -> AsyncIterator[Sequence[str]]:
        """The repositories, a page at a time; see `listing.catalog_pages`."""
        return catalog_pages(self._registry)

    def repository(self, name: str) -> RegistryRepository:
        """A repository by name; asks nothing yet."""
        return RegistryRepository(self._registry, name)

    def refuses_name(self, repository: str) -> str | None:
        """Why registries of this vendor cannot hold a repository of that name; None where they can, or none is known."""
        vendor = self._registry.knowledge.vendor
        problem = vendor.names.problem(repository) if vendor is not None else None
        return f"{vendor.title} cannot hold it: {problem}" if vendor is not None and problem else None

    def set_bytes_per_second(self, rate: float | None) -> None:
        """Another limit from now on, read and written together; None is none."""
        self._limits.set_bytes_per_second(rate)

    def limit_to(self, share: float) -> None:
        """See `ports.SharesLimits`."""
        self._registry.transport.limit_to(share)

    def share_pulls(self, pulls: SharedPulls) -> None:
        """See `ports.SharesPulls`."""
        self._registry.transport.quota.share_pulls(pulls)

    def meet_ahead(self) -> None:
        """Sends the ping that the first request would wait for; see `ports.MeetsAhead`."""
        self._registry.transport.meet_ahead()

    def connect_ahead(self) -> None:
        """See `ports.ConnectsAhead`."""
        self._registry.transport.connect_ahead()

    async def check(self, *, repositories: Sequence[str] = (), push: str | None = None) -> SiteCheck:
        """Reaches the registry and says what works; see `check.check_registry`. Never raises a `SiteError`."""
        return await check_registry(self._registry, repositories=repositories, push=push)

    async def aclose(self) -> None:
        """Waits (seconds at most) for uploads being cancelled, then closes all connections."""
        await self._registry.cleanups.aclose()
        await self._registry.bulk.aclose()
        await self._registry.transport.aclose()
