"""Why an image is, or is not, at its destinations, as a running agent knows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from replicator.daemon.generation import Generation
from replicator.engine.engine import Engine
from replicator.errors import Unavailable
from replicator.events import Events
from replicator.ports import Clock, State
from replicator.ports.search import ImageIndex
from replicator.runs.why import Agenda, Answer, Asker, parse_asked
from replicator.runs.wiring import Equipment, build_engine

FRESH_SECONDS: Final = 25.0
"""What asks the sites may take; who waits for the answer gives up after 30 s."""
_FRESH_AT_ONCE: Final = 4


class Memory(State, ImageIndex, Protocol):
    """The state, which is also the index."""


class Explaining:
    """Answers questions, at most a few at a time where sites are asked.

    Args:
        state: what runs remember.
        clock: the time.
        agenda: what is planned for a rule at a destination.
    """

    def __init__(self, state: Memory, clock: Clock, agenda: Callable[[str, str], Agenda]) -> None:
        self._state = state
        self._clock = clock
        self._agenda = agenda
        self._turns = asyncio.Semaphore(_FRESH_AT_ONCE)

    async def answer(self, generation: Generation, reference: str, at: str | None, *, fresh: bool) -> Answer:
        """The answer by the config in force. `fresh` asks the sites.

        Raises:
            ValueError: the reference is malformed, or `at` is not a site of the config.
            StateError: the state cannot be read.
            Unavailable: the sites did not answer in time.
        """
        sites = generation.loaded.sites
        if at is not None and at not in sites:
            raise ValueError(f"{at}: unknown site; the config has {', '.join(sorted(sites))}")
        asked = parse_asked(reference, {name: each.url for name, each in sites.items()})
        asker = Asker(
            generation.rules,
            generation.loaded.rules,
            self._state,
            self._state,
            self._clock.now,
            self._agenda,
        )
        if not fresh:
            return await asker.answer(asked, at)
        generation.enter()
        try:
            async with asyncio.timeout(FRESH_SECONDS), self._turns:
                return await asker.answer(asked, at, self._engine(generation))
        except TimeoutError:
            cause = f"no answer within {FRESH_SECONDS:.0f} s"
            raise Unavailable(at or "sites", "why", cause) from None
        finally:
            await generation.leave()

    def _engine(self, generation: Generation) -> Engine:
        """An engine that nobody listens to: a question is not a run, and its failures count nowhere."""
        equipment = Equipment(self._state, Events(), self._clock, None)
        return build_engine(generation.loaded, generation.sites, equipment)
