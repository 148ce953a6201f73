"""An agent that does nothing by itself, for what is served of it: real triggers, runs, metrics and events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from zoneinfo import ZoneInfo

from replicator.config.secrets import Secret
from replicator.config.settings import AgentSettings, HMACSettings, HTTPSettings, Loaded, WebhookSettings
from replicator.daemon.runs import Runs
from replicator.daemon.status import RuleStatus
from replicator.daemon.triggers import Triggers, Want
from replicator.events import Events
from replicator.events.agent import WebhookSeen
from replicator.metrics import Metrics
from replicator.model.digest import Digest
from replicator.policy.lag import lag
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.ports import Standing
from replicator.ports.search import Holding, ImageFacts, Move, Query
from replicator.runs.why import Answer, Asker, parse_asked
from replicator.sites.registry.settings import RegistrySettings
from replicator.state.memory import MemoryState
from tests.fakes.clock import FakeClock
from tests.fakes.fleet import FakeSharing

TOKEN = "correct-horse"
HOOK_TOKEN = "battery-staple"
HMAC_KEY = "signing-key"


def literal(text: str) -> Secret:
    """A secret that stands in the config itself."""
    return Secret("literal", text, {})


def simple_rule(
    name: str = "platform", source: str = "hub", destinations: Sequence[str] = ("fra",), **more: object
) -> Rule:
    """A rule for all below `platform`."""
    selection = RepositorySelection(include=(Glob.parse("platform/**"),))
    return Rule(name, source, tuple(destinations), selection, interval=300.0, **more)  # type: ignore[arg-type]


def _webhooks() -> dict[str, WebhookSettings]:
    return {
        "hub": WebhookSettings("hub", "hub", token=literal(HOOK_TOKEN)),
        "signed": WebhookSettings("signed", "hub", hmac=HMACSettings("X-Signature", literal(HMAC_KEY))),
    }


def config(
    *,
    listen: tuple[str, int] = ("127.0.0.1", 0),
    http: HTTPSettings | None = None,
    webhooks: Mapping[str, WebhookSettings] | None = None,
    sites: Mapping[str, str] | None = None,
) -> Loaded:
    """A config of an agent called `here`. `sites`: URLs by name."""
    agent = AgentSettings(
        "here", ("fra",), Path("/nowhere/state.db"), Path("/nowhere/cache"), 0, listen, ZoneInfo("UTC")
    )
    return Loaded(
        agent=agent,
        sites={name: RegistrySettings(name, url) for name, url in (sites or {}).items()},
        rules=(),
        warnings=(),
        files=(),
        effective={},
        http=http or HTTPSettings(token=literal(TOKEN)),
        webhooks=_webhooks() if webhooks is None else webhooks,
    )


class FakeIndex:
    """`ports.search.ImageIndex` of what a test puts there; a query only matches by repository, tag and words."""

    def __init__(self) -> None:
        self.holdings: list[Holding] = []
        self.images: dict[Digest, ImageFacts] = {}
        self.history: list[Move] = []

    async def search(self, query: Query, limit: int) -> Sequence[Holding]:
        wanted = [query.repository.replace("[", "").replace("]", ""), *query.words]
        return [each for each in self.holdings if all(word in each.repository for word in wanted)][:limit]

    async def facts(self, digests: Sequence[Digest]) -> Mapping[Digest, ImageFacts]:
        return {digest: self.images[digest] for digest in digests if digest in self.images}

    async def moves(self, destination: str, repository: str, tag: str) -> Sequence[Move]:
        return [
            each
            for each in self.history
            if (each.destination, each.repository, each.tag) == (destination, repository, tag)
        ]

    async def unindexed(self, limit: int) -> Sequence[Holding]:
        return self.holdings[:limit]


class FakeAgent:
    """`daemon.http.agent.Agent`. Tests set what it reports."""

    def __init__(self, *rules: Rule, loaded: Loaded | None = None) -> None:
        self.config = loaded or config()
        self.clock = FakeClock()
        self.events = Events()
        self.runs = Runs()
        self.state = MemoryState(self.clock)
        self.paused: set[str] = set()
        self.next_runs: dict[str, float] = {}
        self.backing_off: dict[str, dict[str, float]] = {}
        self.untrusted: dict[str, dict[str, str]] = {}
        """By destination, tags with reasons."""
        self.known: list[Standing] = []
        self.index = FakeIndex()
        self.sharing: FakeSharing | None = None
        self.problem: str | None = None
        self.problems: list[str] = []
        self.started_at = self.clock.now() - 3600
        self._rules = rules or (simple_rule(),)
        self.triggers = Triggers(wake=lambda: None, is_paused=self.paused.__contains__)
        self.triggers.set_rules(self._rules)
        self.metrics = Metrics(self._rules, self.standings)
        self.events.subscribe(self.metrics)

    @property
    def rules(self) -> Sequence[RuleStatus]:
        return [
            RuleStatus(
                rule,
                rule.name in self.paused,
                self.next_runs.get(rule.name),
                self.backing_off.get(rule.name, {}),
                self.untrusted,
            )
            for rule in self._rules
        ]

    def wanted(self, rule: str, destination: str) -> Want | None:
        """What waits to be run there."""
        return self.triggers._wants.get((rule, destination))

    def standings(self) -> Sequence[tuple[Standing, float]]:
        intervals = {rule.name: rule.interval for rule in self._rules}
        return [(each, lag(each, intervals.get(each.rule), self.clock.now())) for each in self.known]

    async def why(self, reference: str, at: str | None, *, fresh: bool) -> Answer:
        """From the state alone: there are no sites here that could be asked."""
        if at is not None and at not in self.config.sites:
            raise ValueError(f"{at}: unknown site")
        asked = parse_asked(reference, {name: each.url for name, each in self.config.sites.items()})
        return await Asker(self._rules, self._rules, self.state, self.index, self.clock.now).answer(asked, at)

    async def pause(self, rule: str) -> None:
        self.paused.add(rule)

    async def resume(self, rule: str) -> None:
        self.paused.discard(rule)

    def health(self) -> str | None:
        return self.problem

    def ready(self) -> Sequence[str]:
        return self.problems

    @contextmanager
    def webhooks(self) -> Iterator[Callable[[], dict[str, int]]]:
        """Counts what becomes of webhooks from now on, by outcome."""
        counts: dict[str, int] = {}

        def count(event: object) -> None:
            if isinstance(event, WebhookSeen):
                counts[event.outcome] = counts.get(event.outcome, 0) + 1

        self.events.subscribe(count)
        yield lambda: counts
