"""One config in force, with the sites and the engine made from it. A reload makes the next; runs keep theirs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from replicator.config.build import Loaded
from replicator.daemon.hooks import RunHooks
from replicator.engine import Engine, Spool
from replicator.events import Events
from replicator.policy.rule import Rule
from replicator.ports import Clock, Site, State


@dataclass(frozen=True)
class Chosen:
    """A config, and its rules as this agent runs them: only the destinations that it serves."""

    loaded: Loaded
    rules: tuple[Rule, ...]


OpenSite = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Site]]]
"""Opens the site of one config's settings; yields it under its name."""


@dataclass(frozen=True)
class Equipment:
    """What outlives a reload."""

    state: State
    events: Events
    clock: Clock
    spool: Spool | None
    open_site: OpenSite


class SitePool:
    """Sites that generations share as long as their settings stay the same, closed after the last."""

    def __init__(self, open_site: OpenSite) -> None:
        self._open_site = open_site
        self._leases: list[_Lease] = []

    async def take(self, name: str, settings: object) -> Site:
        """The site of these settings: one that is open already, or a new one."""
        for lease in self._leases:
            if lease.name == name and lease.settings == settings:
                lease.users += 1
                return lease.site
        stack = contextlib.AsyncExitStack()
        own = settings[0] if isinstance(settings, tuple) else settings
        site = (await stack.enter_async_context(self._open_site(own)))[name]
        self._leases.append(_Lease(name, settings, site, stack))
        return site

    async def give_back(self, site: Site) -> None:
        """One user less."""
        for lease in self._leases:
            if lease.site is site:
                lease.users -= 1
                if not lease.users:
                    self._leases.remove(lease)
                    await lease.stack.aclose()
                return


@dataclass
class _Lease:
    name: str
    settings: object
    site: Site
    stack: contextlib.AsyncExitStack
    users: int = 1


class Generation:
    """See the module. It closes once it is retired and the last run has left it."""

    def __init__(
        self, chosen: Chosen, equipment: Equipment, pool: SitePool, sites: Mapping[str, Site]
    ) -> None:
        self.loaded = chosen.loaded
        self.rules = chosen.rules
        self.sites = sites
        self.engine = Engine(
            sites=sites,
            state=equipment.state,
            events=equipment.events,
            clock=equipment.clock,
            spool=equipment.spool,
            rules=chosen.loaded.rules,
        )
        self.hooks = RunHooks(
            chosen.loaded.commands,
            state=equipment.state,
            events=equipment.events,
            clock=equipment.clock,
        )
        self._pool = pool
        self._users = 1

    @classmethod
    async def open(cls, chosen: Chosen, equipment: Equipment, pool: SitePool) -> Generation:
        """A generation that is held by the caller. Raises ConfigError where a site cannot be made; then none is kept."""
        sites: dict[str, Site] = {}
        try:
            for name in sorted(_names(chosen.rules)):
                sites[name] = await pool.take(name, _site_identity(chosen.loaded, name))
        except BaseException:
            for site in sites.values():
                await pool.give_back(site)
            raise
        return cls(chosen, equipment, pool, sites)

    def identity(self, rule: Rule) -> object:
        """Equal for two generations where the rule's runs do the same."""
        sites = [_site_identity(self.loaded, name) for name in _names([rule])]
        return (rule, sites, self.loaded.commands.get(rule.name))

    def enter(self) -> None:
        """One run more."""
        self._users += 1

    async def leave(self) -> None:
        """One user less."""
        self._users -= 1
        if not self._users:
            for site in self.sites.values():
                await self._pool.give_back(site)


def _names(rules: Sequence[Rule]) -> list[str]:
    named = [site for rule in rules for site in (rule.source, *rule.mirrors, *rule.destinations)]
    return list(dict.fromkeys(named))


def _site_identity(loaded: Loaded, name: str) -> tuple[object, object]:
    return (loaded.sites[name], loaded.bandwidth.get(name))
