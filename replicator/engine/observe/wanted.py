"""What a rule wants of its source: tags with what they name, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from replicator.errors import SiteError
from replicator.model.digest import Digest

BATCH_TAGS: Final = 256


class WantedTag(msgspec.Struct, frozen=True):
    """One tag of a source repository as resolved: `tag` and `digest` at the source, `target` at the destination.

    `tag` and `target` are None for a digest that is pinned without a tag. `digest` is None for an immutable tag
    that every destination is believed to have, which is not asked for again. `archived`: the source has it, but cannot
    give it out for now. `news`: an event says that something new refers to it.
    """

    tag: str | None
    target: str | None
    digest: Digest | None
    archived: bool = False
    news: bool = False

    @property
    def key(self) -> str:
        """What it is at the destination: the tag, or the digest where it is wanted without one."""
        return self.target or self.digest or ""


class UnresolvedTag(msgspec.Struct, frozen=True):
    """A selected tag whose digest the source could not tell."""

    tag: str
    target: str
    error: SiteError


class OtherTag(msgspec.Struct, frozen=True):
    """A tag that an event named and that is not wanted: the rule leaves it out, or (`is_absent`) it does not exist.

    `digest` is what the source named, where that is known.
    """

    tag: str
    digest: Digest | None
    is_absent: bool = False


class WantedTags(msgspec.Struct, frozen=True):
    """Some of the tags wanted of one source repository.

    `asked_at` (monotonic seconds) and `asked_wall` (epoch seconds) are when the source was first asked about the
    repository. The last batch also tells whether the repository was listed completely, so that its selected tags are
    all that is wanted, and `present`: every tag that the listing had (None without a complete listing of
    everything), so that what is gone can be told from what was not asked for. `companions`: of those, the tags that belong
    to other images (see `model.companion`), with what they name where the listing told.
    """

    repository: str
    target: str
    tags: Sequence[WantedTag]
    asked_at: float
    asked_wall: float
    unresolved: Sequence[UnresolvedTag] = ()
    others: Sequence[OtherTag] = ()
    is_last: bool = False
    is_complete: bool = False
    present: frozenset[str] | None = None
    companions: Mapping[str, Digest | None] | None = None


class Batcher:
    """Collects tags of one repository into batches.

    Args:
        repository: at the source.
        target: at the destinations.
        asked: when the source was first asked: monotonic, epoch seconds.
        on_batch: gets each batch.
        companions: the companion tags of the repository; None if they are not known.
    """

    def __init__(
        self,
        repository: str,
        target: str,
        asked: tuple[float, float],
        on_batch: Callable[[WantedTags], None],
        companions: Mapping[str, Digest | None] | None = None,
    ) -> None:
        self.repository = repository
        self.target = target
        self._asked = asked
        self._on_batch = on_batch
        self._companions = companions
        self._tags: list[WantedTag] = []
        self._unresolved: list[UnresolvedTag] = []
        self._others: list[OtherTag] = []
        self.is_cut = False
        """Whether some tags could not be asked for at all."""

    def add(self, wanted: WantedTag) -> None:
        """Takes a tag; a batch goes out when it is full."""
        self._tags.append(wanted)
        self._send_if_full()

    def add_unresolved(self, tag: UnresolvedTag) -> None:
        """Takes a tag that could not be resolved."""
        self._unresolved.append(tag)
        self._send_if_full()

    def add_other(self, tag: str, digest: Digest | None, *, is_absent: bool = False) -> None:
        """Takes a tag that is not wanted."""
        self._others.append(OtherTag(tag, digest, is_absent))

    def _send_if_full(self) -> None:
        if len(self._tags) + len(self._unresolved) >= BATCH_TAGS:
            self._send()

    def _send(
        self, *, is_last: bool = False, is_complete: bool = False, present: frozenset[str] | None = None
    ) -> None:
        tags, self._tags = self._tags, []
        unresolved, self._unresolved = self._unresolved, []
        others, self._others = self._others, []
        self._on_batch(
            WantedTags(
                self.repository,
                self.target,
                tags,
                *self._asked,
                unresolved=unresolved,
                others=others,
                is_last=is_last,
                is_complete=is_complete,
                present=present,
                companions=self._companions,
            )
        )

    def close(self, *, is_complete: bool, present: frozenset[str] | None) -> None:
        """Sends the last batch."""
        self._send(is_last=True, is_complete=is_complete, present=present)
