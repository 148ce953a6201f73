"""How much a site is to be spared, free of the config's syntax."""

from __future__ import annotations

from typing import Final

import msgspec

DEFAULT_CONCURRENCY: Final = 128
STREAMS: Final = 64
"""More blobs at once do not finish sooner, and on a slow link each may become too slow for the time limits."""


class LimitSettings(msgspec.Struct, frozen=True):
    """Limits of one site; None is unlimited.

    `concurrency` is the most small requests at once. Requests a second are of all kinds together, bytes a second read and
    written together.
    """

    concurrency: int = DEFAULT_CONCURRENCY
    requests_per_second: float | None = None
    bytes_per_second: float | None = None

    @property
    def streams(self) -> int:
        """The most blobs that are read at once, and the most that are written."""
        return min(self.concurrency, max(STREAMS, self.concurrency // 2))
