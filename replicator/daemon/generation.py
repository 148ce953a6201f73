"""One config in force, with the sites and the engine built from it. A reload creates the next; runs keep theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from replicator.config.settings import Loaded, RunCommands
from replicator.policy.rule import Rule
from replicator.ports import Site
from replicator.runs.current import Run
from replicator.runs.hooks import RunHooks
from replicator.runs.wiring import Equipment, SiteKey, SitePool, build_engine, site_key, site_names


@dataclass(frozen=True)
class Chosen:
    """A config, and its rules as this agent runs them: only the destinations that it serves."""

    loaded: Loaded
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class RuleIdentity:
    """Equal for two generations where the rule's runs do the same."""

    rule: Rule
    sites: tuple[SiteKey, ...]
    commands: RunCommands | None


class Generation:
    """See the module. It closes when it has been replaced and the last run has left it."""

    def __init__(
        self, chosen: Chosen, equipment: Equipment, pool: SitePool, sites: Mapping[str, Site]
    ) -> None:
        self.loaded = chosen.loaded
        self.rules = chosen.rules
        self.sites = sites
        self.engine = build_engine(chosen.loaded, sites, equipment)
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
        """A generation that the caller holds. Raises ConfigError if a site cannot be opened; then none stays open."""
        return cls(chosen, equipment, pool, await pool.take(chosen.loaded, site_names(chosen.rules)))

    @property
    def destinations(self) -> set[str]:
        """Of all rules."""
        return {site for rule in self.rules for site in rule.destinations}

    def identity(self, rule: Rule) -> RuleIdentity:
        """What the runs of a rule depend on."""
        sites = tuple(site_key(self.loaded, name) for name in site_names([rule]))
        return RuleIdentity(rule, sites, self.loaded.commands.get(rule.name))

    async def note_stuck(self, rule: Rule, run: Run, problem: str) -> None:
        """Records that a run was ended for making no progress: the rule fails at its destinations until one succeeds."""
        await self.hooks.fail(rule, run.destinations, problem, run.started_at, operation="run the rule")

    def enter(self) -> None:
        """One more run uses it."""
        self._users += 1

    async def leave(self) -> None:
        """One user has left; the last one closes it."""
        self._users -= 1
        if not self._users:
            await self._pool.give_back(self.sites)
