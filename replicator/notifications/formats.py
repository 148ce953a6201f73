"""All kinds of notifications, and how the kind of a delivery is found."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
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
    )  # gitea before ghcr: it sends GitHub's headers as well; gitlab accepts what distribution does
}  # fmt: skip
"""By their names in the config, in the order in which they are tried."""

MAX_EVENTS: Final = 20_000
"""Of one delivery. 1 MiB does not hold as many pushes of distribution; more are not what a registry sends."""

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


def read_events(each: Format, delivery: Delivery) -> list[Hint | None]:
    """The events of a delivery of this kind; None for each event to ignore.

    Raises:
        ValueError: it has more than `MAX_EVENTS`.
    """
    try:
        events = list(islice(each.read(delivery), MAX_EVENTS + 1))
    except ValueError:
        return [None]
    if len(events) > MAX_EVENTS:
        raise ValueError(f"more than {MAX_EVENTS} events")
    return events
