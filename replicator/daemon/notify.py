"""Notifications of failure, recovery and staleness: each change once, across restarts too, and never a success.

What a receiver knows is kept in the state. It is recorded after sending, so that after a kill in between the notification
is sent twice rather than never. A receiver that cannot be reached is tried again later while the condition holds.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
import msgspec

from replicator.config.secrets import Secret
from replicator.config.settings import NotifySettings
from replicator.daemon.memory import Memory
from replicator.errors import ConfigError, ReplicatorError
from replicator.events import Events, Warned
from replicator.policy.rule import Rule
from replicator.ports import Clock, Standing
from replicator.report import format_count, format_seconds
from replicator.runs.causes import failed_causes, in_one_line
from replicator.runs.command import run_command
from replicator.state.recall import Notified

ATTEMPTS: Final = 3
WAIT_SECONDS: Final = 2.0
"""After the first attempt; doubled after each further one."""
LATER_SECONDS: Final = 300.0
"""After the last attempt, until the next round."""
AT_ONCE: Final = 4
ENDING_SECONDS: Final = 2.0
"""For notifications in progress when the agent stops: without a record, the next start would send them again."""


@dataclass(frozen=True, slots=True)
class _Change:
    """A condition that holds now, or no longer, other than a receiver knows."""

    key: Notified
    holds: bool
    standing: Standing
    lag: float
    source: str

    @property
    def event(self) -> str:
        if not self.holds:
            return "recovery"
        return "failure" if self.key.condition == "failing" else "stale"


class Notifier:
    """Notifies receivers of changes. No run waits for it.

    Args:
        agent: the agent's name.
        told: what the receivers know, from the state.
        state: where that is kept.
        events: gets a warning for receivers that cannot be reached.
        clock: the time.
    """

    def __init__(
        self, agent: str, *, told: Iterable[Notified], state: Memory, events: Events, clock: Clock
    ) -> None:
        self._agent = agent
        self._told = set(told)
        self._state = state
        self._events = events
        self._clock = clock
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._under_way: set[Notified] = set()
        self._not_before: dict[Notified, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def recall(self) -> None:
        """Reads again what receivers know: another agent of the fleet told them until now. Raises StateError."""
        self._told = set(await self._state.told())

    def look(
        self,
        receivers: Mapping[str, NotifySettings],
        rules: Sequence[Rule],
        standings: Sequence[tuple[Standing, float]],
    ) -> None:
        """Compares the standings with what receivers know, and starts to notify them of changes."""
        sources = {rule.name: rule.source for rule in rules}
        now = self._clock.monotonic()
        for receiver in receivers.values():
            for standing, lag in standings:
                if standing.rule not in sources:
                    continue
                for key, holds in _conditions(receiver, standing, lag):
                    if holds == (key in self._told) or key in self._under_way:
                        continue
                    if self._not_before.get(key, now) <= now:
                        change = _Change(key, holds, standing, lag, sources[standing.rule])
                        self._begin(receiver, change)

    async def aclose(self) -> None:
        """Waits a moment for notifications in progress, then cancels them; the next start sends them if they still apply."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ENDING_SECONDS)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, receiver: NotifySettings, change: _Change) -> None:
        self._under_way.add(change.key)
        task = asyncio.get_running_loop().create_task(self._tell(receiver, change))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, receiver: NotifySettings, change: _Change) -> None:
        key = change.key
        try:
            problem = None
            if change.event in receiver.on:
                facts = await self._facts(change)
                async with self._slots:
                    problem = await self._try(receiver, facts)
            if problem is None:
                await self._note(key, holds=change.holds)
            else:
                self._put_off(receiver, key, f"{change.event} not sent: {problem}")
        except ReplicatorError as error:
            self._put_off(receiver, key, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not come again at every check
            self._put_off(receiver, key, f"unexpected {type(error).__name__}")  # its text may have the URL
        finally:
            self._under_way.discard(key)

    def _put_off(self, receiver: NotifySettings, key: Notified, why: str) -> None:
        self._not_before[key] = self._clock.monotonic() + LATER_SECONDS
        self._events.emit(Warned(None, f"notify.{receiver.name}: {why}"))

    async def _note(self, key: Notified, *, holds: bool) -> None:
        self._not_before.pop(key, None)
        if holds:
            self._told.add(key)
            await self._state.tell(key)
        else:
            self._told.discard(key)
            await self._state.untell(key)

    async def _try(self, receiver: NotifySettings, facts: dict[str, str]) -> str | None:
        """The problem of the last attempt; None if one succeeded."""
        problem, again = None, False
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._clock.sleep(WAIT_SECONDS * 2 ** (attempt - 1))
            if receiver.url is None:
                problem = await run_command(
                    receiver.command,
                    msgspec.json.encode(facts),
                    receiver.timeout,
                    env={name: secret() for name, secret in receiver.env.items()},
                )
                again = True
            else:
                problem, again = await _post(receiver.url, receiver.template.fill(facts), receiver.timeout)
            if problem is None or not again:
                break
        return problem

    async def _facts(self, change: _Change) -> dict[str, str]:
        standing, event = change.standing, change.event
        error = "" if event == "recovery" else await self._error(standing)
        behind = format_seconds(change.lag)
        what = {
            "failure": f"failing: {error}",
            "stale": f"stale, {behind} behind{f': {error}' if error else ''}",
            "recovery": "recovered" if change.key.condition == "failing" else "no longer stale",
        }[event]
        at = dt.datetime.fromtimestamp(self._clock.now(), dt.UTC).isoformat(timespec="seconds")
        return {
            "event": event,
            "rule": standing.rule,
            "source": change.source,
            "destination": standing.destination,
            "agent": self._agent,
            "time": at,
            "lag": behind,
            "error": error,
            "summary": f"{self._agent}: {standing.rule}: {change.source} -> {standing.destination}: {what}",
        }

    async def _error(self, standing: Standing) -> str:
        """The first causes: of the last run's failure, and of the tags that failed. Raises StateError."""
        causes = await failed_causes(self._state, standing.rule, standing.destination)
        if standing.last_error and not any(standing.last_error in each for each in causes):
            causes.insert(0, standing.last_error)
        if not causes and standing.failed:  # a tag has just been copied, the standing is from before
            return f"{format_count(standing.failed, 'tag')} failed"
        return in_one_line(causes)


def _conditions(receiver: NotifySettings, standing: Standing, lag: float) -> Iterator[tuple[Notified, bool]]:
    def key(condition: str) -> Notified:
        return Notified(receiver.name, standing.rule, standing.destination, condition)

    if receiver.on & {"failure", "recovery"}:
        yield key("failing"), bool(standing.last_error or standing.failed)
    if "stale" in receiver.on:
        yield key("stale"), lag > receiver.stale_after


async def _post(url: Secret, body: bytes, seconds: float) -> tuple[str | None, bool]:
    """Posts once. What went wrong, and whether a retry may help. The URL, a secret, is never part of the text."""
    try:
        address = url()
    except ConfigError as error:
        return str(error), False
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds), trust_env=True) as session,
            session.post(
                address, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False
            ) as response,
        ):
            if response.status < 300:
                return None, False
            return f"answered {response.status}", response.status in {408, 429} or response.status >= 500
    except aiohttp.InvalidURL:
        return "invalid URL", False
    except TimeoutError:
        return f"no answer within {seconds:g} s", True
    except (aiohttp.ClientError, OSError) as error:
        return f"cannot be reached: {type(error).__name__}", True
