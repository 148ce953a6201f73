"""What a destination answers about one tag."""

from __future__ import annotations

from typing import Final

import msgspec

from replicator.model.digest import Digest


class Seen(msgspec.Struct, frozen=True):
    """The destination's answer about a tag: None if it does not have the tag. `unreadable`: it refuses to tell."""

    digest: Digest | None
    unreadable: bool = False


UNTOLD: Final = Seen(None, unreadable=True)
