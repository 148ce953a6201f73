"""Which image goes first: of those already read, the one that shares most bytes with the others."""

from __future__ import annotations

from collections import Counter
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
    """Images ready to be copied. Pure; its size is its user's affair."""

    def __init__(self) -> None:
        self._images: list[Prepared] = []
        self._wanted: Counter[Digest] = Counter()
        self.manifest_bytes = 0

    def __len__(self) -> int:
        return len(self._images)

    def add(self, prepared: Prepared) -> None:
        """Takes an image in."""
        self._images.append(prepared)
        self._wanted.update(prepared.image.blobs.keys())
        self.manifest_bytes += prepared.image.manifest_bytes

    def take(self) -> Prepared:
        """Gives out the image that shares most; among equals the one that came first. Raises IndexError if empty."""
        if not self._images:
            raise IndexError("the window is empty")
        best = max(
            range(len(self._images)), key=lambda index: (self._shared(self._images[index].image), -index)
        )
        prepared = self._images.pop(best)
        self._wanted.subtract(prepared.image.blobs.keys())
        self.manifest_bytes -= prepared.image.manifest_bytes
        return prepared

    def _shared(self, image: Image) -> int:
        wanted = self._wanted
        return sum((blob.size or 0) * (wanted[digest] - 1) for digest, blob in image.blobs.items())
