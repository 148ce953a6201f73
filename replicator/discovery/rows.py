"""What was found, put together: one row for an image's tag, its sites side by side. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from replicator.model.digest import Digest
from replicator.ports.search import Holding, Query

HeldState = Literal["held", "differs", "missing"]


@dataclass(frozen=True, slots=True)
class Route:
    """What a rule of the config says of where its tags come from and go to."""

    source: str
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class At:
    """A tag at one site. `digest` None: the site lacks it, since then, for this reason.

    `source_digest`: that of the index at the source, if the digest is of a rewritten one.
    """

    site: str
    repository: str
    digest: Digest | None
    since: float | None
    error: str = ""
    source_digest: Digest | None = None


@dataclass(slots=True)
class Row:
    """One tag of one source repository (or of a target whose source is not known), with what each site has of it."""

    repository: str
    tag: str
    source: str
    digest: Digest | None
    sites: dict[str, At] = field(default_factory=dict)

    def state_at(self, site: str) -> HeldState:
        """What a site has of it."""
        at = self.sites.get(site)
        if at is None or at.digest is None:
            return "missing"
        return "held" if self.digest in {None, at.digest, at.source_digest} else "differs"

    @property
    def is_behind(self) -> bool:
        """Whether a site that should hold it lacks it or has another digest."""
        return any(self.state_at(site) != "held" for site in self.sites)


def rows(holdings: Iterable[Holding], routes: Mapping[str, Route]) -> list[Row]:
    """The rows, by repository and tag.

    Args:
        holdings: what was found, in any order.
        routes: of the rules that are known by name; a holding of another rule has no source, and no site beside its own.
    """
    found: dict[tuple[str, str, str], Row] = {}
    for holding in holdings:
        route = routes.get(holding.rule)
        source = route.source if route else ""
        origin = holding.sources[0] if len(holding.sources) == 1 else holding.repository
        row = found.setdefault(
            (source, origin, holding.tag), Row(origin, holding.tag, source, holding.source_digest)
        )
        if holding.digest is None or row.digest is None:
            row.digest = holding.source_digest or row.digest
        known = row.sites.get(holding.destination)
        if known is None or known.digest is None or holding.digest is not None:
            row.sites[holding.destination] = At(
                holding.destination,
                holding.repository,
                holding.digest,
                holding.since,
                holding.error,
                holding.source_digest if holding.is_rewritten else None,
            )
        if route and source not in row.sites:
            row.sites[source] = At(source, origin, row.digest, None)
    return sorted(found.values(), key=lambda row: (row.repository, row.tag, row.source))


def about_site(query: Query, routes: Mapping[str, Route]) -> Query:
    """The query with its sites understood: what a condition on a source asks for is what the source's rules bring.

    Raises:
        ValueError: no rule names such a site; says which there are.
    """
    sites = {site for route in routes.values() for site in (route.source, *route.destinations)}
    for site in (query.destination, query.missing_at):
        if site and site not in sites:
            raise ValueError(f"{site}: unknown site; the rules have {', '.join(sorted(sites))}")
    rules = tuple(name for name, route in routes.items() if route.source == query.destination)
    return msgspec.structs.replace(query, rules=rules) if query.destination else query


def limited(holdings: Sequence[Holding], found: list[Row], limit: int) -> tuple[list[Row], bool]:
    """The first rows, and whether there are more tags. The holdings are those of one tag more than `limit`."""
    return found[:limit], len({(each.repository, each.tag) for each in holdings}) > limit


def missing_at(found: Sequence[Row], site: str) -> list[Row]:
    """The rows that a site lacks, or has with another digest; all, if no site is named."""
    return [row for row in found if not site or row.state_at(site) != "held"]


def columns(found: Sequence[Row], routes: Mapping[str, Route]) -> list[str]:
    """The sites to show: sources first, then destinations in the order of the rules, then others that were found."""
    known = [route.source for route in routes.values()]
    known += [site for route in routes.values() for site in route.destinations]
    seen = {site for row in found for site in row.sites}
    return [site for site in dict.fromkeys([*known, *sorted(seen)]) if site in seen or site in known]
