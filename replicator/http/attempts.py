"""Checks of passwords that take a processor for a while: whose turn it is, so that wrong ones do not lock out right ones.

A server that verifies bcrypt hashes uses it like this:

- compare with passwords that were right before, without any of this, so that known clients never wait;
- `async with attempts.turn(peer, user):` around the check; on `TooManyAttempts` sleep for `attempts.refused(peer)` seconds
  and answer 429 with `Retry-After`;
- after a wrong password, sleep for `attempts.failed(peer)` seconds outside of the turn, then answer 401.

A token that is compared in constant time needs none of it: see `daemon/http/auth.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from typing import Final

RETRY_AFTER_SECONDS: Final = 5
FREE_FAILURES: Final = 5
"""Wrong passwords of an address that are answered at once."""
FIRST_DELAY_SECONDS: Final = 0.25
MAX_DELAY_SECONDS: Final = 5.0
FORGET_SECONDS: Final = 30.0
"""After this time, half of an address's wrong passwords are forgotten."""
MAX_PEERS: Final = 4096

_Turn = asyncio.Future[None]
_Users = OrderedDict[str, deque[_Turn]]


class TooManyAttempts(Exception):
    """Too many checks of this address are waiting; it may try again after `RETRY_AFTER_SECONDS`."""


class Attempts:
    """Turns for checks. Addresses take turns, and the users of one address do; checks of one user are in order.

    Args:
        at_once: checks at a time.
        per_peer: checks of one address that may wait. One more takes the place of one that waits for the user with the
            most, picked at random: with wrong passwords for a user nobody keeps that user out for good.
    """

    def __init__(self, *, at_once: int, per_peer: int) -> None:
        self._at_once = at_once
        self._per_peer = per_peer
        self._running = 0
        self._waiting: OrderedDict[str, _Users] = OrderedDict()
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def turn(self, peer: str, user: str) -> AsyncIterator[None]:
        """Waits for the turn of a check, which lasts until the context is left.

        Raises:
            TooManyAttempts: others wait already.
        """
        await self._enter(peer, user)
        try:
            yield
        finally:
            self._leave()

    def failed(self, peer: str) -> float:
        """Notes a wrong password of this address. Returns how long to wait before the answer, in seconds."""
        now = asyncio.get_running_loop().time()
        count, at = self._failures.pop(peer, (0.0, now))
        count = count * 0.5 ** ((now - at) / FORGET_SECONDS) + 1
        self._failures[peer] = count, now
        if len(self._failures) > MAX_PEERS:
            self._failures.popitem(last=False)
        return _delay(count)

    def refused(self, peer: str) -> float:
        """How long to wait before this address is told `TooManyAttempts`, in seconds; it would ask again at once."""
        return _delay(self._failures.get(peer, (0.0, 0.0))[0])

    async def _enter(self, peer: str, user: str) -> None:
        if self._running < self._at_once:
            self._running += 1
            return
        users = self._waiting.setdefault(peer, OrderedDict())
        turns = users.setdefault(user, deque())
        turn: _Turn = asyncio.get_running_loop().create_future()
        turns.append(turn)
        if sum(map(len, users.values())) > self._per_peer:
            longest = max(map(len, users.values()))
            # Not the first of them: it is next in line, and a flood would keep everybody from getting there.
            most = random.choice([name for name in users if len(users[name]) == longest])  # noqa: S311 - fairness
            dropped = random.choice(users[most])  # noqa: S311 - fairness, not a secret
            self._forget(peer, most, dropped)
            if not dropped.done():  # its client has just left
                dropped.set_exception(TooManyAttempts())
        try:
            await turn
        except asyncio.CancelledError:
            self._forget(peer, user, turn)
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._leave()  # it had its turn already
            raise

    def _leave(self) -> None:
        """Gives the turn to the next user of the next address."""
        self._running -= 1
        while self._waiting:
            peer, users = next(iter(self._waiting.items()))
            user, turns = next(iter(users.items()))
            turn = turns[0]
            users.move_to_end(user)
            self._waiting.move_to_end(peer)
            self._forget(peer, user, turn)
            if not turn.done():  # else its client has just left
                self._running += 1
                turn.set_result(None)
                return

    def _forget(self, peer: str, user: str, turn: _Turn) -> None:
        """Takes a turn out of the line."""
        users = self._waiting.get(peer, OrderedDict())
        with contextlib.suppress(KeyError, ValueError):
            users[user].remove(turn)
            if not users[user]:
                del users[user]
            if not users:
                del self._waiting[peer]


def _delay(count: float) -> float:
    if count <= FREE_FAILURES:
        return 0.0
    doubled: float = FIRST_DELAY_SECONDS * 2 ** min(count - FREE_FAILURES, 16)
    return min(doubled, MAX_DELAY_SECONDS)
