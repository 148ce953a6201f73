"""Who is connected, so that nobody keeps others out by being there.

When all places are taken, a new connection takes the place of one that does nothing: first of one that has never shown a
token, and of the peer that has most. Only where every connection is serving a request is the newcomer refused. Pure: what
is to be closed is returned to the caller.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(slots=True)
class _Connection:
    peer: str
    since: int
    """When it did something last, by a counter."""
    busy: bool = False
    trusted: bool = False


class Connections:
    """The connections of one server.

    Args:
        limit: how many there may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[Hashable, _Connection] = {}
        self._turns = itertools.count()

    def __len__(self) -> int:
        return len(self._known)

    def admit(self, key: Hashable, peer: str) -> tuple[bool, Hashable | None]:
        """Whether a new connection is let in, and the one to close for it, if any."""
        victim = None
        if len(self._known) >= self._limit:
            victim = self._most_idle()
            if victim is None:
                return False, None
            del self._known[victim]
        self._known[key] = _Connection(peer, next(self._turns))
        return True, victim

    def begin(self, key: Hashable) -> None:
        """A request has arrived on it."""
        if key in self._known:
            self._known[key].busy = True

    def end(self, key: Hashable, *, trusted: bool) -> None:
        """The request is answered. `trusted`: it showed a token or password that is right."""
        connection = self._known.get(key)
        if connection is not None:
            connection.busy = False
            connection.trusted = connection.trusted or trusted
            connection.since = next(self._turns)

    def leave(self, key: Hashable) -> None:
        """It is closed."""
        self._known.pop(key, None)

    def _most_idle(self) -> Hashable | None:
        peers = Counter(each.peer for each in self._known.values())
        idle = [(key, each) for key, each in self._known.items() if not each.busy]
        if not idle:
            return None
        return min(idle, key=lambda pair: (pair[1].trusted, -peers[pair[1].peer], pair[1].since))[0]
