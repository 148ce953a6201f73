"""Which listings in bulk a registry has refused within the last day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from replicator.policy.recheck import is_ahead
from replicator.ports import ListingRefused

AGAIN_SECONDS: Final = 86_400.0
"""When a listing that was refused is tried again."""
ALL: Final = ""
"""Stands for all repositories."""
_IN_A_ROW: Final = 3


@dataclass(slots=True)
class RefusedListings:
    """Of one registry. A refusal that may be about one repository alone counts for all after three in a row."""

    _known: dict[str, ListingRefused] = field(default_factory=dict)
    _row: set[str] = field(default_factory=set)
    _worked_at: float | None = None

    def recall(self, refusals: Sequence[ListingRefused]) -> None:
        """Takes what is remembered; later refusals win."""
        for one in refusals:
            known = self._known.get(one.repository)
            if known is None or known.at < one.at:
                self._known[one.repository] = one

    def worked(self, now: float) -> None:
        """Notes that a repository was listed: not all are refused, and what is refused to others is about them."""
        self._worked_at = now

    def add(
        self, site: str, repository: str, cause: str, now: float, *, about_repository: bool
    ) -> ListingRefused:
        """Notes a refusal, and says what to remember. `now` in epoch seconds.

        Args:
            site: its name.
            repository: what was to be listed.
            cause: for people.
            now: when.
            about_repository: whether others may still be listed.
        """
        self._row.add(repository)
        is_single = about_repository and (self._worked_at is not None or len(self._row) < _IN_A_ROW)
        refused = ListingRefused(site, repository if is_single else ALL, now, cause)
        self._known[refused.repository] = refused
        return refused

    def of(self, repository: str, now: float) -> ListingRefused | None:
        """The refusal for which this repository is not asked for now; None where it may be asked for."""
        for name in (ALL, repository):
            refused = self._known.get(name)
            if refused is not None and self._counts(refused, now):
                return refused
        return None

    def _counts(self, refused: ListingRefused, now: float) -> bool:
        if refused.repository == ALL and self._worked_at is not None and refused.at < self._worked_at:
            return False
        return now < refused.at + AGAIN_SECONDS and not is_ahead(now, refused.at)
