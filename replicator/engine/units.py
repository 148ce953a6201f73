"""What the source repositories of one run come to at one destination: a row of the state each, once it is through."""

from __future__ import annotations

import msgspec

from replicator.engine.context import Context
from replicator.engine.observe.wanted import WantedTags
from replicator.engine.plan.action import Action
from replicator.ports import Unit, UnitSeen


class UnitCount(msgspec.Struct):
    """What one source repository comes to at the destination, so far."""

    repository: str
    target: str
    asked_wall: float
    is_complete: bool = False
    """The source repository was listed completely."""
    listed_at: float | None = None
    """When the destination's repository was asked; None: it could not be."""
    in_step: int = 0
    held: int = 0
    unknown: int = 0
    error: str = ""
    batches: int = 1
    """Batches that are not decided on; one more until the last one has come."""
    copies: int = 0
    """Copies that have not ended."""


class Units:
    """The counts of source repositories that are not through yet.

    Args:
        rule: the rule's name.
        destination: the site's name.
        context: of the run.
    """

    def __init__(self, rule: str, destination: str, context: Context) -> None:
        self._rule = rule
        self._destination = destination
        self._context = context
        self._units: dict[str, UnitCount] = {}

    def enter_batch(self, batch: WantedTags) -> UnitCount:
        """A batch has come. Gives the count of its source repository."""
        unit = self._units.get(batch.repository)
        if unit is None:
            unit = self._units[batch.repository] = UnitCount(batch.repository, batch.target, batch.asked_wall)
        if batch.is_last:
            unit.is_complete = batch.is_complete
        else:
            unit.batches += 1
        return unit

    def leave_batch(self, unit: UnitCount) -> bool:
        """A batch is decided on. Returns whether the source repository is through."""
        unit.batches -= 1
        return not unit.batches and self._settle(unit)

    def begin_copy(self, action: Action) -> None:
        """A copy is queued: its source repository is not through before it has ended."""
        self._units[action.repository].copies += 1

    def end_copy(self, action: Action) -> bool:
        """A copy has ended, whatever came of it. Returns whether the source repository is through."""
        unit = self._units[action.repository]
        unit.copies -= 1
        return not unit.batches and not unit.copies and self._settle(unit)

    def _settle(self, unit: UnitCount) -> bool:
        self._record_unit(unit)
        if unit.copies:
            return False
        del self._units[unit.repository]
        return True

    def _record_unit(self, unit: UnitCount) -> None:
        request = self._context.request
        if request.dry or request.scope is not None:
            return
        seen = Unit(
            self._rule,
            self._destination,
            unit.repository,
            unit.target,
            source_complete_at=unit.asked_wall if unit.is_complete else None,
            destination_complete_at=unit.listed_at,
            in_step=unit.in_step,
            held=unit.held,
            unknown=unit.unknown,
            error=unit.error,
        )
        self._context.state.record(UnitSeen(seen, counted=unit.is_complete))

    def count(self, repository: str, *, in_step: int = 0, held: int = 0, unknown: int = 0) -> None:
        """Adds tags of a source repository that has come and is not through."""
        unit = self._units.get(repository)
        if unit is not None:
            unit.in_step += in_step
            unit.held += held
            unit.unknown += unknown
