"""Tags that are held because their images are not trusted, and when each is scanned again.

CI signs an image seconds after it pushes it, and no event of the image's tag tells of that. So such a tag is scanned
again soon, less and less often; after the last time it waits for the rule's own schedule like every other tag.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from replicator.events import Event, RunEnded, TagDone, TagUntrusted

RETRY_SECONDS: Final = (3.0, 7.0, 20.0, 30.0, 60.0, 180.0)
"""From one scan to the next; the first from when the tag was first held."""
MAX_RETRIED: Final = 1_000
"""Tags of one rule and destination that are scanned again by themselves. Thousands of unsigned images are not a race."""

HOLDING: Final = frozenset({RunEnded, TagDone, TagUntrusted})
"""The events that `UntrustedTags` uses."""

_Place = tuple[str, str]
_Tag = tuple[str, str]


@dataclass(slots=True)
class _Held:
    """One tag: what its source calls it, why it is held, and when it is scanned next (monotonic seconds)."""

    repository: str
    tag: str | None
    digest: str
    reason: str
    looks: int = 0
    due: float | None = None


class UntrustedTags:
    """A subscriber to `Events`.

    Args:
        monotonic: the time.
        wake: called when something becomes due earlier than was known.
    """

    def __init__(self, monotonic: Callable[[], float], wake: Callable[[], None]) -> None:
        self._monotonic = monotonic
        self._wake = wake
        self._held: dict[_Place, dict[_Tag, _Held]] = {}

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        match event:
            case TagUntrusted():
                self._hold(event)
            case TagDone(outcome="copied"):
                self._held.get((event.rule, event.destination), {}).pop((event.repository, event.tag), None)
            case RunEnded():
                held = self._held.get((event.rule, event.destination), {})
                for target, key in [tag for tag in held if event.forgets(f"{tag[0]}:{tag[1]}")]:
                    del held[target, key]

    def keep(self, places: Collection[_Place]) -> None:
        """Forgets what is held anywhere but at these rules and destinations."""
        self._held = {place: held for place, held in self._held.items() if place in places}

    def reasons(self, rule: str, destination: str) -> Mapping[str, str]:
        """The tags that are held there, as `repository:tag`, each with the reason."""
        held = self._held.get((rule, destination), {})
        return {f"{target}:{key}": each.reason for (target, key), each in held.items()}

    def take_due(self) -> Iterator[tuple[str, str, Mapping[str, frozenset[str] | None]]]:
        """What is to be scanned now: rule, destination, and source repositories with tags (None: whole)."""
        now = self._monotonic()
        for (rule, destination), held in self._held.items():
            due: dict[str, set[str] | None] = {}
            for each in held.values():
                if each.due is None or each.due > now:
                    continue
                each.due = None  # until that scan tells again
                tags = due.setdefault(each.repository, set())
                if each.tag is None:
                    due[each.repository] = None
                elif tags is not None:
                    tags.add(each.tag)
            if due:
                yield (
                    rule,
                    destination,
                    {name: None if tags is None else frozenset(tags) for name, tags in due.items()},
                )

    def seconds_left(self) -> float | None:
        """Until something is due; None: nothing is."""
        times = [each.due for held in self._held.values() for each in held.values() if each.due is not None]
        return max(0.0, min(times) - self._monotonic()) if times else None

    def _hold(self, event: TagUntrusted) -> None:
        held = self._held.setdefault((event.rule, event.destination), {})
        tag = (event.target, event.key)
        known = held.get(tag)
        looks = known.looks if known is not None and known.digest == event.digest else 0
        waiting = known.due if known is not None and known.digest == event.digest else None
        now = self._monotonic()
        if waiting is None and looks < len(RETRY_SECONDS) and (looks or len(held) < MAX_RETRIED):
            waiting = math.ceil(now + RETRY_SECONDS[looks])  # so that many come due together
            looks += 1
        held[tag] = _Held(event.repository, event.tag, event.digest, event.reason, looks, waiting)
        self._wake()
