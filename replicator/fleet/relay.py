"""What runs saw, told to the other agents: the one that accepted an event learns that another one looked.

An agent that is not connected does not hear it, and looks again. PostgreSQL's NOTIFY carries the messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from replicator.events import Event, Events, RepositoryScanned, TagSeen
from replicator.fleet.connections import DATABASE_ERRORS, Dsn, connect

_log = logging.getLogger(__name__)

CHANNEL: Final = "replicator_seen"
MAX_BYTES: Final = 7_500
"""PostgreSQL takes 8,000."""
MAX_WAITING: Final = 10_000
"""What is not told yet; more is left out."""
TURN_SECONDS: Final = 0.1
RETRY_SECONDS: Final = 1.0


class _Told(msgspec.Struct, frozen=True, tag_field="kind"):
    source: str
    repository: str
    rule: str
    destination: str


class _Tag(_Told, frozen=True, tag="tag"):
    tag: str
    digest: str | None
    is_absent: bool = False


class _Repository(_Told, frozen=True, tag="repository"):
    """A repository that an event named whole was looked at."""


class _Message(msgspec.Struct, frozen=True):
    sender: str
    seen: list[_Tag | _Repository]


class Relay:
    """Tells and hears.

    Args:
        dsn: the database.
        agent: the agent's name; its own words are not heard.
        events: what this agent's runs see comes from here, and what others' do goes there.
        fetch: executes a statement.
    """

    def __init__(
        self, dsn: Dsn, agent: str, events: Events, fetch: Callable[..., Awaitable[list[tuple[Any, ...]]]]
    ) -> None:
        self._dsn = dsn
        self._agent = agent
        self._events = events
        self._fetch = fetch
        self._waiting: list[_Tag | _Repository] = []
        self._something = asyncio.Event()
        self._hearing = False

    async def run(self) -> None:
        """Tells and hears until it is cancelled."""
        self._events.subscribe(self._note, to={RepositoryScanned, TagSeen})
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tell())
                tasks.create_task(self._hear())
        finally:
            self._events.unsubscribe(self._note)

    def _note(self, event: Event) -> None:
        if self._hearing or not isinstance(event, TagSeen | RepositoryScanned):
            return
        if len(self._waiting) < MAX_WAITING:
            place = event.source, event.repository, event.rule, event.destination
            if isinstance(event, TagSeen):
                self._waiting.append(_Tag(*place, event.tag, event.digest, event.is_absent))
            else:
                self._waiting.append(_Repository(*place))
            self._something.set()

    async def _tell(self) -> None:
        while True:
            await self._something.wait()
            await asyncio.sleep(TURN_SECONDS)
            self._something.clear()
            seen, self._waiting = self._waiting, []
            try:
                for text in messages(self._agent, seen):
                    await self._fetch("SELECT pg_notify(%s, %s)", CHANNEL, text)
            except DATABASE_ERRORS as error:
                _log.info("other agents do not hear what was seen: %s", str(error).strip())

    async def _hear(self) -> None:
        while True:
            try:
                async with await connect(self._dsn, f"replicator hears {self._agent}") as connection:
                    await connection.execute(f"LISTEN {CHANNEL}".encode())
                    async for notification in connection.notifies():
                        self._heard(notification.payload)
            except DATABASE_ERRORS:
                await asyncio.sleep(RETRY_SECONDS)

    def _heard(self, text: str) -> None:
        try:
            message = msgspec.json.decode(text, type=_Message)
        except msgspec.MsgspecError:
            _log.info("another agent, of another version, told something that is not understood")
            return
        if message.sender == self._agent:
            return
        self._hearing = True
        try:
            for each in message.seen:
                self._events.emit(_event(each))
        finally:
            self._hearing = False


def messages(agent: str, seen: list[_Tag | _Repository]) -> list[str]:
    """As few messages as what was seen fits into; what does not fit into one by itself, or is not text, is left out."""
    found: list[list[_Tag | _Repository]] = []
    part: list[_Tag | _Repository] = []
    size = 0
    for each in seen:
        try:
            length = len(msgspec.json.encode(each)) + 1
        except UnicodeEncodeError:  # a registry's JSON may carry lone surrogates
            continue
        if part and size + length > MAX_BYTES:
            found.append(part)
            part, size = [], 0
        if length <= MAX_BYTES:
            part.append(each)
            size += length
    if part:
        found.append(part)
    return [msgspec.json.encode(_Message(agent, part)).decode() for part in found]


def _event(each: _Tag | _Repository) -> Event:
    if isinstance(each, _Tag):
        return TagSeen(
            each.rule,
            each.source,
            each.repository,
            each.tag,
            each.digest,
            destination=each.destination,
            is_absent=each.is_absent,
        )
    return RepositoryScanned(each.rule, each.source, each.repository, each.destination)
