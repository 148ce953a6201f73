"""Where an upload or a listing goes on: opaque, often signed URLs of the registry's choosing.

Nothing here is decoded and encoded again: distribution, Harbor and ACR sign `_state`, clouds sign the whole
query.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from yarl import URL

from replicator.model.digest import Digest
from replicator.sites.bounds import MAX_URL_CHARACTERS
from replicator.sites.registry.addresses import AddressGuard
from replicator.sites.registry.origin import refusal, resolve, upgraded, with_prefix

UNSAFE: Final = re.compile(r"[\x00-\x20\x7f]")


def resolve_location(
    location: str, *, asked: URL, registry: URL, guard: AddressGuard | None = None, downgrade: bool = False
) -> str:
    """The absolute URL that a `Location` (or a paging link) means, its path and query byte for byte.

    Args:
        location: the header's value: absolute, without a scheme (`//host/...`), an absolute or a relative path.
        asked: the URL whose answer carried it.
        registry: the registry's own URL, which decides what is a downgrade and what is private.
        guard: see `origin.refusal`.
        downgrade: see there.

    Raises:
        ValueError: not to be followed; see `origin.refusal`. The text does not repeat the location.
    """
    if len(location) > MAX_URL_CHARACTERS:
        raise ValueError(f"it has {len(location)} characters")
    if not location or UNSAFE.search(location):
        raise ValueError("it is empty, or has spaces or control characters in it")
    target = with_prefix(registry, upgraded(registry, resolve(asked, location)))
    reason = refusal(registry, target, guard, downgrade=downgrade)
    if reason is not None:
        raise ValueError(reason)
    return str(target)


def with_digest(location: str, digest: Digest) -> str:
    """The location with `digest=` appended, the rest untouched."""
    return f"{location}{'&' if '?' in location else '?'}digest={quote(digest, safe='')}"
