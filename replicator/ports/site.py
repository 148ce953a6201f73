"""Sites: registries, buckets and directories alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from replicator.model.digest import Digest
from replicator.ports.power import Power
from replicator.ports.repository import Repository


class Capabilities(msgspec.Struct, frozen=True):
    """What a site can do, as far as the engine has to know. Discovered or configured, never asked by kind of site.

    `mount`: a blob of another repository of the site can be used without sending it. `sparse`: whether an index is
    accepted of which children are missing; None where only a copy tells.
    """

    mount: bool = False
    sparse: bool | None = None


class SiteCheck(msgspec.Struct, frozen=True):
    """What `check` found at a site.

    `findings` are (what, answer) pairs in the order to show, such as ("credentials", "good");
    `problems` are one-line errors, none of them meaning that the site passed.
    """

    site: str
    findings: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]


class Site(Protocol):
    """One place that holds images."""

    @property
    def name(self) -> str:
        """The name in the config."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """As known now; may get better informed with use."""
        ...

    def repositories(self) -> AsyncIterator[Sequence[str]]:
        """The repositories, a page at a time. Raises `Unsupported` where the site has no catalog."""
        ...

    def repository(self, name: str) -> Repository:
        """A repository by name; asks nothing yet."""
        ...

    async def check(self, *, repositories: Sequence[str] = (), push: str | None = None) -> SiteCheck:
        """Reaches the site and says what works.

        Args:
            repositories: some that must be readable (the first that the rules name).
            push: a repository in which to start and cancel an upload.
        """
        ...

    async def aclose(self) -> None:
        """Gives everything back. The site is of no use afterwards."""
        ...


# --- optional powers, found by isinstance ---


@runtime_checkable
class ListsBlobs(Protocol, metaclass=Power):
    """A site that tells by listing which blobs it has."""

    def blobs(self) -> AsyncIterator[tuple[str | None, Sequence[tuple[Digest, int]]]]:
        """Pages of digests (manifests' among them) and sizes as they lie there, with a repository that has them.

        None for the repository: whichever is asked has them.
        """
        ...


@runtime_checkable
class RefusesNames(Protocol, metaclass=Power):
    """A site that cannot hold every repository that the standard's grammar allows."""

    def refuses_name(self, repository: str) -> str | None:
        """Why the site cannot hold a repository of that name, in words; None where it can. Asks nobody."""
        ...


@runtime_checkable
class ExpectsContent(Protocol, metaclass=Power):
    """A site or store that could be mistaken for an empty one, as a directory whose file system is not mounted."""

    def expect_content(self) -> None:
        """Content was seen here before: if nothing is here now, every operation fails (`Unavailable`)."""
        ...


@runtime_checkable
class MeetsAhead(Protocol, metaclass=Power):
    """A site whose first request waits for another one that can be sent before."""

    def meet_ahead(self) -> None:
        """Begins it in the background. Only for a site that will be asked: its outcome is the first request's."""
        ...


@runtime_checkable
class ConnectsAhead(Protocol, metaclass=Power):
    """A site whose first request needs a connection that can be opened before."""

    def connect_ahead(self) -> None:
        """Opens one in the background. Nothing is asked; what fails is left to the first request."""
        ...


@runtime_checkable
class SharesLimits(Protocol, metaclass=Power):
    """A site whose limits hold for several agents together."""

    def limit_to(self, share: float) -> None:
        """From now on this agent keeps to `share` (above 0, at most 1) of what is configured for the site.

        Holds for concurrency (never less than one request), rates and bytes a second. Requests in progress go on.
        """
        ...


@runtime_checkable
class LimitsBytes(Protocol, metaclass=Power):
    """A site or store whose bytes a second can be limited while it works."""

    def set_bytes_per_second(self, rate: float | None) -> None:
        """Another limit from now on, read and written together; None is none."""
        ...
