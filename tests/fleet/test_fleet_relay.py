"""What one agent's runs saw is known to the others: who accepted an event hears that another one handled it."""

from __future__ import annotations

import msgspec
import psycopg

from replicator.events import RepositoryScanned, TagSeen
from replicator.fleet.relay import MAX_BYTES, _Message, _Tag, messages
from tests.fleet.agents import LightAgent, joined, until

LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN replicator_seen' AND state = 'idle'"


async def test_what_one_agent_saw_is_heard_by_the_others_once(shared: str) -> None:
    first, second = LightAgent("a"), LightAgent("b")
    seen: list[TagSeen | RepositoryScanned] = [
        TagSeen("apps", "hub", "app", "v1", "sha256:" + 64 * "a", destination="fra"),
        TagSeen("apps", "hub", "app", "v2", None, destination="fra", is_absent=True),
        RepositoryScanned("apps", "hub", "web", "fra"),
    ]

    def heard(agent: LightAgent) -> list[object]:
        return [event for event in agent.events if isinstance(event, TagSeen | RepositoryScanned)]

    async with joined(shared, first, works=False), joined(shared, second, works=False):
        with psycopg.connect(shared, autocommit=True) as connection:
            await until(lambda: connection.execute(LISTENING).fetchone() == (2,))
        for event in seen:
            first.fleet._events.emit(event)
        await until(lambda: len(heard(second)) == 3)
        second.fleet._events.emit(last := RepositoryScanned("apps", "hub", "last", "fra"))
        await until(lambda: last in heard(first))
    assert heard(second) == [*seen, last]
    assert heard(first) == [*seen, last], "its own words do not come back"


def test_messages_are_few_and_each_fits_into_a_notification() -> None:
    tags = [_Tag("hub", "app", "apps", "fra", f"v{number}", None) for number in range(500)]
    too_long = _Tag("hub", "app", "apps", "fra", "v" * MAX_BYTES, None)
    no_text = _Tag("hub", "app", "apps", "fra", "v\ud800", None)
    texts = messages("agent", [*tags[:250], too_long, no_text, *tags[250:]])
    told = [each for text in texts for each in msgspec.json.decode(text, type=_Message).seen]
    assert told == tags
    assert max(map(len, texts)) < 8_000
    assert len(texts) <= sum(map(len, texts)) // MAX_BYTES + 2
