"""Which image goes first: of those already read, the one that shares most bytes with the others."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass

from replicator.engine.image import Image
from replicator.engine.plan import Action
from replicator.model.digest import Digest


@dataclass(frozen=True, slots=True)
class Prepared:
    """An action with its image."""

    action: Action
    image: Image


class Window:
    """Images ready to be copied. Pure; its size is its user's affair.

    Each image's score, the bytes that it shares with the others, is kept up to date as they come and go: taking one
    out is asked for far more often than there is anything shared.
    """

    def __init__(self) -> None:
        self._images: dict[int, Prepared] = {}
        self._scores: dict[int, int] = {}
        self._holders: defaultdict[Digest, set[int]] = defaultdict(set)
        self._numbers = itertools.count()
        self.manifest_bytes = 0

    def __len__(self) -> int:
        return len(self._images)

    def add(self, prepared: Prepared) -> None:
        """Takes an image in."""
        number, score = next(self._numbers), 0
        for digest, blob in prepared.image.blobs.items():
            holders = self._holders[digest]
            for holder in holders:
                self._scores[holder] += blob.size or 0
            score += len(holders) * (blob.size or 0)
            holders.add(number)
        self._scores[number] = score
        self._images[number] = prepared
        self.manifest_bytes += prepared.image.manifest_bytes

    def take(self) -> Prepared:
        """Gives out the image that shares most; among equals the one that came first. Raises IndexError if empty."""
        if not self._images:
            raise IndexError("the window is empty")
        most = max(self._scores.values())
        number = next(number for number, score in self._scores.items() if score == most)
        prepared = self._images.pop(number)
        del self._scores[number]
        for digest, blob in prepared.image.blobs.items():
            holders = self._holders[digest]
            holders.remove(number)
            for holder in holders:
                self._scores[holder] -= blob.size or 0
            if not holders:
                del self._holders[digest]
        self.manifest_bytes -= prepared.image.manifest_bytes
        return prepared
