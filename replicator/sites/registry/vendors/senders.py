"""The vendors' notifications by kind, and how the kind of a delivery is found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from replicator.notifications.format import Delivery, Format
from replicator.sites.registry.vendors.known import VENDORS

FORMATS: Final[Mapping[str, Format]] = {
    vendor.notifications.kind: vendor.notifications
    for vendor in reversed(VENDORS)
    if vendor.notifications is not None
}
"""By their names in the config, in the order in which they are tried. It is the reverse of `VENDORS`: Gitea, which sends
GitHub's headers as well, comes before GitHub, and distribution before GitLab, which takes the same payload."""

MEDIA_TYPES: Final = frozenset().union(*(each.media_types for each in FORMATS.values()))


def format_of(delivery: Delivery, kind: str | None, *, likely: str = "") -> Format | None:
    """The kind of a delivery; None if it is unknown, or differs from the configured one.

    Args:
        delivery: the request.
        kind: the only kind that the webhook accepts, a key of `FORMATS`; None for all.
        likely: the vendor of the webhook's site, tried first if it has notifications.
    """
    if kind is not None:
        return FORMATS[kind] if FORMATS[kind].recognizes(delivery) else None
    asked = (FORMATS[likely], *FORMATS.values()) if likely in FORMATS else FORMATS.values()
    return next((each for each in asked if each.recognizes(delivery)), None)
