"""Who owns what: one agent at a time, for as long as its session stands."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import psycopg
import pytest

from replicator.errors import ConfigError, OwnershipLostError, StateError
from replicator.events.agent import TakenOver
from replicator.fleet import connections
from replicator.fleet.agents import set_draining
from replicator.fleet.ownership import _IS_MINE, Claims
from replicator.fleet.session import Session
from replicator.fleet.work import Work
from replicator.state.place import Claim
from replicator.state.postgres.database import PostgresDatabase
from tests.fleet.agents import FENCING, QUICK, LightAgent, joined, until
from tests.fleet.conftest import place
from tests.postgres import Database


def shard(number: int, rule: str = "apps", **more: object) -> Work:
    return Work(rule, ("fra",), "interval", shard=number, of=64, **more)  # type: ignore[arg-type]


def end_session(dsn: str, agent: str) -> None:
    """What the network or a kill does: the server ends the agent's session."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s",
            (f"replicator {agent}",),
        )


async def test_work_is_divided_and_each_is_done_once(shared: str) -> None:
    agents = [LightAgent(f"agent{number}") for number in range(3)]
    async with AsyncExitStack() as stack:
        for agent in agents:
            agent.gate.set()
            await stack.enter_async_context(joined(shared, agent))
        await agents[0].fleet.defer([shard(number) for number in range(60)])
        await until(lambda: sum(len(agent.did) for agent in agents) >= 60)
        done = sorted(work.shard or 0 for agent in agents for work in agent.did)
    assert done == list(range(60))


async def test_work_that_waits_takes_up_what_is_wanted_again(shared: str) -> None:
    agent = LightAgent("a")
    async with joined(shared, agent):
        await agent.fleet.defer([shard(1)])
        await until(lambda: len(agent.claims) == 1)
        await agent.fleet.defer([shard(1, whole=False, repositories={"app": ["1"]}, ticks=(1,))])
        await agent.fleet.defer([shard(1, whole=False, repositories={"app": ["2"], "web": None}, ticks=(2,))])
        agent.gate.set()
        await until(lambda: len(agent.did) == 2)
    assert agent.did[1].repositories == {"app": ["1", "2"], "web": None}
    assert agent.did[1].ticks == (1, 2)


async def test_an_agent_whose_session_ended_goes_on_if_nobody_took_its_work(shared: str) -> None:
    agent = LightAgent("a")
    async with joined(shared, agent):
        await agent.fleet.defer([shard(1)])
        await until(lambda: len(agent.claims) == 1)
        end_session(shared, "a")
        await agent.claims[0].confirm()
        agent.gate.set()
        await until(lambda: len(agent.did) == 1)
        assert not agent.claims[0].is_lost


async def test_an_agent_that_says_nothing_is_fenced_and_its_work_taken_over(shared: str) -> None:
    """It is frozen: its connection stands, so only the others can end what it owns."""
    frozen, other = LightAgent("frozen"), LightAgent("other")
    async with joined(shared, frozen, times=FENCING):
        await frozen.fleet.defer([shard(1)])
        await until(lambda: len(frozen.claims) == 1)
        with psycopg.connect(shared, autocommit=True) as connection:  # as if it had been silent for a minute
            connection.execute(
                "CREATE FUNCTION silence() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " IF new.name = 'frozen' THEN new.heartbeat := now() - interval '5 s'; END IF; RETURN new; END $$"
            )
            connection.execute(
                "CREATE TRIGGER silence BEFORE INSERT OR UPDATE ON fleet_agents FOR EACH ROW EXECUTE FUNCTION silence()"
            )
        other.gate.set()
        async with joined(shared, other, times=FENCING):
            await until(lambda: len(other.did) == 1)
            with pytest.raises(OwnershipLostError):
                await frozen.claims[0].confirm()
            assert any(isinstance(event, TakenOver) for event in other.events)
            assert other.did[0].takeovers == 1


async def test_rows_that_a_silent_agent_has_locked_are_free_when_its_sessions_are_ended(
    shared: str, database: Database
) -> None:
    """It is cut off while it sends: the server waits for the rest, without a limit, until somebody ends the session."""
    agent, row = LightAgent("a"), b"UPDATE fleet_facts SET at = now()"
    with psycopg.connect(shared, autocommit=True) as connection:
        connection.execute("INSERT INTO fleet_facts (site, key, value) VALUES ('fra', 'k', '{}')")
        connection.execute(
            "INSERT INTO fleet_agents (name, version, heartbeat, started)"
            " VALUES ('silent', '1', now() - interval '5 s', now())"
        )
        state = PostgresDatabase(place(database), claim=Claim("fleet", agent="silent"))
        await state.opened()
        silent = state._raw
        assert silent is not None
        silent.execute("SET idle_in_transaction_session_timeout = 0")
        silent.execute("BEGIN")
        silent.execute(row)
        connection.execute("SET lock_timeout = '20s'")
        async with joined(shared, agent, times=FENCING):
            await asyncio.to_thread(connection.execute, row)
        with pytest.raises(psycopg.Error):
            silent.execute("SELECT 1")
        assert await state.run(lambda again: again.exec_driver_sql("SELECT 1").scalar()) == 1
        await state.close()


async def test_the_name_of_an_agent_that_is_silent_is_free(shared: str) -> None:
    """Its host is gone, and the server does not know it yet."""
    gone = Session(shared, "a", QUICK, on_back=nothing)
    await gone.open()
    try:
        with psycopg.connect(shared, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO fleet_agents (name, version, heartbeat, started)"
                " VALUES ('a', '1', now() - interval '5 s', now())"
            )
        async with joined(shared, LightAgent("a"), times=FENCING):
            pass
    finally:
        await gone.aclose()


async def test_work_that_is_taken_over_takes_up_its_twin(shared: str) -> None:
    """The lost one cannot wait again beside one that waits with its lock: both become one."""
    with psycopg.connect(shared, autocommit=True) as connection:
        lost, agent = shard(1, recheck=True), LightAgent("a")
        async with joined(shared, agent, works=False):
            await agent.fleet.defer([lost])
            connection.execute("UPDATE procrastinate_jobs SET status = 'doing'")  # by an agent that is gone
            await agent.fleet.defer([shard(1, whole=False, repositories={"app": None})])
            agent.gate.set()
            agent.fleet.begin()
            await until(lambda: len(agent.did) == 1)
    assert agent.did[0].recheck
    assert agent.did[0].repositories == {"app": None}


async def test_a_job_of_one_that_woke_up_is_not_ended_by_it(shared: str) -> None:
    agent = LightAgent("a")
    async with joined(shared, agent):
        await agent.fleet.defer([shard(1)])
        await until(lambda: len(agent.claims) == 1)
        taken = agent.claims[0]
        with psycopg.connect(shared, autocommit=True) as connection:
            (number,) = connection.execute("SELECT id FROM procrastinate_jobs").fetchone() or ()
            connection.execute("DELETE FROM procrastinate_jobs")
            await agent.fleet.defer([shard(1)])
            end_session(shared, "a")
            with pytest.raises(OwnershipLostError):
                await taken.confirm()
            agent.gate.set()
            await until(lambda: len(agent.did) == 1)
            assert taken.job == number
            assert agent.claims[1].job != number


async def test_one_that_woke_up_leaves_the_locks_to_whoever_has_the_job_now(shared: str) -> None:
    agent, other = LightAgent("a"), LightAgent("b")
    async with joined(shared, agent):
        await agent.fleet.defer([shard(1)])
        await until(lambda: len(agent.claims) == 1)
        with psycopg.connect(shared, autocommit=True) as connection:
            connection.execute("DELETE FROM procrastinate_jobs")
        end_session(shared, "a")
        with pytest.raises(OwnershipLostError):
            await agent.claims[0].confirm()
        other.gate.set()
        async with joined(shared, other):
            await other.fleet.defer([shard(1)])
            await until(lambda: len(other.did) == 1)


async def test_a_job_is_taken_over_while_its_like_is_put_into_the_queue(shared: str) -> None:
    """The other's work is not to be seen until it is committed, and then there may be no second."""
    with psycopg.connect(shared) as another, psycopg.connect(shared, autocommit=True) as connection:
        agent = LightAgent("a")
        async with joined(shared, agent, works=False):
            await agent.fleet.defer([shard(1)])
            connection.execute("UPDATE procrastinate_jobs SET status = 'doing'")  # by an agent that is gone
            another.execute(
                "INSERT INTO procrastinate_jobs (queue_name, task_name, priority, lock, queueing_lock, args, status)"
                " SELECT queue_name, task_name, priority, lock, queueing_lock, args, 'todo' FROM procrastinate_jobs"
            )
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            await until(lambda: connection.execute(blocked).fetchone() == (1,))
            another.commit()
            agent.gate.set()
            agent.fleet.begin()
            await until(lambda: len(agent.did) == 1)
    assert agent.did[0].takeovers == 1


async def nothing() -> None:
    """What a session does when it is back."""


async def test_what_cannot_be_claimed_frees_nothing_that_another_job_has(shared: str) -> None:
    claims = Claims()
    first, second = (Session(shared, name, QUICK, on_back=nothing) for name in ("a", "b"))
    await first.open()
    await second.open()
    try:
        assert await claims.take(first, ["one"], 1, shared=["place"])
        with pytest.raises(StateError):
            await claims.take(first, ["no text of PostgreSQL's: \0"], 2, shared=["place"])
        assert not await second.try_lock("place")
        assert await claims.take(first, ["two"], 3, shared=["place"])
    finally:
        await first.aclose()
        await second.aclose()


async def test_a_job_that_ends_while_its_claim_is_taken_anew_leaves_no_lock(shared: str) -> None:
    claims = Claims()
    first = Session(shared, "a", QUICK, on_back=lambda: claims.retake(first))
    second = Session(shared, "b", QUICK, on_back=nothing)
    with psycopg.connect(shared, autocommit=True) as connection:
        row = connection.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, status) VALUES ('q', 't', 'doing') RETURNING id"
        ).fetchone()
    assert row is not None
    await first.open()
    await second.open()
    try:
        claim = await claims.take(first, ["one"], row[0])
        assert claim is not None
        ask = first.fetch

        async def fetch(query: str, *arguments: object) -> list[tuple[object, ...]]:
            answer = await ask(query, *arguments)
            if query == _IS_MINE:
                await claims.give_back(claim)
            return answer

        first.fetch = fetch  # type: ignore[method-assign]
        end_session(shared, "a")
        with pytest.raises(StateError):
            await first.alive()
        await first.wait()
        assert await second.try_lock("one")
    finally:
        await first.aclose()
        await second.aclose()


async def test_an_agent_that_is_drained_leaves_a_site_without_agents_to_another(shared: str) -> None:
    first, second = LightAgent("a", serves=("sgp",)), LightAgent("b", serves=("sgp",))
    async with joined(shared, first):
        await until(lambda: "to fra" in first.fleet._workers.queues)
        async with joined(shared, second):
            await set_draining(shared, "a", draining=True)
            await until(lambda: "to fra" in second.fleet._workers.queues)


async def test_an_agent_stops_though_the_database_does_not_let_its_job_end(shared: str) -> None:
    agent = LightAgent("a")
    async with asyncio.timeout(20):
        async with joined(shared, agent):
            await agent.fleet.defer([shard(1)])
            await until(lambda: len(agent.claims) == 1)
            async with await psycopg.AsyncConnection.connect(shared, autocommit=True) as connection:
                await connection.execute("ALTER TABLE procrastinate_jobs RENAME TO away")
    assert len(agent.did) == 1


async def test_a_look_that_is_taken_over_is_still_that_of_its_tick(shared: str) -> None:
    """Its commands run once: those who count its shards know it by the tick."""
    agent = LightAgent("a")
    async with joined(shared, agent, works=False):
        assert await agent.fleet.defer_tick(Work("apps", ("fra",), "interval"), "apps 1", 5_000)
        with psycopg.connect(shared, autocommit=True) as connection:
            connection.execute("UPDATE procrastinate_jobs SET status = 'doing'")  # by an agent that is gone
        agent.gate.set()
        agent.fleet.begin()
        await until(lambda: len(agent.did) == 1)
    assert (agent.did[0].takeovers, agent.did[0].ticks) == (1, (5_000,))


async def test_an_agent_of_another_version_whose_words_are_unknown_disturbs_nobody(shared: str) -> None:
    agent = LightAgent("a")
    with psycopg.connect(shared, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO fleet_agents (name, version, heartbeat, started, doing)"
            " VALUES ('newer', '9', now(), now(), '[{\"job\": 1}]')"
        )
    async with joined(shared, agent):
        await until(lambda: [each.name for each in agent.fleet.living] == ["a", "newer"])


async def test_an_agent_that_freezes_in_a_transaction_does_not_stop_the_others(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.5)
    first, second = LightAgent("a"), LightAgent("b")
    async with joined(shared, first, works=False), joined(shared, second, works=False):
        await first.fleet.defer([shard(1)])
        async with first.fleet._queue.connection() as frozen:
            await frozen.execute("SELECT 1 FROM procrastinate_jobs FOR UPDATE")
            async with asyncio.timeout(20):
                await second.fleet.defer([shard(1, recheck=True)])
            with pytest.raises(psycopg.Error):
                await frozen.execute("SELECT 1")


async def test_a_password_is_read_for_each_connection(shared: str) -> None:
    """While it cannot be read, the database is away."""
    agent, known, refused = LightAgent("a"), [shared], []

    def dsn() -> str:
        if not known:
            refused.append(True)
            raise ConfigError(["the file of the password cannot be read"])
        return known[0]

    async with joined(dsn, agent):
        await agent.fleet.defer([shard(1)])
        await until(lambda: len(agent.claims) == 1)
        known.clear()
        end_session(shared, "a")
        await until(lambda: bool(refused))
        assert not agent.fleet.is_up
        known.append(shared)
        await agent.claims[0].confirm()


async def test_two_agents_cannot_have_one_name(shared: str) -> None:
    async with joined(shared, LightAgent("a")):
        with pytest.raises(StateError, match="another agent that lives is named 'a'"):
            async with joined(shared, LightAgent("a")):
                pass


async def test_work_in_one_place_is_not_done_by_two_agents_at_once(shared: str) -> None:
    """Two rules that lead to one repository: their shards have a place in common."""
    first, second = LightAgent("a"), LightAgent("b")
    first.places = second.places = lambda work: [f"place {work.shard}"]
    async with joined(shared, first, jobs=1):
        await first.fleet.defer([shard(1, "apps")])
        await until(lambda: len(first.claims) == 1)
        second.gate.set()
        async with joined(shared, second):
            await second.fleet.defer([shard(1, "more"), shard(2, "more")])
            await until(lambda: len(second.did) == 1)
            assert second.did[0].shard == 2
            first.gate.set()
            await until(lambda: len(second.did) + len(first.did) == 3)


async def test_what_confirms_at_the_same_time_shares_the_questions(shared: str) -> None:
    agent = LightAgent("a")
    async with joined(shared, agent):
        await agent.fleet.defer([shard(1)])
        await until(lambda: len(agent.claims) == 1)
        claim, asked = agent.claims[0], 0
        ask = claim.session.fetch

        async def counted(query: str, *arguments: object) -> list[tuple[object, ...]]:
            nonlocal asked
            asked += query == "SELECT 1"
            return await ask(query, *arguments)

        claim.session.fetch = counted  # type: ignore[method-assign]
        async with asyncio.TaskGroup() as tasks:
            for _ in range(200):
                tasks.create_task(claim.confirm())
        assert asked == 2, "the first one's, and one that was asked after all the others called"
