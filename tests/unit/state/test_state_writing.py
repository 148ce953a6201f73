"""When what was recorded gets written, and what becomes of it if that fails, is cancelled or killed."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from replicator.errors import StateError
from replicator.model.digest import digest_of
from replicator.ports import Listed as ListedTag
from replicator.ports import Missing, Noted, Pending, Placed, RunRow, Seen, TagBelief
from replicator.ports.search import ImageFacts, ImageSeen
from replicator.state import store
from replicator.state.place import Place
from replicator.state.store import FLUSH_SECONDS, FLUSH_SIZE, StoredState, open_state
from tests.fakes.clock import FakeClock

ONE, TWO = digest_of(b"one"), digest_of(b"two")


class StandingClock(FakeClock):
    """Nobody who sleeps wakes before the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.wake = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.wake.wait()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@asynccontextmanager
async def opened(path: Place, clock: FakeClock | None = None) -> AsyncIterator[StoredState]:
    # not 0: who looks from outside holds the file for a moment when it is opened
    state = await open_state(path, clock=clock or StandingClock(), busy_seconds=1.0)
    try:
        yield state
    finally:
        await state.aclose()


def placed(tag: str, repository: str = "app") -> Placed:
    return Placed("rule", "fra", TagBelief(tag, ONE, ONE, "rule", 5.0), repository)


def durable(path: Path) -> int:
    """How many tags the file has, as another process sees it."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as other:
        count = other.execute("SELECT count(*) FROM beliefs").fetchone()[0]
        assert isinstance(count, int)
        return count


async def until_durable(path: Path, count: int) -> None:
    async with asyncio.timeout(20):
        while durable(path) != count:  # noqa: ASYNC110  a file gives no signal
            await asyncio.sleep(0)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def refuse_writes(state: StoredState, *, refuse: bool = True) -> None:
    setting = f"PRAGMA query_only = {'ON' if refuse else 'OFF'}"
    await state._database.run(lambda connection: connection.exec_driver_sql(setting))


# --- when ---


async def test_a_little_is_written_after_a_second(path: Path) -> None:
    clock = StandingClock()
    async with opened(path, clock) as state:
        state.record(placed("v1"))
        await turns(50)
        assert durable(path) == 0
        assert clock.slept == [FLUSH_SECONDS]
        clock.wake.set()
        await until_durable(path, 1)


async def test_much_is_written_at_once(path: Path) -> None:
    async with opened(path) as state:
        for number in range(FLUSH_SIZE):
            state.record(placed(f"v{number}"))
        await until_durable(path, FLUSH_SIZE)


async def test_saying_the_same_again_takes_no_memory(path: Path) -> None:
    async with opened(path) as state:
        for _ in range(50):
            state.record(placed("v1"))
            state.record(Seen("fra", "app", ONE))
            state.record(Noted("fra", "app", ListedTag("v1", ONE, "1")))
            state.record(Missing("rule", "fra", Pending("app", "v2", ONE, 5.0)))
        assert state._batch.size == 5


async def test_recording_is_taken_up_again_after_a_pause(path: Path) -> None:
    async with opened(path, FakeClock()) as state:
        for count in range(1, 4):
            state.record(placed(f"v{count}"))
            await until_durable(path, count)


# --- failing ---


async def test_a_write_that_fails_loses_nothing_and_flush_says_so(path: Path) -> None:
    async with opened(path) as state:
        state.record(placed("v1"))
        await refuse_writes(state)
        with pytest.raises(StateError, match=rf"^state {path}: write: "):
            await state.flush()
        state.record(placed("v2"))
        assert set(await state.beliefs("fra", "app")) == {"v1", "v2"}
        await refuse_writes(state, refuse=False)
        await state.flush()
        assert durable(path) == 2


async def test_the_later_word_wins_also_over_one_that_had_to_be_put_back(path: Path) -> None:
    async with opened(path) as state:
        state.record(Missing("rule", "fra", Pending("app", "v1", ONE, 5.0)))
        state.record(placed("v2"))
        state.record(Seen("fra", "app", ONE))
        await refuse_writes(state)
        with pytest.raises(StateError):
            await state.flush()
        state.record(placed("v1"))
        state.record(Missing("rule", "fra", Pending("app", "v1", TWO, 9.0)))
        await state.forget("fra", "app", [ONE])
        await refuse_writes(state, refuse=False)
    async with opened(path) as state:
        assert await state.pending("rule", "fra", "app") == {"v1": Pending("app", "v1", TWO, 9.0)}
        assert set(await state.beliefs("fra", "app")) == {"v1", "v2"}
        assert await state.whereabouts("fra", [ONE]) == {}


async def test_the_background_tries_again_and_complains_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path, FakeClock()) as state:
        await refuse_writes(state)
        for number in range(FLUSH_SIZE):
            state.record(placed(f"v{number}"))
        while not caplog.records:  # noqa: ASYNC110  nor does a log
            await asyncio.sleep(0)
        await turns(500)
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        await refuse_writes(state, refuse=False)
        await until_durable(path, FLUSH_SIZE)
        await state.flush()


async def test_a_file_that_refuses_is_left_in_peace_for_a_while(path: Path) -> None:
    clock = StandingClock()
    async with opened(path, clock) as state:
        await refuse_writes(state)
        for number in range(FLUSH_SIZE):
            state.record(placed(f"v{number}"))
        while len(clock.slept) < 2:  # noqa: ASYNC110  a clock gives no signal
            await asyncio.sleep(0)
        for number in range(FLUSH_SIZE):
            state.record(placed(f"w{number}"))
        for _ in range(3):  # each takes its turn behind whatever was tried meanwhile
            await turns(50)
            await state.knows_repository("fra", "other")
        assert clock.slept == [FLUSH_SECONDS] * 2
        await refuse_writes(state, refuse=False)


async def test_a_run_whose_row_cannot_be_written_was_not_closed(path: Path) -> None:
    row = RunRow("rule", "fra", 1.0, 2.0, "ok", complete_look=True, in_step=1, held=0, failed=0)
    async with opened(path) as state:
        state.record(placed("v1"))
        await refuse_writes(state)
        with pytest.raises(StateError, match=rf"^state {path}: close a run: "):
            await state.close_run(row)
        await refuse_writes(state, refuse=False)
        assert await state.runs("rule", "fra") == []
        assert await state.standings() == []
        await state.close_run(row)
        assert await state.runs("rule", "fra") == [row]


async def test_closing_that_cannot_write_says_so_and_closes(path: Path) -> None:
    state = await open_state(path, clock=StandingClock())
    state.record(placed("v1"))
    await refuse_writes(state)
    with pytest.raises(StateError, match=rf"^state {path}: write: "):
        await state.aclose()
    with pytest.raises(StateError, match="is closed"):
        await state.beliefs("fra", "app")


async def test_memory_is_bounded_while_the_file_cannot_be_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_SIZE", 10)
    async with opened(path) as state:
        for number in range(9):
            state.record(placed(f"v{number}"))
        assert state._batch.size == 10
        with pytest.raises(StateError, match=rf"^state {path}: .*4 entries were left out"):
            await state.flush()
        await state.flush()
        assert durable(path) == 5


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_names_that_are_no_text_spoil_nothing_beside_them(
    kind: str, places: Callable[[str], Place]
) -> None:
    async with opened(places(kind)) as state:
        for text in ("\udcff", "v\ud800", "v\0"):
            state.record(placed(text))
            state.record(placed("v1", repository=text))
            state.record(Missing("rule", "fra", Pending("app", text, ONE, 5.0)))
            state.record(Noted("fra", "app", ListedTag("v1", ONE, text)))
            state.record(Seen("fra", text, ONE))
        odd = {"a\0b": "c\0d\ud800"}
        state.record(ImageSeen(ImageFacts(ONE, 1e300, "x\0", ("l\0",), odd, ((TWO, 2**70),), odd)))
        state.record(placed("größe"))
        state.record(Missing("rule", "fra", Pending("app", "v2", ONE, 5.0, 1, "no \udcff\0" + "x" * 5_000)))
        await state.flush()
        assert set(await state.beliefs("fra", "app")) == {"größe"}
        assert await state.whereabouts("fra", [ONE]) == {}
        error = (await state.pending("rule", "fra", "app"))["v2"].error
        assert (await state.facts([ONE]))[ONE].labels == {"a\ufffdb": "c\ufffdd?"}
    assert error.startswith("no ?\ufffdx")
    assert len(error) == 1_000


# --- cancelled, killed ---


async def test_a_cancelled_flush_is_all_or_nothing_and_loses_nothing(path: Path) -> None:
    async with opened(path) as state:
        for cut in range(40):
            before = durable(path)
            for number in range(20):
                state.record(placed(f"{cut}-{number}"))
            flush = asyncio.create_task(state.flush())
            await turns(cut)
            flush.cancel()
            await asyncio.wait([flush])
            assert durable(path) - before in {0, 20}
            assert len(await state.beliefs("fra", "app")) == 20 * (cut + 1)
            await state.flush()
            assert durable(path) == 20 * (cut + 1)


async def test_a_cancelled_read_harms_no_other(path: Path) -> None:
    async with opened(path) as state:
        state.record(placed("v1"))
        await state.flush()
        for cut in range(30):
            read = asyncio.create_task(state.beliefs("fra", "app"))
            other = asyncio.create_task(state.whereabouts("fra", [ONE]))
            await turns(cut)
            read.cancel()
            await asyncio.wait([read])
            assert await other == {}
            assert set(await state.beliefs("fra", "app")) == {"v1"}


async def test_what_fails_for_nobody_any_more_is_no_traceback(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as state:
        broken = sqlite3.connect(path)
        broken.execute("DROP TABLE beliefs")
        broken.close()
        read = asyncio.create_task(state.beliefs("fra", "app"))
        await turns(1)
        read.cancel()
        await asyncio.wait([read])
        with pytest.raises(StateError):
            await state.beliefs("fra", "app")  # which waits for the other
        del read
        gc.collect()  # asyncio tells when the task goes
    assert "never retrieved" not in caplog.text


async def test_a_cancelled_closing_closes_and_saves(path: Path) -> None:
    for cut in range(1, 20):
        state = await open_state(path, clock=StandingClock())
        state.record(placed(f"v{cut}"))
        end = asyncio.create_task(state.aclose())
        await turns(cut)
        end.cancel()
        await asyncio.wait([end])
        assert durable(path) == cut
        with pytest.raises(StateError, match="is closed"):
            await state.beliefs("fra", "app")


WRITE_FOREVER = """
import asyncio, itertools, sys
from pathlib import Path
from replicator.flow.clock import SystemClock
from replicator.model.digest import digest_of
from replicator.ports import TagBelief, Placed
from replicator.state.store import open_state
async def main():
    state = await open_state(Path(sys.argv[1]), clock=SystemClock())
    for number in itertools.count():
        for repository in range(50):
            belief = TagBelief("v1", digest_of(b"one"), digest_of(b"one"), "rule", float(number))
            state.record(Placed("rule", "fra", belief, f"app{repository}"))
        await state.flush()
        print(number, flush=True)
asyncio.run(main())
"""


def kill_while_writing(path: Path, batches: int) -> int:
    """Kills a writer after some batches; the last that it knew to be durable."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_FOREVER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout is not None
        for _ in range(batches):
            process.stdout.readline()
        process.kill()
        return batches - 1 + len(process.stdout.readlines())


async def test_a_killed_writer_leaves_whole_batches(path: Path) -> None:
    for batches in (1, 7, 20):
        last = kill_while_writing(path, batches)
        async with opened(path) as state:
            found = {(await state.beliefs("fra", f"app{each}"))["v1"].checked_at for each in range(50)}
        assert len(found) == 1
        assert found.pop() >= last
