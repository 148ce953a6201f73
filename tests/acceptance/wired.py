"""The real thing in one process: an engine, our registry client, and fake registries over HTTP at both ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from replicator.demo.images import BuiltImage, image, layer, load
from replicator.engine.content.spool import Spool
from replicator.engine.engine import Engine
from replicator.engine.result import DestinationResult
from replicator.events import Event, Events
from replicator.flow.clock import SystemClock
from replicator.flow.retry import Budget
from replicator.flow.settings import LimitSettings
from replicator.model.digest import Digest, algorithm, digest_of
from replicator.model.schema1 import signed_digest
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.sites.registry import uploads
from replicator.sites.registry.settings import Login, RegistrySettings
from replicator.sites.registry.site import RegistrySite
from replicator.sites.timeouts import Timeouts
from replicator.state.memory import MemoryState
from tests.fakes.registry import FakeRegistry
from tests.fakes.watched import WatchedStore

BLOB_BYTES = 600_000
"""More than two of the fake's chunks of 256 KiB."""
CHUNK_BYTES = 256 * 1024
BUDGET = Budget(attempts=5, seconds=20.0, wait_initial=0.001, wait_max=0.002)
UPLOADS = Budget(attempts=10, seconds=60.0, wait_initial=0.001, wait_max=0.002)
"""More attempts than `flow.patience.UPLOAD` has: where every third request dies, one upload of many would meet six in a row."""
USER, PASSWORD = "mirror", "not-to-be-told"
PATIENT = Timeouts()
SHORT = Timeouts(connect=2.0, first_byte=0.25, read=0.25, commit=0.25)
"""For what hangs; far above what an answer takes, for these tests share two cores with others."""
SHORT_FOR_UPLOADS = Timeouts(connect=2.0, first_byte=1.5, read=1.5, commit=1.5)
"""For uploads that hang: a POST whose answer came too late would leave a session that nobody can cancel."""
SHORT_BUT_FOR_UPLOADS = Timeouts(connect=2.0, first_byte=3.0, read=0.25, commit=0.25)
"""For what hangs beside uploads that do not: `first_byte` is also for the POST of an upload."""


class Wired:
    """A `source` with two images, `app:v1` and its neighbour `web:v1`, and the destinations of one rule.

    What a tag of a destination may ever lead to is what the source's tag ever led to: `put` notes it, and every
    change at a destination is held against it.
    """

    def __init__(
        self, source: FakeRegistry, targets: Mapping[str, FakeRegistry], *, with_login: bool
    ) -> None:
        self.source = source
        self.targets = dict(targets)
        self.wrong: list[str] = []
        self._with_login = with_login
        self.seen: list[Event] = []
        self.events = Events()
        self.events.subscribe(self.seen.append)
        self.clock = SystemClock()
        self.state = MemoryState(self.clock)
        self._right: dict[tuple[str, str], set[Digest]] = {}
        self._dangling = [fake.store.watch_dangling() for fake in targets.values()]
        for fake in targets.values():
            fake.store.watchers.append(self._watch)
        self.app = self.put("app", "v1", image("app", [layer("app", BLOB_BYTES), layer("app/small")]))
        self.web = self.put("web", "v1")

    @property
    def target(self) -> FakeRegistry:
        """The first destination."""
        return next(iter(self.targets.values()))

    @property
    def blob(self) -> Digest:
        """The large blob of `app`."""
        return self.app.manifest.blobs[1].digest

    def put(self, repository: str, tag: str, built: BuiltImage | None = None) -> BuiltImage:
        """Puts an image into the source."""
        built = built or image(f"{repository}:{tag}")
        self._right.setdefault((repository, tag), set()).add(built.digest)
        load(self.source.store, repository, tag, built)
        return built

    def tags(self, fake: FakeRegistry | None = None) -> dict[str, dict[str, Digest]]:
        """What a destination has."""
        store = (fake or self.target).store
        return {name: dict(content.tags) for name, content in store.repositories.items() if content.tags}

    @property
    def whole(self) -> dict[str, dict[str, Digest]]:
        """What a destination has that is in step."""
        return {
            name: dict(content.tags)
            for name, content in self.source.store.repositories.items()
            if content.tags
        }

    async def sync(
        self,
        *,
        spool: Path | None = None,
        timeouts: Timeouts | Mapping[str, Timeouts] = PATIENT,
        recheck: bool = False,
    ) -> dict[str, DestinationResult]:
        """One run, as a new process would do it but for the state; by destination. However it ends, it ends soon."""
        async with self.engine(spool=spool, timeouts=timeouts) as engine, asyncio.timeout(60):
            [result] = await engine.sync([self.rule], recheck=recheck)
        return {each.destination: each for each in result.destinations}

    @property
    def rule(self) -> Rule:
        """Everything to all destinations."""
        return Rule("rule", "source", tuple(self.targets), RepositorySelection((Glob.parse("**"),)))

    @asynccontextmanager
    async def engine(
        self,
        *,
        spool: Path | None = None,
        timeouts: Timeouts | Mapping[str, Timeouts] = PATIENT,
        limits: LimitSettings = LimitSettings(),  # noqa: B008 - frozen
    ) -> AsyncIterator[Engine]:
        """An engine over clients of its own; `timeouts` for all sites, or for these."""
        async with AsyncExitStack() as stack:
            sites = {"source": self.source, **self.targets}
            opened = {}
            for name, fake in sites.items():
                site = RegistrySite(
                    replace(self.settings(name, fake), limits=limits),
                    events=self.events,
                    clock=self.clock,
                    budget=BUDGET,
                    timeouts=timeouts if isinstance(timeouts, Timeouts) else timeouts.get(name, PATIENT),
                )
                stack.push_async_callback(site.aclose)
                opened[name] = site
            cache = Spool(spool, 1 << 30) if spool else None
            if cache is not None:
                stack.push_async_callback(cache.aclose)
            yield Engine(sites=opened, state=self.state, events=self.events, clock=self.clock, spool=cache)

    async def sync_one(
        self, timeouts: Timeouts | Mapping[str, Timeouts] = PATIENT, *, recheck: bool = False
    ) -> DestinationResult:
        """One run with the one destination."""
        [result] = (await self.sync(timeouts=timeouts, recheck=recheck)).values()
        return result

    def forget(self) -> None:
        """Forgets everything but the sites, as if the state had been deleted."""
        self.state = MemoryState(self.clock)

    def settings(self, name: str, fake: FakeRegistry) -> RegistrySettings:
        """How a fake is reached."""
        login = Login(USER, lambda: PASSWORD) if self._with_login else None
        return RegistrySettings(name, fake.url, login=login, docker_config=False, proxy="")

    async def must_heal(self) -> None:
        """Without faults, the next run ends where an undisturbed one would have."""
        for fake in (self.source, *self.targets.values()):
            fake.clear_faults()
        for result in (await self.sync()).values():
            assert result.outcome == "ok", result.failures
        for fake in self.targets.values():
            assert self.tags(fake) == self.whole

    def check(self) -> None:
        """Nothing was ever wrong at a destination, and nothing is left there."""
        assert [found for seen in self._dangling for found in seen] == []
        assert self.wrong == []
        for fake in self.targets.values():
            assert not fake.store.uploads
            for digest, blob in fake.store.blobs.items():
                assert digest_of(b"".join(blob.read()), algorithm(digest)) == digest
            for content in fake.store.repositories.values():
                for digest, manifest in content.manifests.items():
                    kind = algorithm(digest)
                    assert digest in {digest_of(manifest.body, kind), signed_digest(manifest.body, kind)}

    def _watch(self, store: WatchedStore, repository: str) -> None:
        for tag, digest in store.repositories[repository].tags.items():
            if digest not in self._right.get((repository, tag), set()):
                self.wrong.append(f"{repository}:{tag} is {digest}")


@asynccontextmanager
async def wired(
    *,
    source: FakeRegistry | None = None,
    target: FakeRegistry | None = None,
    others: Sequence[str] = (),
    with_login: bool = False,
) -> AsyncIterator[Wired]:
    """Registries and what is between them; the destinations are looked over at the end.

    They refuse nothing, so that only the order of writes keeps their tags whole.

    `source` and `target` where they are to have habits; `others` are further destinations; `with_login` logs in
    at all of them.
    """
    async with AsyncExitStack() as stack:
        # Uploads that broke begin again at once.
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(uploads, "ATTEMPTS", UPLOADS)
        hub = await stack.enter_async_context(source or FakeRegistry())
        store = WatchedStore(refuses_dangling=False)
        targets = {"target": await stack.enter_async_context(target or FakeRegistry(store=store))}
        for name in others:
            fake = FakeRegistry(store=WatchedStore(refuses_dangling=False))
            targets[name] = await stack.enter_async_context(fake)
        made = Wired(hub, targets, with_login=with_login)
        yield made
        made.check()


def only_app_failed(w: Wired, result: DestinationResult, site: str) -> str:
    """The cause, where `app:v1` failed because of that site, and nothing else did."""
    assert result.outcome == "partial", result.failures
    [failure] = result.failures
    assert (failure.site, failure.repository) == (site, "app")
    assert failure.operation
    assert w.tags() == {"web": {"v1": w.web.digest}}
    return f"{failure.reason}: {failure.cause}"
