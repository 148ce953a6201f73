"""What must move to one destination, what has moved and what is moving, by distinct blobs and manifests. Pure."""

from __future__ import annotations

from collections import deque
from heapq import nlargest
from typing import Final

import msgspec

from replicator.events import BlobDone, BytesWritten, ImagePrepared, TagDone

WINDOW_SECONDS: Final = 15
"""Rates are those of the last seconds."""
TRANSFERS_SHOWN: Final = 3
_REFUSALS: Final = 3
"""This many more blobs moved again than mounted show that mounts do not work. One may be a matter of turns."""
_RECENT_IMAGES: Final = 32
"""What images that have not been read will need is estimated from at least this many that have."""


class TransferProgress(msgspec.Struct, frozen=True):
    """One blob on its way. `rate` in bytes per second, since it began."""

    source: str
    destination: str
    repository: str
    digest: str
    size: int
    moved: int
    rate: float


class Rate:
    """Bytes per second over the last `WINDOW_SECONDS`."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()
        self._began: float | None = None

    def add(self, now: float, count: int) -> None:
        """Counts bytes; `now` is monotonic."""
        if self._began is None or not self._trim(now):
            self._began = now
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            count += self._seconds.pop()[1]
        self._seconds.append((second, count))

    def at(self, now: float) -> float:
        """The rate now."""
        if self._began is None or not self._trim(now):
            return 0.0
        return sum(count for _, count in self._seconds) / max(1.0, min(WINDOW_SECONDS, now - self._began))

    def _trim(self, now: float) -> bool:
        while self._seconds and self._seconds[0][0] <= now - WINDOW_SECONDS:
            self._seconds.popleft()
        return bool(self._seconds)


class _Item:
    """A blob or manifest that a destination needs, in one or more repositories."""

    __slots__ = ("_places", "moving", "size", "there", "waiting")

    def __init__(self, size: int) -> None:
        self.size = size
        self.there = 0
        """Repositories that have it."""
        self.waiting = 0
        """Repositories that need it and do not have it."""
        self.moving = 0
        """Bytes of it that have moved in a transfer in progress."""
        self._places: dict[str, list[int]] = {}
        """By repository: images that need it there, and (1) whether it is there."""

    def need(self, repository: str) -> None:
        """One more image of a repository needs it."""
        place = self._places.setdefault(repository, [0, 0])
        self.waiting += place == [0, 0]
        place[0] += 1

    def release(self, repository: str, *, is_there: bool) -> None:
        """An image of a repository needs it no more. `is_there`: with its last image, it is known to be there."""
        place = self._places[repository]
        place[0] -= 1
        self.waiting -= place == [0, 0]
        if is_there and not place[0]:
            self.arrive(repository)

    def arrive(self, repository: str) -> None:
        """A repository has it."""
        place = self._places.setdefault(repository, [0, 0])
        if not place[1]:
            place[1] = 1
            self.there += 1
            self.waiting -= place[0] > 0

    def left(self, *, is_shared: bool) -> int:
        """Bytes that must still move for it."""
        if is_shared and self.there:
            # A transfer that began before this was known goes on.
            return max(0, self.size - self.moving) if self.moving else 0
        return max(0, (min(self.waiting, 1) if is_shared else self.waiting) * self.size - self.moving)


class _Moving:
    """A transfer in progress. `is_again`: another repository had the blob when it began, so that it was not mounted."""

    __slots__ = ("at", "began", "is_again", "source")

    def __init__(self, source: str, began: float, *, is_again: bool = False) -> None:
        self.source = source
        self.began = began
        self.is_again = is_again
        self.at = 0


class Ledger:
    """What must move to one destination, what has moved, and what is moving."""

    def __init__(self) -> None:
        self._items: dict[str, _Item] = {}
        self._images: dict[tuple[str, str, str], tuple[str, ...]] = {}
        self._manifests: set[str] = set()
        self._moving: dict[tuple[str, str], _Moving] = {}
        """By repository and digest."""
        self._again = self._mounted = 0
        self._mounts = True
        self._recent: deque[int] = deque(maxlen=_RECENT_IMAGES)
        self.rate = Rate()
        self.moved = 0
        self.left = 0
        self.known = 0
        """Images that have been read, or need not be any more."""

    @property
    def per_image(self) -> float:
        """Bytes that an image needs which is not read yet, by those that were read last."""
        return sum(self._recent) / len(self._recent) if self._recent else 0.0

    def prepare(self, event: ImagePrepared) -> None:
        """An image's blobs and manifests are known."""
        if event.mounts != self._mounts:
            self._mounts = event.mounts
            self._count_anew()
        before = self.left
        # A manifest is put into each repository, whatever others have.
        manifests = [(f"{event.repository}@{digest}", size) for digest, size in event.manifests]
        is_shared = self._is_shared
        for digest, size in (*event.blobs, *manifests):
            item = self._items.get(digest)
            if item is None:
                item = self._items[digest] = _Item(size)
            with_it = item.left(is_shared=is_shared)
            item.need(event.repository)
            self.left += item.left(is_shared=is_shared) - with_it
        self._manifests.update(key for key, _ in manifests)
        digests = tuple(digest for digest, _ in (*event.blobs, *manifests))
        self._images[event.rule, event.repository, event.tag] = digests
        self._recent.append(self.left - before)
        self.known += 1

    def move(self, event: BytesWritten, now: float) -> None:
        """Bytes of a blob or manifest went out; `position` is how far it is now."""
        self.rate.add(now, event.count)
        manifest = f"{event.repository}@{event.digest}"
        is_manifest = manifest in self._manifests
        item = self._items.get(manifest if is_manifest else event.digest)
        if item is None:
            return
        key = (event.repository, event.digest)
        moving = self._moving.get(key) or _Moving(event.source, now, is_again=item.there > 0)
        position = min(event.position, item.size)
        self._advance(item, position - moving.at)
        moving.at = position
        if is_manifest:
            self._arrive(item, event.repository, moving, "manifest")
        else:
            self._moving[key] = moving

    def end_blob(self, event: BlobDone) -> None:
        """A transfer has ended, or was not needed."""
        item = self._items.get(event.digest)
        moving = self._moving.pop((event.repository, event.digest), None) or _Moving(event.source, 0.0)
        if item is None:
            return
        if event.outcome == "failed":
            self._advance(item, -moving.at)
        else:
            self._arrive(item, event.repository, moving, event.outcome)

    def end_image(self, event: TagDone) -> None:
        """An image is through: what only it needed is needed no more."""
        needed = self._images.pop((event.rule, event.repository, event.tag), None)
        self.known += needed is None  # it ended before it was read
        is_shared, is_there = self._is_shared, event.outcome == "copied"
        for digest in needed or ():
            item = self._items[digest]
            before = item.left(is_shared=is_shared)
            item.release(event.repository, is_there=is_there)  # a manifest; or a blob below one that is there
            self.left += item.left(is_shared=is_shared) - before

    def transfers(self, destination: str, now: float) -> list[TransferProgress]:
        """The largest transfers in progress."""
        found = nlargest(TRANSFERS_SHOWN, self._moving.items(), key=lambda each: self._items[each[0][1]].size)
        return [
            TransferProgress(
                moving.source,
                destination,
                repository,
                digest,
                self._items[digest].size,
                moving.at,
                round(moving.at / max(0.5, now - moving.began), 1),
            )
            for (repository, digest), moving in found
        ]

    @property
    def _is_shared(self) -> bool:
        """Whether a blob that moves once is enough for all repositories: as long as mounts work."""
        return self._mounts and self._again < self._mounted + _REFUSALS

    def _advance(self, item: _Item, count: int) -> None:
        is_shared = self._is_shared
        before = item.left(is_shared=is_shared)
        item.moving += count
        self.moved += count
        self.left += item.left(is_shared=is_shared) - before

    def _arrive(self, item: _Item, repository: str, moving: _Moving, outcome: str) -> None:
        at = moving.at
        was_shared = self._is_shared
        before = item.left(is_shared=was_shared)
        if outcome in {"copied", "manifest"}:
            self.moved += item.size - at
            self._again += moving.is_again and outcome == "copied"
        else:
            self.moved -= at
            self._mounted += outcome == "mounted"
        item.moving -= at
        item.arrive(repository)
        self.left += item.left(is_shared=was_shared) - before
        if was_shared != self._is_shared:
            self._count_anew()

    def _count_anew(self) -> None:
        self.left = sum(each.left(is_shared=self._is_shared) for each in self._items.values())
