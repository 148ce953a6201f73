"""SQLite answers as plain dictionaries do: whatever is told, however it is batched, reopened, or the clock jumps."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from replicator.model.digest import Digest, digest_of
from replicator.ports import (
    AcceptedEvent,
    CatalogSeen,
    Created,
    Entry,
    GoneAtDestination,
    Listed,
    Missing,
    Noted,
    Pending,
    Placed,
    Placement,
    RunRow,
    Seen,
    State,
    TagBelief,
    Unit,
    UnitSeen,
    Unlisted,
    Unpending,
)
from replicator.state.memory import MemoryState
from replicator.state.store import StoredState, open_state
from tests.fakes.clock import StillClock

pytestmark = pytest.mark.timeout(300)  # thousands of small transactions, on a machine that may be busy

NOW = 1_700_000_000.0
YEAR = 365 * 86_400.0

tags = st.sampled_from(["v1", "v2", "v3"])
digests = st.sampled_from([digest_of(text) for text in (b"one", b"two", b"three")])
rules = st.sampled_from(["rule", "another"])
sources = st.sampled_from(["a", "b"])
ages = st.sampled_from([0.0, 5.0, 50.0])
"""How long before now the source was asked: answers overtake each other."""


class StateMachine(RuleBasedStateMachine):
    """Tells both the same and compares all their answers.

    A belief is checked a moment after its source was asked, as in a run; a clock that jumps finds nothing unwritten,
    as a batch is compared by the clock of the moment.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = StillClock(NOW)
        self.memory = MemoryState(self.clock)
        self.sqlite: StoredState
        self.ended: set[Digest] = set()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def open(self) -> StoredState:
        return await open_state(Path(self.folder.name) / "state.db", clock=self.clock)

    @initialize()
    def start(self) -> None:
        self.sqlite = self.run(self.open())

    def teardown(self) -> None:
        try:
            self.agree()
            self.agree_when_written()
        finally:
            self.run(self.sqlite.aclose())
            self.loop.close()
            self.folder.cleanup()

    def record(self, entry: Entry) -> None:
        self.clock.advance(0.001)

        async def tell() -> None:
            self.memory.record(entry)
            self.sqlite.record(entry)

        self.run(tell())

    def both(self, act: Callable[[State], Coroutine[Any, Any, Any]]) -> None:
        async def acts() -> tuple[object, object]:
            return await act(self.memory), await act(self.sqlite)

        one, other = self.run(acts())
        assert one == other

    # --- what is told ---

    @rule(name=rules, tag=tags, digest=digests, age=ages, root=st.booleans())
    def place(self, name: str, tag: str, digest: Digest, age: float, *, root: bool) -> None:
        asked = self.clock.now() - age
        belief = TagBelief(tag, digest, digest, name, asked + 1, asked)
        placement = Placement(digest, "x", asked + 1, asked + 1) if root else None
        if digest in self.ended and not root:
            self.flush()  # a batch that leaves a digest and takes it again keeps its placement
        before = set(self.run(self.memory.placements("fra", "app"))) | ({digest} if root else set())
        self.record(Placed(name, "fra", belief, "app", placement))
        self.ended |= before - set(self.run(self.memory.placements("fra", "app")))

    @rule(gone=st.lists(tags, max_size=2), age=ages)
    def lose(self, gone: list[str], age: float) -> None:
        self.flush()
        self.record(GoneAtDestination("fra", "app", gone, self.clock.now() - age))

    @rule(
        name=rules,
        tag=tags,
        digest=st.none() | digests,
        age=ages,
        source=sources,
        failed=st.booleans(),
        held=st.booleans(),
    )
    def miss(
        self,
        name: str,
        tag: str,
        digest: Digest | None,
        age: float,
        source: str,
        *,
        failed: bool,
        held: bool,
    ) -> None:
        now = self.clock.now()
        failed = failed and not held
        error = "refused" if failed else ""
        hold = "archived" if held else ""
        pending = Pending(
            "app", tag, digest, now - 2 * age, int(failed), error, error, now, source, now - age, hold
        )
        self.record(Missing(name, "fra", pending))

    @rule(name=rules, tag=tags, age=ages)
    def unwant(self, name: str, tag: str, age: float) -> None:
        self.record(Unpending(name, "fra", "app", tag, self.clock.now() - age))

    @rule(source=sources, age=ages, complete=st.booleans(), counted=st.booleans(), count=st.integers(0, 9))
    def scan(self, source: str, age: float, count: int, *, complete: bool, counted: bool) -> None:
        asked = self.clock.now() - age
        at = asked if complete else None
        unit = Unit("rule", "fra", source, "app", at, asked, count, 0, 1, "", asked)
        self.record(UnitSeen(unit, counted))

    @rule(selected=st.sets(sources), age=ages)
    def list_catalog(self, selected: set[str], age: float) -> None:
        self.flush()
        self.record(CatalogSeen("rule", "fra", frozenset(selected), self.clock.now() - age))
        self.flush()

    @rule(digest=digests, repository=st.sampled_from(["a", "b", "c"]))
    def see(self, digest: Digest, repository: str) -> None:
        self.record(Seen("fra", repository, digest))
        self.record(Created(digest, 1.0))

    @rule(tag=tags, digest=digests, listed=st.booleans())
    def list_tag(self, tag: str, digest: Digest, *, listed: bool) -> None:
        self.record(
            Noted("fra", "app", Listed(tag, digest, "1")) if listed else Unlisted("fra", "app", [tag])
        )

    @rule(repository=st.sampled_from(["a", "b"]), digest=digests)
    def forget(self, repository: str, digest: Digest) -> None:
        self.both(lambda state: state.forget("fra", repository, [digest]))

    @rule(name=st.sampled_from(["e1", "e2", "e3"]), tag=st.none() | tags, age=ages)
    def accept(self, name: str, tag: str | None, age: float) -> None:
        self.clock.advance(0.001)
        now = self.clock.now()
        event = AcceptedEvent(f"{name}-{now}", "hub", "app", tag, None, now - age, now)
        self.both(lambda state: state.accept_events([event]))

    @rule(first=st.integers(0, 2))
    def answer(self, first: int) -> None:
        ids = [each.id for each in self.run(self.memory.events())][first:]
        self.both(lambda state: state.answer_events(ids))

    @rule(name=rules)
    def begin(self, name: str) -> None:
        async def begins() -> None:
            self.memory.begin(name, "fra")
            self.sqlite.begin(name, "fra")

        self.run(begins())

    @rule(
        complete=st.booleans(),
        narrowed=st.booleans(),
        outcome=st.sampled_from(["ok", "partial", "interrupted"]),
    )
    def close(self, outcome: Any, *, complete: bool, narrowed: bool) -> None:
        self.clock.advance(0.001)
        now = self.clock.now()
        row = RunRow("rule", "fra", now, now + 1, outcome, complete, 3, 2, 0, "", narrowed)
        self.both(lambda state: state.close_run(row))

    # --- what happens to it ---

    @rule()
    def flush(self) -> None:
        self.run(self.sqlite.flush())
        self.ended.clear()

    @rule()
    def reopen(self) -> None:
        self.run(self.sqlite.aclose())
        self.sqlite = self.run(self.open())

    @rule(passed=st.sampled_from([1.0, 3_600.0, 86_400.0, -30.0, -YEAR]))
    def move_the_clock(self, passed: float) -> None:
        self.flush()
        self.clock.advance(passed)

    # --- what they answer ---

    @rule()
    def agree(self) -> None:
        """Before it is written."""
        self.both(recorded)

    @rule()
    def agree_when_written(self) -> None:
        self.flush()
        self.both(recorded)
        self.both(written)


async def recorded(state: State) -> object:
    """What a state answers, of what may be in its batch."""
    known = await state.created([digest_of(text) for text in (b"one", b"two", b"three")])
    places = await state.whereabouts("fra", sorted(known))
    return [
        await state.beliefs("fra", "app"),
        await state.beliefs("fra", "app", ["v1"]),
        [await state.pending(name, "fra", "app") for name in ("rule", "another")],
        await state.pending("rule", "fra", "app", ["v2"]),
        await state.listed("fra", "app"),
        await state.events(),
        known,
        {digest: set(found) for digest, found in places.items()},
    ]


async def written(state: State) -> object:
    """What a state answers when its batch is empty."""
    placements = await state.placements("fra", "app")
    return [
        await state.standings(),
        await state.behind(),
        await state.units("rule"),
        placements,
    ]


TestStateMachine = StateMachine.TestCase
TestStateMachine.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
