"""Who is connected, so that nobody keeps others out by being there.

When all places are taken, a new connection takes the place of an idle one: first of one that has never shown a token, and
of the peer that has most. Places for requests are bounded as well: those without a token in all and by peer, and all
but those for health and metrics, so that an idle connection that can give way always exists.

Pure: what is to be closed or refused is returned to the caller. How a server uses it:

- `admit` in the protocol's `connection_made`; close the connection that it names, or the new one if it is not admitted;
- `begin` when the head of a request has arrived; answer 503 and close the connection if it returns False. If the request
  may show a token, judge it then, and ask again with `trusted=True`;
- `end` when the request is answered, and `leave` in `connection_lost`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

_UNTRUSTED_SHARE: Final = 3 / 4
"""Of the places for requests, those that requests without a token may take."""
_PEER_SHARE: Final = 2 / 3
"""Of these, those that one peer may take. Behind a reverse proxy everybody is one peer, so it is generous."""
_RESERVE_SHARE: Final = 1 / 16
"""Of all places, those that only requests for health and metrics may take."""


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
        self._requests = max(1, limit - max(1, round(limit * _RESERVE_SHARE)))
        self._untrusted = max(1, round(self._requests * _UNTRUSTED_SHARE))
        self._per_peer = max(1, round(self._untrusted * _PEER_SHARE))
        self._known: dict[Hashable, _Connection] = {}
        self._turns = itertools.count()

    def __len__(self) -> int:
        return len(self._known)

    def admit(self, key: Hashable, peer: str) -> tuple[bool, Hashable | None]:
        """Whether a new connection is admitted, and the idle one to close for it, if any."""
        victim = None
        if len(self._known) >= self._limit:
            victim = self._most_idle()
            if victim is None:
                return False, None
            del self._known[victim]
        self._known[key] = _Connection(peer, next(self._turns))
        return True, victim

    def begin(self, key: Hashable, *, trusted: bool = False, reserved: bool = False) -> bool:
        """The head of a request has arrived. False: too many requests are in progress, refuse it.

        Args:
            key: the connection.
            trusted: the request shows a valid token or password.
            reserved: it asks for health or metrics, and is always accepted.
        """
        connection = self._known.get(key)
        if connection is None:
            return True  # closed in the meantime
        if not reserved and not self._has_room(connection.peer, trusted=trusted):
            return False
        connection.busy, connection.trusted = True, connection.trusted or trusted
        return True

    def end(self, key: Hashable, *, trusted: bool) -> None:
        """The request is answered. `trusted`: it showed a valid token or password."""
        connection = self._known.get(key)
        if connection is not None:
            connection.busy = False
            connection.trusted = connection.trusted or trusted
            connection.since = next(self._turns)

    def leave(self, key: Hashable) -> None:
        """The connection is closed."""
        self._known.pop(key, None)

    def _has_room(self, peer: str, *, trusted: bool) -> bool:
        busy = [each for each in self._known.values() if each.busy]
        if trusted:
            return len(busy) < self._requests
        strangers = [each.peer for each in busy if not each.trusted]
        return (
            len(busy) < self._requests
            and len(strangers) < self._untrusted
            and strangers.count(peer) < self._per_peer
        )

    def _most_idle(self) -> Hashable | None:
        peers = Counter(each.peer for each in self._known.values())
        idle = [(key, each) for key, each in self._known.items() if not each.busy]
        if not idle:
            return None
        return min(idle, key=lambda pair: (pair[1].trusted, -peers[pair[1].peer], pair[1].since))[0]
