"""Every condition a state file can be found in has an answer, and none is ever silently overwritten."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.dialects import sqlite
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable

from replicator.errors import StateError
from replicator.model.digest import digest_of
from replicator.ports import Missing, Pending, Placed, RunRow, Seen, TagBelief
from replicator.state import schema, statements, tables
from replicator.state.store import StoredState, open_state
from tests.fakes.clock import FakeClock

ONE = digest_of(b"one")
PLACED = Placed("rule", "fra", TagBelief("v1", ONE, ONE, "rule", 5.0), "app")
ROW = RunRow("rule", "fra", 1.0, 2.0, "ok", True, 1, 0, 0)


@asynccontextmanager
async def opened(path: Path, *, read_only: bool = False) -> AsyncIterator[StoredState]:
    state = await open_state(path, clock=FakeClock(), read_only=read_only, busy_seconds=0.05)
    try:
        yield state
    finally:
        await state.aclose()


async def fill(path: Path) -> None:
    async with opened(path) as state:
        state.begin("rule", "fra")
        state.record(PLACED)
        state.record(Seen("fra", "app", ONE))
        await state.close_run(ROW)


@contextmanager
def sql(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as another program sees it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def left_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def modes(*paths: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in paths}


def set_mode(path: Path, mode: int) -> None:
    path.chmod(mode)


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


def spoil(path: Path) -> None:
    """Overwrites the later half."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xa5" * (size - size // 2))


async def pragma(state: StoredState, setting: str) -> None:
    await state._database.run(lambda connection: connection.exec_driver_sql(f"PRAGMA {setting}"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "state.db"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture(params=[False, True], ids=["writing", "reading"])
def read_only(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# --- there, not there ---


async def test_what_was_recorded_is_there_after_a_restart(path: Path) -> None:
    await fill(path)
    async with opened(path) as state:
        assert await state.beliefs("fra", "app") == {"v1": PLACED.belief}
        assert [each.last_success for each in await state.standings()] == [2.0]
    assert left_in(path.parent).keys() == {"state.db"}


async def test_closing_makes_durable_what_was_only_recorded(path: Path) -> None:
    async with opened(path) as state:
        state.record(PLACED)
    async with opened(path) as state:
        assert await state.beliefs("fra", "app") == {"v1": PLACED.belief}


async def test_a_deleted_state_starts_empty(path: Path) -> None:
    await fill(path)
    shutil.rmtree(path.parent)
    async with opened(path) as state:
        assert await state.beliefs("fra", "app") == {}
        assert await state.standings() == []


async def test_an_empty_file_is_a_new_state(path: Path) -> None:
    put(path, b"")
    async with opened(path, read_only=True) as state:
        assert await state.standings() == []
    assert left_in(path.parent) == {"state.db": b""}
    await fill(path)


async def test_a_missing_folder_is_made_for_its_owner_alone(path: Path) -> None:
    await fill(path)
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_only_its_owner_can_read_the_state_wherever_it_lies(tmp_path: Path) -> None:
    set_mode(tmp_path, 0o755)
    async with opened(tmp_path / "state.db") as state:
        state.record(PLACED)
        await state.flush()
        found = modes(tmp_path, *(tmp_path / name for name in left_in(tmp_path)))
    assert found.pop(tmp_path.name) == 0o755
    assert found == dict.fromkeys(("state.db", "state.db-wal", "state.db-shm"), 0o600)


async def test_a_file_that_is_there_keeps_its_mode(path: Path) -> None:
    put(path, b"")
    set_mode(path, 0o640)
    await fill(path)
    assert modes(path) == {"state.db": 0o640}


async def test_the_odd_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "50% of? it's #1 größe" / "state.db"
    await fill(path)
    async with opened(path, read_only=True) as state:
        assert await state.beliefs("fra", "app") == {"v1": PLACED.belief}
    assert left_in(path.parent).keys() == {"state.db"}


# --- reading only ---


async def test_reading_where_there_is_no_state_makes_none(path: Path) -> None:
    async with opened(path, read_only=True) as state:
        assert await state.beliefs("fra", "app") == {}
        assert await state.standings() == []
        await state.flush()
    assert not path.parent.exists()


async def test_reading_leaves_everything_as_it_was(path: Path) -> None:
    await fill(path)
    before = left_in(path.parent)
    async with opened(path, read_only=True) as state:
        assert await state.beliefs("fra", "app") == {"v1": PLACED.belief}
        assert await state.whereabouts("fra", [ONE]) == {ONE: ["app"]}
    assert left_in(path.parent) == before


async def test_reading_sees_what_a_writer_beside_it_has_flushed(path: Path) -> None:
    async with opened(path) as writer, opened(path, read_only=True) as reader:
        assert await reader.beliefs("fra", "app") == {}
        writer.record(PLACED)
        await writer.flush()
        assert await reader.beliefs("fra", "app") == {"v1": PLACED.belief}


async def test_reading_waits_for_no_writer(path: Path) -> None:
    await fill(path)
    with sql(path) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM beliefs")
        async with opened(path, read_only=True) as state:
            assert await state.beliefs("fra", "app") == {"v1": PLACED.belief}


async def test_a_state_opened_for_reading_refuses_to_be_written(path: Path) -> None:
    await fill(path)
    async with opened(path, read_only=True) as state:
        with pytest.raises(StateError, match="reading only"):
            state.record(PLACED)
        with pytest.raises(StateError, match="reading only"):
            state.begin("rule", "fra")
        with pytest.raises(StateError, match="reading only"):
            await state.forget("fra", "app", [ONE])
        with pytest.raises(StateError, match="reading only"):
            await state.close_run(ROW)


async def test_a_closed_state_says_so(path: Path) -> None:
    async with opened(path) as state:
        pass
    await state.aclose()
    with pytest.raises(StateError, match=f"state {path}: is closed"):
        state.record(PLACED)
    with pytest.raises(StateError, match=f"state {path}: is closed"):
        await state.beliefs("fra", "app")


# --- schemas ---


def test_new_tables_are_a_new_schema() -> None:
    """Whoever changes the tables raises `SCHEMA`, and then writes down here what they look like."""
    ddl = "".join(
        str(CreateTable(table).compile(dialect=sqlite.dialect()))
        + "".join(sorted(str(CreateIndex(index)) for index in table.indexes))
        for table in tables.metadata.sorted_tables
    )
    assert (schema.SCHEMA, hashlib.sha256(ddl.encode()).hexdigest()[:16]) == (12, "e4b7af546185d319")


def test_no_placement_costs_a_walk_through_its_repository(tmp_path: Path) -> None:
    """A repository of 100,000 tags has as many; to end or keep one must not look at every belief."""
    statement = str(statements.END_PLACEMENT.compile(dialect=sqlite.dialect()))
    engine = create_engine(f"sqlite:///{tmp_path / 'made.db'}", poolclass=NullPool)
    tables.metadata.create_all(engine)
    with engine.connect() as connection:
        values = (1,) * statement.count("?")
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    assert any("beliefs_by_digest" in step[3] for step in plan)


def write_other_schema(path: Path, version: int) -> None:
    """A state as another version left it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sql(path) as old:
        old.execute("PRAGMA journal_mode = WAL")
        old.execute("CREATE TABLE beliefs (tag TEXT, recheck_at FLOAT)")
        old.execute("INSERT INTO beliefs VALUES ('v1', 5.0)")
        old.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        old.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize("version", [3, schema.SCHEMA + 1])
async def test_a_file_of_another_schema_is_renamed_and_replaced(
    path: Path, caplog: pytest.LogCaptureFixture, version: int
) -> None:
    write_other_schema(path, version)
    async with opened(path) as state:
        assert await state.beliefs("fra", "app") == {}
        state.record(PLACED)
    (told,) = caplog.messages
    assert str(path) in told
    assert "state.db.old" in told
    with sql(path.with_name("state.db.old")) as old:
        assert old.execute("SELECT tag FROM beliefs").fetchall() == [("v1",)]
    async with opened(path) as state:
        assert await state.beliefs("fra", "app") == {"v1": PLACED.belief}
    assert len(caplog.messages) == 1
    assert modes(path) == {"state.db": 0o600}


async def test_a_file_of_another_schema_reads_as_empty_and_stays(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_other_schema(path, 3)
    before = left_in(path.parent)
    async with opened(path, read_only=True) as state:
        assert await state.beliefs("fra", "app") == {}
        assert await state.standings() == []
    assert left_in(path.parent) == before
    assert "another version of replicator" in caplog.text


async def test_processes_that_replace_a_file_at_once_all_get_the_new_one(path: Path) -> None:
    write_other_schema(path, 3)
    rules = ["rule0", "rule1", "rule2", "rule3"]
    told = open_at_once(path, rules)
    assert sum("another version of replicator" in text for text in told) == 1
    async with opened(path) as state:
        assert [each.rule for each in await state.standings()] == rules
    with sql(path.with_name("state.db.old")) as old:
        assert old.execute("SELECT tag FROM beliefs").fetchall() == [("v1",)]


OPEN_AT_ONCE = """
import asyncio, logging, sys
from pathlib import Path
from replicator.flow.clock import SystemClock
from replicator.state.store import open_state
logging.basicConfig()
async def main():
    print("ready", flush=True)
    sys.stdin.read()
    state = await open_state(Path(sys.argv[1]), clock=SystemClock())
    state.begin(sys.argv[2], "fra")
    await state.aclose()
asyncio.run(main())
"""


def open_at_once(path: Path, rules: list[str]) -> list[str]:
    """What processes say that open the file at the same moment, each for a rule."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AT_ONCE, str(path), rule],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for rule in rules
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    return [process.communicate()[1] for process in processes]


async def test_processes_that_make_one_new_state_at_once_all_get_it(path: Path) -> None:
    rules = ["rule0", "rule1", "rule2", "rule3"]
    assert open_at_once(path, rules) == ["", "", "", ""]
    async with opened(path) as state:
        assert [each.rule for each in await state.standings()] == rules


# --- spoilt ---


@pytest.mark.parametrize(
    "content",
    [b"not a database at all, but long enough to look at " * 50, b"SQLite format 3\0" + b"\xff" * 4080],
)
async def test_what_is_no_database_is_named_and_left_alone(
    path: Path, content: bytes, *, read_only: bool
) -> None:
    put(path, content)
    with pytest.raises(StateError, match=rf"^state {path}: .*move the file away"):
        await open_state(path, clock=FakeClock(), read_only=read_only)
    assert left_in(path.parent) == {"state.db": content}


async def test_another_programs_database_is_left_alone(path: Path, *, read_only: bool) -> None:
    path.parent.mkdir(parents=True)
    with sql(path) as other:
        other.execute("CREATE TABLE bookmarks (url TEXT)")
    before = left_in(path.parent)
    with pytest.raises(StateError, match=rf"^state {path}: .*another program's"):
        await open_state(path, clock=FakeClock(), read_only=read_only)
    assert left_in(path.parent) == before


async def test_damage_found_later_is_named_as_well(path: Path) -> None:
    async with opened(path) as state:
        for number in range(3_000):
            state.record(Placed("rule", "fra", TagBelief(f"v{number}", ONE, ONE, "rule", 5.0), "app"))
    spoil(path)
    async with opened(path) as state:
        with pytest.raises(StateError, match=rf"^state {path}: read beliefs: .*move the file away"):
            await state.beliefs("fra", "app")


async def test_a_value_we_never_write_is_damage(path: Path) -> None:
    await fill(path)
    with sql(path) as other:
        other.execute("UPDATE beliefs SET digest = x'0102'")
    async with opened(path) as state:
        with pytest.raises(StateError, match=r"a digest of 2 bytes.*move the file away"):
            await state.beliefs("fra", "app")


# --- busy, full, forbidden ---


async def test_another_writer_is_waited_for_and_then_named(path: Path) -> None:
    async with opened(path) as state:
        with sql(path) as other:
            other.execute("BEGIN IMMEDIATE")
            state.record(PLACED)
            with pytest.raises(StateError, match=rf"^state {path}: write: another process is writing"):
                await state.flush()
            with pytest.raises(StateError, match=rf"^state {path}: close a run: another process is writing"):
                await state.close_run(ROW)
            other.execute("COMMIT")
        await state.close_run(ROW)
    async with opened(path) as state:
        assert await state.beliefs("fra", "app") == {"v1": PLACED.belief}


async def test_a_reader_that_keeps_the_journal_as_it_is_keeps_nobody_out(path: Path) -> None:
    # SQLite does not wait for the journal's kind to be changed; two processes that make one file meet there.
    await fill(path)
    with sql(path) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM beliefs").fetchone()
        async with opened(path) as state:
            assert await state.beliefs("fra", "app") == {"v1": PLACED.belief}
            other.execute("COMMIT")
            await state.close_run(ROW)


async def test_a_new_file_locked_by_another_is_not_waited_for_forever(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with sql(path) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateError, match=rf"^state {path}: open: another process is writing"):
            await open_state(path, clock=FakeClock(), busy_seconds=0.05)


async def test_a_full_disk_is_a_state_error_and_costs_nothing_recorded(path: Path) -> None:
    async with opened(path) as state:
        pages = await state._database.run(
            lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        )
        await pragma(state, f"max_page_count = {pages + 2}")
        for number in range(400):
            pending = Pending("app", f"v{number}", ONE, 5.0, 1, "x" * 900)
            state.record(Missing("rule", "fra", pending))
        with pytest.raises(StateError, match=rf"^state {path}: write: database or disk is full"):
            await state.flush()
        assert len(await state.pending("rule", "fra", "app")) == 400
        await pragma(state, "max_page_count = 1000000")
    async with opened(path) as state:
        assert len(await state.pending("rule", "fra", "app")) == 400


async def test_a_folder_that_cannot_be_made_is_a_state_error(tmp_path: Path) -> None:
    put(tmp_path / "folder" / "file", b"")
    path = tmp_path / "folder" / "file" / "state.db"
    with pytest.raises(StateError, match=rf"^state {path}: its folder cannot be made"):
        await open_state(path, clock=FakeClock())


async def test_a_file_that_cannot_be_opened_is_a_state_error(path: Path, *, read_only: bool) -> None:
    put(path / "file", b"")
    with pytest.raises(StateError, match=rf"^state {path}: open: unable to open"):
        await open_state(path, clock=FakeClock(), read_only=read_only)


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of root, whom no permission stops."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


async def test_a_forbidden_folder_is_a_state_error(path: Path, *, read_only: bool) -> None:
    await fill(path)
    path.parent.chmod(0)
    try:
        with nobody(), pytest.raises(StateError, match=rf"^state {path}: .*(denied|unable to open)"):
            await open_state(path, clock=FakeClock(), read_only=read_only)
    finally:
        path.parent.chmod(0o700)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        set_mode(Path(folder), 0o755)
        yield Path(folder) / "new" / "state.db"


async def test_a_file_that_cannot_be_written_is_refused_when_it_is_opened(public: Path) -> None:
    await fill(public)
    set_mode(public, 0o444)
    set_mode(public.parent, 0o777)
    before = left_in(public.parent)
    with nobody(), pytest.raises(StateError, match=rf"^state {public}: open: .*read-only.*set agent.state"):
        await open_state(public, clock=FakeClock())
    assert left_in(public.parent) == before


async def test_a_folder_that_cannot_be_written_is_refused_when_the_file_is_opened(public: Path) -> None:
    await fill(public)
    set_mode(public, 0o666)
    set_mode(public.parent, 0o555)
    before = left_in(public.parent)
    with nobody(), pytest.raises(StateError, match=rf"^state {public}: open: .*read-only.*set agent.state"):
        await open_state(public, clock=FakeClock())
    assert left_in(public.parent) == before


async def test_what_may_only_be_read_is_read(public: Path) -> None:
    await fill(public)
    set_mode(public, 0o444)
    set_mode(public.parent, 0o555)
    with nobody():
        async with opened(public, read_only=True) as state:
            assert await state.beliefs("fra", "app") == {"v1": PLACED.belief}


async def test_an_opening_that_is_cancelled_leaves_nothing_open(path: Path) -> None:
    for turns in range(60):
        opening = asyncio.create_task(open_state(path, clock=FakeClock()))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        try:
            state = await opening
        except asyncio.CancelledError:
            continue
        await state.aclose()


def test_a_state_left_open_keeps_no_process_from_ending(path: Path) -> None:
    script = """
import asyncio, sys
from pathlib import Path
from replicator.flow.clock import SystemClock
from replicator.state.store import open_state
async def main():
    state = await open_state(Path(sys.argv[1]), clock=SystemClock())
    raise SystemExit(7)
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        cwd=Path(__file__).parents[3],
        timeout=30,
        check=False,
        stderr=subprocess.DEVNULL,
    )
    assert ended.returncode == 7


async def test_beliefs_share_what_is_equal_in_memory(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as state:
        for number in range(3):
            belief = TagBelief(f"v{number}", ONE, ONE, "rule", 5.0, 4.0)
            state.record(Placed("rule", "fra", belief, "app"))
        await state.flush()
        found = (await state.beliefs("fra", "app")).values()
    assert len(found) == 3
    assert all(belief.source_digest is belief.digest for belief in found)
    assert len({id(belief.rule) for belief in found}) == 1
    assert len({id(belief.asked_at) for belief in found}) == 1


READS: dict[str, Callable[[StoredState], Awaitable[object]]] = {
    "read beliefs": lambda state: state.beliefs("fra", "app"),
    "read placements": lambda state: state.placements("fra", "app"),
    "read pending tags": lambda state: state.pending("rule", "fra", "app"),
    "read units": lambda state: state.units("rule"),
    "read repositories": lambda state: state.knows_repository("fra", "app"),
    "read whereabouts": lambda state: state.whereabouts("fra", [ONE]),
    "read creation times": lambda state: state.created([ONE]),
    "read listings": lambda state: state.listed("fra", "app"),
    "read standings": lambda state: state.standings(),
    "read repositories that are behind": lambda state: state.behind(),
    "read images": lambda state: state.facts([ONE]),
    "read moves": lambda state: state.moves("fra", "app", "v1"),
    "search": lambda state: state.unindexed(1),
    "read events": lambda state: state.events(),
    "read runs": lambda state: state.runs("rule", "fra"),
    "read refusals": lambda state: state.listing_refusals("fra", "app"),
    "read paused rules": lambda state: state.paused(),
    "read what was told": lambda state: state.told(),
}


async def test_a_read_that_fails_says_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path) as state:
        with closing(sqlite3.connect(path)) as other:
            for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                with suppress(sqlite3.Error):  # tables that belong to others
                    other.execute(f"DROP TABLE {name}")
        for operation, read in READS.items():
            with pytest.raises(StateError, match=rf"{re.escape(str(path))}: {operation}: "):
                await read(state)


async def test_no_more_unindexed_images_are_named_than_asked_for(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as state:
        for number in range(3):
            digest = digest_of(bytes([number]))
            belief = TagBelief(f"v{number}", digest, digest, "rule", 5.0)
            state.record(Placed("rule", "fra", belief, "app"))
        assert len(await state.unindexed(2)) == 2
        assert len(await state.unindexed(9)) == 3
