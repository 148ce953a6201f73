"""An agent that lives through a bad day: constant pushes, faults, reloads, kills. What it uses stays, nothing is lost.

REPLICATOR_SOAK_SECONDS says how long the pushes last; the lives and deaths take the first quarter of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import logging
import os
import random
import re
import signal
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from aiohttp import web

from replicator.demo.images import BuiltImage, image, index, layer, load
from replicator.model.digest import Digest, digest_of
from tests.acceptance.daemon import Daemon, Usage
from tests.acceptance.program import Program, rule
from tests.fakes import faults
from tests.fakes.process import free_port
from tests.fakes.registry import Action, Exchange, FakeRegistry
from tests.fakes.watched import WatchedStore
from tests.protocol.daemon.test_daemon_http_webhooks import V1, envelope, event

SECONDS: Final = float(os.environ.get("REPLICATOR_SOAK_SECONDS", "600"))
SETTLE_SECONDS: Final = 300.0
"""Within which all is in step when pushes and faults are over: hanging requests time out in a minute, and what has
failed again and again waits for its time."""
HOOK_TOKEN: Final = "hook-token"
REPOSITORIES: Final = tuple(f"platform/app{number}" for number in range(8))
MAX_TAGS: Final = 24
"""Of a repository."""
RESTLESS: Final = 0.25
"""The part of the time in which the agent is killed, ended and started again."""
MAX_THREADS: Final = 60
MAX_DESCRIPTORS: Final = 3 * 3 * 64 + 64
"""Three kinds of requests to three sites, and what is its own."""
QUIET_DESCRIPTORS: Final = 320
"""When nothing happens but a look every two seconds. aiohttp takes the connection that rested longest, so the looks keep
alive all that the source's three gates (64 each) ever opened; what rests at the destinations is closed."""
QUIET_SECONDS: Final = 90.0
"""Within which connections that nobody uses are closed."""

_log = logging.getLogger(__name__)


class Soak:
    """A hub that is pushed to, two destinations, and the agent between them."""

    def __init__(self, folder: Path, hub: FakeRegistry, targets: dict[str, FakeRegistry]) -> None:
        self.hub = hub
        self.targets = targets
        self.over = asyncio.Event()
        self._left_alive = asyncio.Event()
        self.random = random.Random(0)
        self.pushes = 0
        self.lives = 0
        self.usage: list[Usage] = []
        self.wrong: list[str] = []
        self._right: dict[tuple[str, str], set[Digest]] = {}
        self._dangling = [fake.store.watch_dangling() for fake in targets.values()]
        for fake in targets.values():
            fake.store.watchers.append(self._watch)
        self._program = Program(folder)
        self._url = f"http://127.0.0.1:{free_port()}"
        self.daemon = Daemon(self._program, folder / "agent.log", self._url)
        self._write_config(3)

    @property
    def fakes(self) -> Sequence[FakeRegistry]:
        return (self.hub, *self.targets.values())

    @property
    def dangling(self) -> list[str]:
        """Whatever was ever seen dangling."""
        return [found for seen in self._dangling for found in seen]

    @property
    def behind(self) -> list[str]:
        """What a destination lacks."""
        return [
            f"{name}: {repository}:{tag}"
            for name, fake in self.targets.items()
            for repository, content in self.hub.store.repositories.items()
            for tag, digest in content.tags.items()
            if repository not in fake.store.repositories
            or fake.store.repositories[repository].tags.get(tag) != digest
        ]

    async def moment(self, seconds: float) -> None:
        """Waits so long, or until it is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()

    # --- what goes on at the same time ---

    async def push(self) -> None:
        """New tags at first, and moved ones all the time; of some the agent is told."""
        async with aiohttp.ClientSession(self._url) as session:
            while not self.over.is_set():
                repository = self.random.choice(REPOSITORIES)
                known = len(self.hub.store.repositories[repository].tags) if self.pushes > 8 else 0
                number = (
                    known
                    if known < MAX_TAGS and self.random.random() < 0.2
                    else self.random.randrange(known or 1)
                )
                self._put(repository, f"v{number}")
                if self.random.random() < 0.5:
                    await self._tell(session, repository, f"v{number}")
                await self.moment(self.random.uniform(0.1, 0.5))

    async def disturb(self) -> None:
        """Faults, one place at a time."""
        while not self.over.is_set():
            fake = self.random.choice(self.fakes)
            fake.clear_faults()
            if self.random.random() < 0.05:
                action = self.random.choice((faults.answer(503), faults.reset_unanswered()))
                fake.fault(".*", "/v2/", action, times=None)
                await self.moment(self.random.uniform(2, 5))
                fake.clear_faults()
            else:
                self._fault(fake)
            await self.moment(self.random.uniform(0.1, 0.8))

    async def live(self) -> None:
        """Ends and kills the agent again and again; then leaves it alive, and only has it read its config."""
        until = time.monotonic() + SECONDS * RESTLESS
        while time.monotonic() < until:
            await self.moment(self.random.uniform(2, 8))
            await self.again(self.random.choice((signal.SIGTERM, signal.SIGKILL)))
        self._left_alive.set()
        while not self.over.is_set():
            await self.moment(self.random.uniform(2, 6))
            if self.random.random() < 0.3:
                (self._program.folder / "replicator.toml").write_text("[agent\n")
            else:
                self._write_config(self.random.choice((2, 3, 4)))
            self.daemon.send(signal.SIGHUP)
        self._write_config(2)
        self.daemon.send(signal.SIGHUP)

    async def quiet(self) -> Usage:
        """What it uses when connections that nobody needs any more are closed."""
        began = time.monotonic()
        while (usage := self.daemon.usage()).descriptors > QUIET_DESCRIPTORS:
            assert time.monotonic() - began < QUIET_SECONDS, usage
            await asyncio.sleep(0.5)
        return usage

    async def settled(self) -> float:
        """Seconds until all is in step at all destinations."""
        began = time.monotonic()
        while self.behind:
            assert time.monotonic() - began < SETTLE_SECONDS, (self.behind, self.daemon.log[-6000:])
            await asyncio.sleep(0.1)
        return time.monotonic() - began

    async def killed_in_the_midst(self) -> None:
        """One more death, when some of what was pushed is there and some is not."""
        arrived = asyncio.Event()

        def watch(store: WatchedStore, repository: str) -> None:
            if "late" in store.repositories[repository].tags:
                arrived.set()

        for fake in self.targets.values():
            fake.store.watchers.append(watch)
        for repository in REPOSITORIES:
            self._put(repository, "late")
        async with asyncio.timeout(SETTLE_SECONDS):
            await arrived.wait()
        await self.again(signal.SIGKILL)

    async def again(self, number: signal.Signals) -> None:
        """Ends the agent, and starts it again."""
        code = await self.daemon.end(number)
        assert code == (0 if number is signal.SIGTERM else -signal.SIGKILL), self.daemon.log[-4000:]
        await self.daemon.start()
        self.lives += 1

    async def visit(self) -> None:
        """Scrapes, looks at the page, and leaves in the middle of the events."""
        async with aiohttp.ClientSession(self._url) as session:
            while not self.over.is_set():
                for path in ("/metrics", "/", "/api/v1/runs", "/api/v1/rules", "/api/v1/events"):
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        async with asyncio.timeout(5), session.get(path) as answer:
                            await answer.content.readany()
                await self.moment(1)

    async def sample(self) -> None:
        """How much it uses, once it is left alive."""
        await self._left_alive.wait()
        while not self.over.is_set():
            for fake in self.fakes:
                fake.requests.clear()  # the log of a whole day would be this process's own leak
            self.usage.append(self.daemon.usage())
            await self.moment(max(0.2, SECONDS / 600))

    # --- inside ---

    def _put(self, repository: str, tag: str) -> None:
        self.pushes += 1
        seed = f"{repository}:{tag}:{self.pushes}"
        size = 400_000 if self.random.random() < 0.05 else 3_000
        built: BuiltImage = image(
            seed, [layer(f"base/{self.random.randrange(5)}", 50_000), layer(seed, size)]
        )
        if self.random.random() < 0.15:
            built = index([built, image(f"{seed}/arm")])
        self._right.setdefault((repository, tag), set()).add(built.digest)
        load(self.hub.store, repository, tag, built)

    async def _tell(self, session: aiohttp.ClientSession, repository: str, tag: str) -> None:
        digest = self.hub.store.repositories[repository].tags[tag]
        token = HOOK_TOKEN if self.random.random() < 0.9 else "forged"
        headers = {"Content-Type": V1, "Authorization": f"Bearer {token}"}
        body = envelope(event(repository=repository, tag=tag, digest=digest) | {"timestamp": _now()})
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(5), session.post("/webhooks/hub", data=body, headers=headers):
                pass

    def _fault(self, fake: FakeRegistry) -> None:
        at = self.random.randrange(4_000)
        action = self.random.choice(
            (
                faults.reset_unanswered(),
                faults.reset(at),
                faults.reset_upload(at),
                faults.lose_answer(),
                faults.answer_late(500),
                faults.truncate(at),
                faults.corrupt(at),
                faults.lose_session(),
                faults.delay(1),
                faults.answer(500),
                faults.answer(503),
                faults.answer(429, headers={"Retry-After": "1"}),
                _stall(self.random.uniform(1, 6)),
            )
        )
        method = self.random.choice((".*", "GET", "HEAD", "PUT", "POST|PATCH"))
        fake.fault(method, "", action, times=self.random.randint(1, 4), after=self.random.randrange(4))
        if self.random.random() < 0.02:
            fake.fault("GET|HEAD", "", faults.hang(), after=self.random.randrange(4))

    def _write_config(self, interval: int) -> None:
        sites = {"hub": self.hub.url, **{name: fake.url for name, fake in self.targets.items()}}
        hook = f'[webhook.hub]\nsite = "hub"\ntoken = "{HOOK_TOKEN}"\n'
        path = self._program.write_config(
            sites, rule(destinations=tuple(self.targets), more=f'interval = "{interval}s"') + hook
        )
        listen = f'[agent]\nlisten = "{self._url.removeprefix("http://")}"\n'
        path.write_text(path.read_text().replace("[agent]\n", listen, 1))

    def _watch(self, store: WatchedStore, repository: str) -> None:
        for tag, digest in store.repositories[repository].tags.items():
            if digest not in self._right.get((repository, tag), set()):
                self.wrong.append(f"{repository}:{tag} is {digest}")


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()


def _stall(seconds: float) -> Action:
    """Says nothing for a while, and then goes away."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await exchange.fake.released.wait()
        return await faults.reset_unanswered()(exchange)

    return act


@pytest.fixture
async def soak(tmp_path: Path) -> AsyncIterator[Soak]:
    def store() -> WatchedStore:
        return WatchedStore(refuses_dangling=False)

    async with FakeRegistry() as hub, FakeRegistry(store=store()) as fra, FakeRegistry(store=store()) as sin:
        soak = Soak(tmp_path, hub, {"fra": fra, "sin": sin})
        for repository in REPOSITORIES:
            soak._put(repository, "v0")
        try:
            yield soak
        finally:
            await soak.daemon.kill()


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + SETTLE_SECONDS + 120)
async def test_a_bad_day_leaves_nothing_behind_and_loses_nothing(soak: Soak, tmp_path: Path) -> None:
    await soak.daemon.start()
    async with asyncio.TaskGroup() as tasks:
        for going_on in (soak.push(), soak.disturb(), soak.live(), soak.visit(), soak.sample()):
            tasks.create_task(going_on)
        await soak.moment(SECONDS)
        soak.over.set()
    for fake in soak.fakes:
        fake.clear_faults()
    took = await soak.settled()
    quiet = await soak.quiet()
    await soak.killed_in_the_midst()
    await soak.settled()
    assert await soak.daemon.end(signal.SIGTERM) == 0
    state_bytes = _bytes(tmp_path, "state.db*")
    _report(soak, quiet, took, state_bytes)

    assert soak.dangling == []
    assert soak.wrong == []
    for fake in soak.targets.values():
        assert [d for d, blob in fake.store.blobs.items() if digest_of(b"".join(blob.read())) != d] == []
    told = soak.daemon.log
    assert not re.findall(
        r".*(?:Traceback|was destroyed|ResourceWarning|never awaited|never retrieved).*", told
    )
    assert _bytes(tmp_path / "cache", "**/*") == 0
    assert state_bytes < 1_000_000 + 2_000 * soak.pushes
    _check_flat(soak.usage)


def _bytes(folder: Path, pattern: str) -> int:
    """Of all files that match."""
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


def _check_flat(usage: Sequence[Usage]) -> None:
    """The second fifth of the time beside the last one."""
    fifth = len(usage) // 5
    early, late = usage[fifth : 2 * fifth], usage[-fifth:]
    memory = [statistics.median(one.memory_bytes for one in part) for part in (early, late)]
    assert memory[1] < memory[0] * 1.15 + 12_000_000, memory
    assert max(one.descriptors for one in usage) < MAX_DESCRIPTORS
    assert max(one.threads for one in usage) < MAX_THREADS


def _report(soak: Soak, quiet: Usage, took: float, state_bytes: int) -> None:
    fifth = max(1, len(soak.usage) // 5)
    parts = [soak.usage[start : start + fifth] for start in range(0, fifth * 5, fifth)]
    for name in (field.name for field in dataclasses.fields(Usage)):
        medians = [statistics.median(getattr(one, name) for one in part) for part in parts]
        largest = max(getattr(one, name) for one in soak.usage)
        _log.warning(
            "%s: medians of fifths %s, most %s, when quiet %s", name, medians, largest, getattr(quiet, name)
        )
    tags = sum(len(content.tags) for content in soak.hub.store.repositories.values())
    _log.warning(
        "%d pushes to %d tags, %d restarts, in step after %.1f s, state %d bytes",
        soak.pushes,
        tags,
        soak.lives,
        took,
        state_bytes,
    )
