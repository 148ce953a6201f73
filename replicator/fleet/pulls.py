"""The pulls that registries still grant to the fleet: one row for each site, from which agents take a few at a time."""

from __future__ import annotations

from typing import Final

import msgspec
from psycopg.types.json import Jsonb

from replicator.fleet.connections import Connection, as_state_error
from replicator.fleet.queue import Queue
from replicator.ports import PullGrant, PullWindow

GRANTED_AT_ONCE: Final = 5
GRANTED_PART: Final = 10
"""An agent gets at most a tenth of what is free, so that the last pulls are shared."""
HELD_SECONDS: Final = 60.0
"""Pulls that an agent took and did not report count as used after this long: it may be gone, or its answers late."""
STALE_SECONDS: Final = 60.0
"""After this long the registry is asked again: others use the quota too, and it is refilled with time."""

_READ: Final = "SELECT value, extract(epoch FROM clock_timestamp())::float8 FROM fleet_facts WHERE site = %s AND key = 'pulls' FOR UPDATE"
_MAKE: Final = "INSERT INTO fleet_facts (site, key, value) VALUES (%s, 'pulls', '{}') ON CONFLICT DO NOTHING"
_WRITE: Final = "UPDATE fleet_facts SET value = %s, at = now() WHERE site = %s AND key = 'pulls'"


class Held(msgspec.Struct):
    """Pulls in the hands of an agent, and until when (epoch seconds of the database's clock)."""

    count: int
    until: float


class Account(msgspec.Struct, omit_defaults=True):
    """The pulls of one site. Pure: `now` is a parameter, in epoch seconds.

    `remaining`: as the registry said, less those used since. It includes those `held` by agents, so agents can never begin
    more pulls than are left, however late an answer is. `told_at`: when the registry was asked; 0: it has to be asked.
    `version` counts changes of what is left.
    """

    remaining: int = 0
    limit: int | None = None
    seconds: int | None = None
    told_at: float = 0.0
    version: int = 0
    held: dict[str, Held] = {}

    def settle(self, agent: str, used: int, told: int | None, now: float) -> None:
        """An agent used some of its pulls. `told`: what the registry said is left; used only if that is less than is free."""
        for name, held in list(self.held.items()):
            if held.until <= now:
                self.remaining -= held.count
                del self.held[name]
        mine = self.held.get(agent)
        if mine is not None and used:
            used = min(used, mine.count)
            mine.count -= used
            self.remaining -= used
            self.version += 1
            if not mine.count:
                del self.held[agent]
        if told is not None and told < self._free:
            self.remaining = told
            self.version += 1

    def grant(self, agent: str, keep: int, now: float) -> PullGrant:
        """Gives an agent some of what is free beside `keep`."""
        if not self.told_at or (not self.held and now - self.told_at > STALE_SECONDS):
            return PullGrant(0, self.version)
        free = self._free - keep
        count = min(GRANTED_AT_ONCE, max(1, free // GRANTED_PART)) if free > 0 else 0
        if count:
            mine = self.held.setdefault(agent, Held(0, 0.0))
            mine.count += count
            mine.until = now + HELD_SECONDS
            self.version += 1
        window = PullWindow(self.remaining, self.limit, self.seconds)
        return PullGrant(count, self.version, window, max(0.0, now - self.told_at))

    def tell(self, window: PullWindow, version: int, now: float) -> None:
        """What the registry answered. It replaces what is known if nobody pulled meanwhile, else it only lowers it."""
        is_whole = version == self.version and not self.held
        if is_whole or not self.told_at or window.remaining < self._free:
            self.remaining = window.remaining
        self.limit, self.seconds, self.told_at = window.limit, window.seconds, now
        self.version += 1

    @property
    def _free(self) -> int:
        return self.remaining - sum(held.count for held in self.held.values())


class Pulls:
    """The accounts in the database; a `ports.SharedPulls`.

    Args:
        agent: the agent's name.
        queue: whose connections are used.
    """

    def __init__(self, agent: str, queue: Queue) -> None:
        self._agent = agent
        self._queue = queue

    async def reserve(self, site: str, *, used: int, told: int | None, keep: int) -> PullGrant:
        """See `ports.SharedPulls`."""
        with as_state_error("take pulls"):
            async with self._queue.connection() as connection:
                account, now = await _read(connection, site)
                account.settle(self._agent, used, told, now)
                grant = account.grant(self._agent, keep, now)
                await connection.execute(_WRITE.encode(), (Jsonb(msgspec.to_builtins(account)), site))
        return grant

    async def tell(self, site: str, window: PullWindow, version: int) -> None:
        """See `ports.SharedPulls`."""
        with as_state_error("note pulls"):
            async with self._queue.connection() as connection:
                account, now = await _read(connection, site)
                account.tell(window, version, now)
                await connection.execute(_WRITE.encode(), (Jsonb(msgspec.to_builtins(account)), site))


async def _read(connection: Connection, site: str) -> tuple[Account, float]:
    """The account, locked until the transaction ends, and the time."""
    await connection.execute(_MAKE.encode(), (site,))
    row = await (await connection.execute(_READ.encode(), (site,))).fetchone()
    if row is None:  # removed between the two statements: nothing is known
        return Account(), 0.0
    try:
        return msgspec.convert(row[0], Account), row[1]
    except msgspec.ValidationError:  # of another version
        return Account(), row[1]
