"""What a request wants to do at a registry, and what it is sent with to be allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from multidict import CIMultiDictProxy

from replicator.sites.registry.challenge import Challenge
from replicator.sites.registry.credentials import Credentials

FOREVER: Final = float("inf")
MAX_GRANTS: Final = 10
"""Grants tried for one request: old, new, of changed secrets, of a single scope; a fresh one several times."""


class Scope(NamedTuple):
    """What a request wants to do; see `http.Call`."""

    repository: str | None
    actions: str
    also_pull: str | None = None

    def texts(self) -> list[str]:
        """As token services know it, the widest first: some read only the first."""
        if self.repository is None:
            return ["registry:catalog:*"] if self.actions == "catalog" else []
        texts = [f"repository:{self.repository}:{self.actions}"]
        if self.also_pull is not None and self.also_pull != self.repository:
            texts.append(f"repository:{self.also_pull}:pull")
        return texts

    def supersets(self) -> tuple[Scope, ...]:
        """Scopes whose grants do for this one, too."""
        if self.actions != "pull" or self.repository is None or self.also_pull is not None:
            return ()
        return (Scope(self.repository, "pull,push"),)


@dataclass(slots=True, eq=False)
class Grant:
    """What a request is sent with. Times are of the monotonic clock.

    `headers` are complete (one object for all requests of the grant). `accepted` is set by whoever sees a
    request with it pass; a refusal then means age.
    """

    scope: Scope
    headers: Mapping[str, str] = field(repr=False)
    challenge: Challenge | None = None
    credentials: Credentials | None = None
    obtained: float = 0.0
    refresh_at: float = FOREVER
    refresh_before_body: float = FOREVER
    accepted: bool = False


NO_GRANT: Final = Grant(Scope(None, ""), {})
"""For hosts that are not the registry."""


class Refusal(Protocol):
    """A reply of 401 or 403."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """With the challenges."""
        ...
