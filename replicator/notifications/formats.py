"""All kinds of notifications, and which of them a delivery is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from replicator.notifications import (
    acr,
    alibaba,
    artifactory,
    distribution,
    dockerhub,
    ecr,
    ghcr,
    gitea,
    gitlab,
    google,
    harbor,
    nexus,
    quay,
    zot,
)
from replicator.notifications.format import Delivery, Format, Hint

FORMATS: Final[Mapping[str, Format]] = {
    each.FORMAT.kind: each.FORMAT
    for each in (
        distribution, harbor, quay, acr, dockerhub, alibaba, google, ecr, gitea, ghcr, artifactory, nexus, zot,
        gitlab,
    )  # gitea before ghcr: it sends GitHub's headers as well; gitlab takes what distribution does
}  # fmt: skip
"""By the name that the config has for them, in the order in which they are asked."""

MEDIA_TYPES: Final = frozenset().union(*(each.media_types for each in FORMATS.values()))


def format_of(delivery: Delivery, kind: str | None, *, likely: str = "") -> Format | None:
    """The kind of a delivery; None if it is of none that is known, or not of the configured one.

    Args:
        delivery: the request.
        kind: the only kind that the webhook takes, a key of `FORMATS`; None for all.
        likely: the vendor of the webhook's site, which is asked first if it is known here.
    """
    if kind is not None:
        return FORMATS[kind] if FORMATS[kind].recognises(delivery) else None
    asked = (FORMATS[likely], *FORMATS.values()) if likely in FORMATS else FORMATS.values()
    return next((each for each in asked if each.recognises(delivery)), None)


def read_events(each: Format, delivery: Delivery) -> list[Hint | None]:
    """The events of a delivery that is of this kind; None for each that is ignored. Never raises."""
    try:
        return list(each.read(delivery))
    except ValueError:
        return [None]
