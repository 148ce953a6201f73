"""How long a registry or bucket is waited for."""

from __future__ import annotations

from typing import Final

import msgspec

COMMITTED_BYTES_PER_SECOND: Final = 10_000_000
"""The slowest copy inside a site's own object store that is waited for; 100 GB take up to three hours."""


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds of patience with a site, and the bytes a second that it must keep. No key bounds a whole transfer.

    `connect`: to connect, TLS included. `first_byte`: until a blob begins to come (a pull-through cache fetches it
    first). `read`: until any other answer begins, until the next bytes of an answer come, and until the site takes the
    next bytes of an upload. `commit`: for the answer to what is written; `commit_seconds` adds to it by size.
    `minimum_rate`: see `reading.Reading`.
    """

    connect: float = 30.0
    first_byte: float = 300.0
    read: float = 60.0
    commit: float = 900.0
    minimum_rate: float = 1000.0

    def commit_seconds(self, size: int) -> float:
        """How long to wait for the answer to a write of `size` bytes: object stores copy them before they answer."""
        return self.commit + size / COMMITTED_BYTES_PER_SECOND
