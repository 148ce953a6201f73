"""How much a site is to be spared, free of the config's syntax."""

from __future__ import annotations

from typing import Final

import msgspec

DEFAULT_CONCURRENCY: Final = 128


class LimitSettings(msgspec.Struct, frozen=True):
    """Limits of one site; None is unlimited.

    `concurrency` is the widest that each gate gets: small requests, blob reads and blob writes. Requests a second
    are of all kinds together, bytes a second read and written together.
    """

    concurrency: int = DEFAULT_CONCURRENCY
    requests_per_second: float | None = None
    bytes_per_second: float | None = None
