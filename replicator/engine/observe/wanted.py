"""What a rule wants of its source: tags with what they name, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from replicator.model.digest import Digest

BATCH_TAGS: Final = 256


@dataclass(frozen=True, slots=True)
class WantedTag:
    """One tag of a source repository as resolved: `tag` and `digest` at the source, `target` at the destination.

    `tag` and `target` are None for a digest that is pinned without a tag. `digest` is None for an immutable tag
    that every destination is believed to have, which is not asked for again.
    """

    tag: str | None
    target: str | None
    digest: Digest | None


@dataclass(frozen=True, slots=True)
class WantedTags:
    """Some of the tags wanted of one source repository.

    The last batch of a repository also tells `present`: every tag that the listing had (None where there was no
    complete listing), so that what is gone can be told from what was not asked for. `asked_at` (monotonic seconds)
    is when the source was first asked about the repository.
    """

    repository: str
    target: str
    wishes: Sequence[WantedTag]
    asked_at: float
    last: bool = False
    present: frozenset[str] | None = None


class Batcher:
    """Collects wishes of one repository into batches."""

    def __init__(
        self, repository: str, target: str, asked_at: float, on_batch: Callable[[WantedTags], None]
    ) -> None:
        self._repository = repository
        self.target = target
        self._asked_at = asked_at
        self._on_batch = on_batch
        self._wishes: list[WantedTag] = []

    def add(self, wish: WantedTag) -> None:
        """Takes a tag; a batch goes out when it is full."""
        self._wishes.append(wish)
        if len(self._wishes) >= BATCH_TAGS:
            self._on_batch(WantedTags(self._repository, self.target, self._wishes, self._asked_at))
            self._wishes = []

    def close(self, present: frozenset[str] | None) -> None:
        """Sends the last batch, with the names that the listing had."""
        wishes, asked_at = self._wishes, self._asked_at
        self._on_batch(
            WantedTags(self._repository, self.target, wishes, asked_at, last=True, present=present)
        )
