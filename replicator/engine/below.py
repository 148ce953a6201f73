"""What is remembered between runs of images and of listings, so that the referrers of a platform are found by its image."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from replicator.model.digest import Digest

REMEMBERED_ROOTS: Final = 10_000
"""A few hundred bytes each."""
REMEMBERED_COMPANIONS: Final = 200_000
"""About a hundred bytes each."""


class KnownChildren:
    """The manifests below roots. A root never gets others."""

    def __init__(self) -> None:
        self._known: OrderedDict[Digest, tuple[Digest, ...]] = OrderedDict()

    def get(self, root: Digest) -> tuple[Digest, ...] | None:
        """What is below a root; None if it is not known."""
        return self._known.get(root)

    def add(self, root: Digest, children: Sequence[Digest]) -> None:
        """Remembers one; the oldest is forgotten."""
        self._known[root] = tuple(children)
        if len(self._known) > REMEMBERED_ROOTS:
            self._known.popitem(last=False)


class SeenCompanions:
    """The companion tags that the latest listing of each repository had, with what they named as far as it told."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], frozenset[int]] = OrderedDict()
        self._count = 0

    def replace(
        self, rule: str, repository: str, companions: Mapping[str, Digest | None], *, record: bool
    ) -> frozenset[str]:
        """Those that are new or have changed since the listing before; none at the first one.

        Args:
            rule: whose scan it is: each rule must learn of them.
            repository: at the source.
            companions: all that the repository has now.
            record: False leaves everything as it is.
        """
        key = (rule, repository)
        before = self._seen.get(key)
        found = {hash(item): item[0] for item in companions.items()}
        if record and (before is None or before != found.keys()):
            self._count += len(found) - len(self._seen.pop(key, ()))
            self._seen[key] = frozenset(found)
            while self._count > REMEMBERED_COMPANIONS and len(self._seen) > 1:
                self._count -= len(self._seen.popitem(last=False)[1])
        if before is None:
            return frozenset()
        return frozenset(tag for number, tag in found.items() if number not in before)
