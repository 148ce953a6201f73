"""Tags that a registry does not let be moved: how it says so, and which they are."""

from __future__ import annotations

from typing import Final

from replicator.errors import AuthFailed, Denied, Rejected, SiteError, Unsupported
from replicator.sites.registry.vendors.vendor import ANY_IMMUTABLE, Refusal, Vendor

FIXED_SECONDS: Final = 86_400.0
"""How long a tag that was refused is believed to be immutable; then it is tried again."""


def says_fixed(error: SiteError, vendor: Vendor | None) -> bool:
    """Whether the refusal of a manifest may be about its tag (docs/quirks.md#immutable-tags).

    Some vendors refuse a tag as they refuse who may not write at all: whoever asks makes sure that the tag is there.
    """
    return any(says(refusal, error) for refusal in (*ANY_IMMUTABLE, *(vendor.immutable if vendor else ())))


def says(refusal: Refusal, error: SiteError) -> bool:
    """Whether an error is that refusal."""
    status, codes = _status(error)
    return refusal.matches(status, codes, error.cause)


def _status(error: SiteError) -> tuple[int | None, tuple[str, ...]]:
    match error:
        case Rejected():
            return error.status, error.codes
        case AuthFailed():
            return 401, ()
        case Denied():
            return 403, ()
        case Unsupported():
            return 405, ()
    return None, ()


class FixedTags:
    """The tags that one registry has refused to move, for a day."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], float] = {}

    def add(self, repository: str, tag: str, now: float) -> None:
        """Notes a refusal; `now` in epoch seconds."""
        self._until[repository, tag] = now + FIXED_SECONDS

    def has(self, repository: str, tag: str, now: float) -> bool:
        """Whether the tag was refused within the last day."""
        return now < self._until.get((repository, tag), 0.0)
