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

    __slots__ = ("moving", "repositories", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.repositories: dict[str, list[int]] = {}
        """By repository: images that need it there, and (1) whether it is there."""
        self.moving = 0
        """Bytes of it that have moved in a transfer in progress."""

    @property
    def is_there(self) -> bool:
        """Whether some repository has it."""
        return any(there for _, there in self.repositories.values())

    def left(self, *, is_shared: bool) -> int:
        """Bytes that must still move for it."""
        waiting = sum(users > 0 and not there for users, there in self.repositories.values())
        if is_shared and self.is_there:
            # A transfer that began before this was known goes on.
            return max(0, self.size - self.moving) if self.moving else 0
        return max(0, (min(waiting, 1) if is_shared else waiting) * self.size - self.moving)


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
        for digest, size in (*event.blobs, *manifests):
            item = self._items.setdefault(digest, _Item(size))
            with_it = item.left(is_shared=self._is_shared)
            item.repositories.setdefault(event.repository, [0, 0])[0] += 1
            self.left += item.left(is_shared=self._is_shared) - with_it
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
        moving = self._moving.get(key) or _Moving(event.source, now, is_again=item.is_there)
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
        for digest in needed or ():
            item = self._items[digest]
            before = item.left(is_shared=self._is_shared)
            need = item.repositories[event.repository]
            need[0] -= 1
            if not need[0] and event.outcome == "copied":
                need[1] = 1  # a manifest; or a blob that was below one that is there
            self.left += item.left(is_shared=self._is_shared) - before

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
        before = item.left(is_shared=self._is_shared)
        item.moving += count
        self.moved += count
        self.left += item.left(is_shared=self._is_shared) - before

    def _arrive(self, item: _Item, repository: str, moving: _Moving, outcome: str) -> None:
        at = moving.at
        before, was_shared = item.left(is_shared=self._is_shared), self._is_shared
        if outcome in {"copied", "manifest"}:
            self.moved += item.size - at
            self._again += moving.is_again and outcome == "copied"
        else:
            self.moved -= at
            self._mounted += outcome == "mounted"
        item.moving -= at
        item.repositories.setdefault(repository, [0, 0])[1] = 1
        self.left += item.left(is_shared=was_shared) - before
        if was_shared != self._is_shared:
            self._count_anew()

    def _count_anew(self) -> None:
        self.left = sum(each.left(is_shared=self._is_shared) for each in self._items.values())
