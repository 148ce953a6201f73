"""One builder of sites, spool and engine, for a command that runs once and for the agent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from replicator.config.settings import Loaded
from replicator.errors import ReplicatorError
from replicator.events import Events, Warned
from replicator.policy.bandwidth import Bandwidth
from replicator.policy.rule import Rule
from replicator.ports import BlobClaims, Clock, Site, State
from replicator.sites.open import SiteSettings, open_site

if TYPE_CHECKING:
    from replicator.engine.content.spool import Spool
    from replicator.engine.engine import Engine

OpenSite = Callable[[SiteSettings], Site]
"""Opens a site; nothing is asked of it yet."""


class Equipment(msgspec.Struct, frozen=True):
    """What an engine needs. `spool` None: each destination reads the source by itself. `blob_claims`: those of a fleet."""

    state: State
    events: Events
    clock: Clock
    spool: Spool | None
    blob_claims: BlobClaims | None = None


class SiteKey(msgspec.Struct, frozen=True):
    """Two sites are the same if these are equal: name, settings, and bandwidth by time of day."""

    name: str
    settings: SiteSettings
    bandwidth: Bandwidth | None


class _Lease(msgspec.Struct, eq=False):
    key: SiteKey
    site: Site
    users: int = 1


class SitePool:
    """Open sites, shared by all users with the same settings, and closed after the last one.

    Args:
        events: gets the sites' events.
        clock: the sites' time.
        open_site: opens a site; None opens it by its settings.
    """

    def __init__(self, events: Events, clock: Clock, open_site: OpenSite | None = None) -> None:
        self._open = open_site or (lambda settings: _opened(settings, events, clock))
        self._leases: list[_Lease] = []

    async def take(self, loaded: Loaded, names: Sequence[str]) -> dict[str, Site]:
        """The sites of a config by name. Raises ConfigError if one cannot be opened; then none stays open."""
        taken: dict[str, Site] = {}
        try:
            for name in sorted(set(names)):
                taken[name] = self._take(site_key(loaded, name))
        except BaseException:
            await self.give_back(taken)
            raise
        return taken

    async def give_back(self, sites: Mapping[str, Site]) -> None:
        """Gives sites back. A site without users is closed, even if closing another one fails."""
        async with contextlib.AsyncExitStack() as stack:
            for lease in [lease for lease in self._leases if lease.site in sites.values()]:
                lease.users -= 1
                if not lease.users:
                    self._leases.remove(lease)
                    stack.push_async_callback(lease.site.aclose)

    def _take(self, key: SiteKey) -> Site:
        for lease in self._leases:
            if lease.key == key:
                lease.users += 1
                return lease.site
        site = self._open(key.settings)
        self._leases.append(_Lease(key, site))
        return site


def site_names(rules: Sequence[Rule]) -> list[str]:
    """The sites that rules name, each once."""
    named = [site for rule in rules for site in (rule.source, *rule.mirrors, *rule.destinations)]
    return list(dict.fromkeys(named))


def site_key(loaded: Loaded, name: str) -> SiteKey:
    """The key of a site of a config."""
    return SiteKey(name, loaded.sites[name], loaded.bandwidth.get(name))


def build_engine(loaded: Loaded, sites: Mapping[str, Site], equipment: Equipment) -> Engine:
    """The engine for the rules of a config."""
    from replicator.engine.engine import Engine  # noqa: PLC0415 - commands send their first requests before

    return Engine(
        sites=sites,
        state=equipment.state,
        events=equipment.events,
        clock=equipment.clock,
        spool=equipment.spool,
        rules=loaded.rules,
        blob_claims=equipment.blob_claims,
    )


def open_spool(
    loaded: Loaded, events: Events, stack: contextlib.AsyncExitStack, *, is_shared: bool = True
) -> Spool | None:
    """The spool, closed with the stack. None if it cannot be opened: blobs are streamed, by one connection each.

    A warning says so where several destinations would have shared what they read (`is_shared`).
    """
    from replicator.engine.content.spool import Spool  # noqa: PLC0415 - see `build_engine`

    try:
        spool = Spool(loaded.agent.cache_path, loaded.agent.cache_max_bytes)
    except ReplicatorError as error:
        if is_shared:
            events.emit(Warned(None, f"{error}; blobs are read once for each destination"))
        return None
    stack.push_async_callback(spool.aclose)
    return spool


def _opened(settings: SiteSettings, events: Events, clock: Clock) -> Site:
    return open_site(settings, events=events, clock=clock)
