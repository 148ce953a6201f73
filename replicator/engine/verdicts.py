"""Verdicts on images, remembered."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from replicator.model.digest import Digest

if TYPE_CHECKING:
    from replicator.trust.verify import Verdict

_REMEMBERED: Final = 10_000

VerdictKey = tuple[Digest, str, str, frozenset[Digest]]
"""The image, its repository, the fingerprint of what is demanded, and the manifests that may be signatures."""


class Verdicts:
    """Verdicts on images, of all runs of a process.

    A verdict depends on its key alone: while none of that changes, no signature is read again.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[VerdictKey, Verdict] = OrderedDict()

    def get(self, key: VerdictKey) -> Verdict | None:
        """The verdict, if it is known."""
        return self._known.get(key)

    def put(self, key: VerdictKey, verdict: Verdict) -> None:
        """Remembers a verdict, and forgets the oldest of too many."""
        self._known[key] = verdict
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
