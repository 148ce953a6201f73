"""The index of images, completed by the agent while it has time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from replicator.daemon.memory import Memory
from replicator.errors import StateError
from replicator.model.digest import Digest
from replicator.ports import Clock, Site
from replicator.runs.indexing import index_missing

_log = logging.getLogger(__name__)

INDEX_SECONDS: Final = 60.0
INDEXED_AT_ONCE: Final = 50
"""Images read for the index at a time, and how long it waits when all are known."""
_TURN_SECONDS: Final = 10.0


async def index_the_rest(
    state: Memory, sites: Callable[[], Mapping[str, Site]], clock: Clock, *, may: Callable[[], bool]
) -> None:
    """Reads images that nothing is known of, a few at a time, while it may. Ends when it is cancelled."""
    unreadable: set[tuple[str, Digest]] = set()
    while True:
        tried = 0
        if may():
            try:
                tried = await index_missing(state, state, sites(), INDEXED_AT_ONCE, unreadable)
            except StateError as error:
                _log.error("%s", error)
        if not tried:
            unreadable.clear()
        await clock.sleep(_TURN_SECONDS if tried else INDEX_SECONDS)
