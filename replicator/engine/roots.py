"""What choices of platforms made of images, remembered between runs: an image that is held is not read in each of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from replicator.model.digest import Digest
from replicator.policy.platforms import Platforms

REMEMBERED: Final = 20_000
"""Images, a few hundred bytes each."""


class Root(msgspec.Struct, frozen=True):
    """What a choice of platforms makes of an image: its root at the destination.

    `lacking`: why the image has not what is chosen; "" where it has.
    """

    digest: Digest
    lacking: str = ""


class ChosenRoots:
    """Roots by the source's digest and the choice; neither ever changes what it comes to."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Digest, str], Root] = OrderedDict()

    def get(self, digest: Digest, platforms: Platforms) -> Root | None:
        """What is known."""
        return self._known.get(_key(digest, platforms))

    def add(self, digest: Digest, platforms: Platforms, root: Root) -> None:
        """Remembers one; the oldest is forgotten."""
        self._known[_key(digest, platforms)] = root
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def _key(digest: Digest, platforms: Platforms) -> tuple[Digest, str]:
    return digest, f"{platforms.key} {platforms.missing}"
