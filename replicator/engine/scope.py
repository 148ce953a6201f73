"""A narrowed run: only what an event named is looked at again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scope:
    """Source repositories to look at, each with its tags, or whole (None). `at` dates the event, epoch seconds.

    A narrowed run is no complete look, whatever it finds.
    """

    repositories: Mapping[str, frozenset[str] | None]
    at: float | None = None
