"""Repositories with much to copy: jobs of their own, and never two writers of one repository."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from replicator.daemon.app import App
from replicator.daemon.sharing.splitting import Much, Splits, redirected
from replicator.demo.images import image, layer
from replicator.demo.images import load as put
from replicator.errors import OwnershipLostError
from replicator.events.agent import SplitOff
from replicator.fleet.work import Work
from replicator.ports import ToCopy
from tests.engine.world import rule
from tests.fakes.memory import MemorySite
from tests.fleet.agents import LightAgent, joined, until
from tests.fleet.test_fleet_daemon import agents, tags
from tests.postgres import Database

TAGS = 30


@pytest.fixture
def sites() -> dict[str, MemorySite]:
    """One large repository among ten small ones."""
    made = {name: MemorySite(name) for name in ("hub", "fra", "sgp")}
    for number in range(10):
        put(made["hub"].store, f"app{number}", "v1", image(f"{number}"))
    for number in range(TAGS):
        put(made["hub"].store, "big", f"big{number}", image(f"big {number}", [layer(f"{number}", 1_000)]))
    return made


def narrowed(apps: list[App]) -> list[tuple[str, ...]]:
    """The repositories of runs that are narrowed, of all agents."""
    runs = [run for app in apps for run in (*app.runs.recent, *app.runs.running)]
    return [tuple(run.scope.repositories) for run in runs if run.scope is not None]


def are_idle(apps: list[App]) -> bool:
    return not any(app.runs.running for app in apps)


@pytest.mark.parametrize(
    ("much", "reads"),
    [(Much(10**9, tags=20), TAGS), (Much(20_000), TAGS + 1)],
    ids=["by the number of its tags", "by its bytes"],
)
async def test_a_repository_with_much_to_copy_becomes_a_job_of_its_own(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite], much: Much, reads: int
) -> None:
    """The rest of the shard ends, and is looked at again, while the large one is copied."""
    held = sites["fra"].pause("write_manifest", subject="big7")
    async with agents(tmp_path, database, sites, ["a", "b"], shards=1, much=much) as apps:
        await held.reached.wait()
        await until(lambda: ("big",) in narrowed(apps))
        await until(lambda: all(run.scope is not None for app in apps for run in app.runs.running))
        assert tags(sites["fra"]) >= 10
        put(sites["hub"].store, "app3", "v2", image("new"))
        apps[0].triggers.submit("apps", cause="api")
        await until(lambda: "v2" in sites["fra"].store.repositories["app3"].tags)
        await until(lambda: all(run.scope is not None for app in apps for run in app.runs.running))
        listed = [operation.repository for operation in sites["hub"].operations if operation.method == "tags"]
        held.release()
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 11 + TAGS)
        await until(lambda: are_idle(apps))
    assert narrowed(apps) == [("big",)], "one job for both destinations"
    assert listed.count("big") == 2, "the look in between asked nothing of it"
    assert listed.count("app3") == 2
    assert sites["hub"].count("read_manifest") <= 11 + reads
    for name in ("fra", "sgp"):
        assert sites[name].count("write_manifest") == 11 + TAGS, "nothing twice"


async def test_an_event_of_a_repository_that_is_split_off_goes_to_its_job(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    held = sites["fra"].pause("write_manifest", subject="big7")
    async with agents(tmp_path, database, sites, ["a", "b"], shards=1, much=Much(10**9, tags=20)) as apps:
        await held.reached.wait()
        await until(lambda: ("big",) in narrowed(apps))
        put(sites["hub"].store, "big", "late", image("late"))
        assert apps[0].triggers.hint("hub", "big", "late")
        await until(lambda: waiting(database.dsn) == ["big"])
        held.release()
        await until(lambda: "late" in sites["fra"].store.repositories["big"].tags)
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 11 + TAGS)
    assert sites["fra"].count("write_manifest") == 11 + TAGS


def waiting(dsn: str) -> list[str]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        query = "SELECT args->>'alone' FROM procrastinate_jobs WHERE status = 'todo' AND args ? 'alone'"
        return [row[0] for row in connection.execute(query)]


async def test_commands_after_a_rule_wait_for_what_was_split_off(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    told = tmp_path / "told"
    rule = f"""interval = "30d"
hooks.after = ["/bin/sh", "-c", "cat >> {told}; echo >> {told}"]"""
    held = sites["fra"].pause("write_manifest", subject="big7")
    much = Much(10**9, tags=20)
    async with agents(tmp_path, database, sites, ["a", "b"], shards=4, rule=rule, much=much) as apps:
        await held.reached.wait()
        await until(lambda: tags(sites["fra"]) >= 10 and ("big",) in narrowed(apps))
        await until(lambda: all(run.scope is not None for app in apps for run in app.runs.running))
        assert not told.exists()
        held.release()
        await until(told.exists)
        await until(lambda: told.read_text().endswith("\n"))
    (after,) = told.read_text().splitlines()
    assert after.count(f'"copied":{10 + TAGS}') == 2


# --- in the queue ---


def shard(**more: object) -> Work:
    return Work("apps", ("fra", "sgp"), "interval", shard=3, of=64, **more)  # type: ignore[arg-type]


def big(*sources: str, **more: object) -> Work:
    return shard(alone="big", whole=False, repositories=dict.fromkeys(sources or ("big",)), **more)


async def test_a_job_that_was_taken_over_splits_nothing_off(shared: str) -> None:
    """Whoever has it now may be writing to that repository already."""
    agent = LightAgent("a")
    async with joined(shared, agent):
        await agent.fleet.defer([shard()])
        await until(lambda: len(agent.claims) == 1)
        (claim,) = agent.claims
        with psycopg.connect(shared, autocommit=True) as connection:
            connection.execute("DELETE FROM procrastinate_jobs")  # as an end does
        with pytest.raises(OwnershipLostError):
            await agent.fleet.split_off(claim, big())
        assert await agent.fleet.alone("apps") == []


async def test_what_is_split_off_is_known_until_it_has_ended(shared: str) -> None:
    agent = LightAgent("a")
    async with joined(shared, agent):
        await agent.fleet.defer([shard()])
        await until(lambda: len(agent.claims) == 1)
        assert await agent.fleet.split_off(agent.claims[0], big(ticks=(7,)))
        await until(lambda: len(agent.claims) == 2)
        (known,) = await agent.fleet.alone("apps")
        assert (known.alone, known.destinations) == ("big", ("fra", "sgp"))
        assert await agent.fleet.alone("others") == []
        agent.gate.set()
        await until(lambda: len(agent.did) == 2)
        while await agent.fleet.alone("apps"):
            pass  # each look awaits the database
    assert [event for event in agent.events if isinstance(event, SplitOff)] == [
        SplitOff("apps", ("fra", "sgp"), "big")
    ]


async def test_one_repository_is_written_by_one_job_whatever_its_destinations(shared: str) -> None:
    """One for both destinations, one for the first of them, as events give it."""
    agents = [LightAgent("a"), LightAgent("b")]
    async with joined(shared, agents[0]), joined(shared, agents[1]):
        await agents[0].fleet.defer([big(), Work("apps", ("fra",), "webhook", shard=3, of=64, alone="big")])
        await until(lambda: sum(len(agent.claims) for agent in agents) == 1)
        for agent in agents:
            agent.gate.set()
        await until(lambda: sum(len(agent.did) for agent in agents) == 2)


# --- what is decided, without a database ---


async def test_what_is_much_is_decided_once_for_all_destinations() -> None:
    asked: list[Work] = []

    async def split_off(work: Work) -> bool:
        asked.append(work)
        return work.alone != "too many wait"

    splits = Splits(shard(takeovers=2), [], Much(1_000, tags=10), split_off)
    few = ToCopy(frozenset({"a"}), 2)
    assert not await splits.weigh("fra", "small", few), "nothing is known of its size"
    assert not await splits.weigh("fra", "small", ToCopy(frozenset({"a"}), 2, 499))
    assert not await splits.weigh("sgp", "small", ToCopy(frozenset({"a"}), 20, 10**9)), "copying has begun"
    assert await splits.weigh("fra", "large", ToCopy(frozenset({"b", "a"}), 2, 500))
    assert await splits.weigh("sgp", "large", few)
    assert splits.is_left_everywhere("large")
    assert not splits.is_left("fra", "small")
    assert not await splits.weigh("fra", "too many wait", ToCopy(frozenset({"c"}), 10, 1))
    assert asked[0] == shard(alone="large", whole=False, repositories={"a": None, "b": None})
    assert len(asked) == 2


async def test_what_is_split_off_at_one_destination_is_done_at_the_others() -> None:
    async def split_off(_: Work) -> bool:
        raise AssertionError("it is not much")

    known = Work(
        "apps", ("fra",), "interval", shard=3, of=64, alone="big", whole=False, repositories={"big": None}
    )
    splits = Splits(shard(), [known], Much(1_000), split_off)
    assert await splits.weigh("fra", "big", ToCopy(frozenset({"big"}), 1))
    assert not await splits.weigh("sgp", "big", ToCopy(frozenset({"big"}), 1))
    assert not splits.is_left_everywhere("big")
    event = shard(whole=False, repositories={"big": ["1"], "app": None})
    rest, moved = redirected(rule(name="apps", destinations=("fra", "sgp")), event, [known])
    assert rest == event
    assert [(work.alone, work.destinations, work.repositories) for work in moved] == [
        ("big", ("fra",), {"big": ["1"]})
    ]
    assert (
        redirected(
            rule(name="apps", destinations=("fra", "sgp")),
            shard(whole=False, repositories={"big": None}),
            [big()],
        )[0]
        is None
    )
