"""What a destination answers about one tag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from replicator.model.digest import Digest


@dataclass(frozen=True, slots=True)
class Seen:
    """The destination's answer about a tag: None if it does not have the tag. `unreadable`: it refuses to tell."""

    digest: Digest | None
    unreadable: bool = False


UNTOLD: Final = Seen(None, unreadable=True)
