"""How a vendor's repositories are created, where a push does not create them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol, TypeVar

import msgspec

from replicator.errors import Advice, AuthFailed, Denied, NotFound, SiteError
from replicator.model.decoding import JSON_ERRORS
from replicator.sites.registry.identity.settings import Identity
from replicator.sites.registry.vendors.listing import Closable, ListedRepository

if TYPE_CHECKING:
    from replicator.sites.registry.settings import ReadSecret

T = TypeVar("T", bound=Closable)

Listing = Literal["absent", "empty"]
"""What the latest listing of a repository has shown: it is refused or not found, or it has no tag."""

MARK: Final = ("created-by", "replicator")
"""The tag (Google: label) of the repositories that we created; others are never changed."""


@dataclass(frozen=True, slots=True)
class CreateSettings:
    """How missing repositories are created, as the config says it. None leaves a setting to the registry.

    `is_asked`: the config has `create`. `public`: who may pull. `immutability` and its `exclusions` (patterns of tags).
    `policy` and `lifecycle`: JSON. `quota`: bytes. `location`: region of the cloud, where the host name does not say it.
    `token`: of the vendor's API, where the site's login does not serve. `api`: its base URL, where it is at another host.
    """

    is_asked: bool = False
    public: bool | None = None
    immutability: Literal["MUTABLE", "IMMUTABLE"] | None = None
    exclusions: tuple[str, ...] = ()
    scan_on_push: bool | None = None
    encryption: str | None = None
    kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    policy: str | None = None
    lifecycle: str | None = None
    quota: int | None = None
    location: str = ""
    token: ReadSecret | None = field(default=None, repr=False)
    api: str = ""


@dataclass(frozen=True, slots=True)
class APIRequest:
    """One request to a vendor's API, with a JSON document as its body."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    document: Mapping[str, Any] | None = None


class APIAnswer(msgspec.Struct, frozen=True):
    """An answer of any status below 500 but 429, with its codes and its words as they may be shown."""

    status: int
    body: bytes
    codes: tuple[str, ...] = ()
    text: str = ""

    def document(self) -> Mapping[str, Any]:
        """The JSON object; an empty one for anything else."""
        try:
            found = msgspec.json.decode(self.body)
        except (*JSON_ERRORS, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


class CreationAPI(Protocol):
    """Asks a vendor's API on behalf of one registry.

    `site` is its name, `host` the registry's, `identity` the one that the config gives.
    """

    site: str
    host: str
    identity: Identity | None

    async def place(self, repository: str) -> ListedRepository:
        """Where the repository is, with the site's credentials."""
        ...

    async def send(self, request: APIRequest, repository: str) -> APIAnswer:
        """The answer to a request. Raises SiteError without one."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        ...

    def kept(self, make: Callable[[], T]) -> T:
        """What an earlier use of this API has made; `make` makes it."""
        ...

    def turn(self, operation: str, repository: str) -> AbstractAsyncContextManager[None]:
        """For one request that a library sends: it is limited and counted as our own are."""
        ...

    def refused(self, cause: str, repository: str, needs: str = "") -> SiteError:
        """A refusal that only a change there helps against; `needs` names the right that is missing."""
        ...


class RepositoryCreation(ABC):
    """One vendor's way. `create` is called when a write has shown that a repository is missing, once for each `unit`."""

    keys: ClassVar[frozenset[str]] = frozenset()
    """The keys of `create` in the config that mean something here."""
    required: ClassVar[frozenset[str]] = frozenset()
    """Those without which nothing can be created."""
    is_default: ClassVar[bool] = True
    """Whether repositories are created though the config does not say so."""
    what: ClassVar[str] = "repository"
    """What is created."""
    how: ClassVar[str]
    """By what, and with which right, for `check`."""

    @abstractmethod
    def unit(self, host: str, repository: str) -> str | None:
        """The name of what must be created for a repository; None where this registry cannot."""

    def is_absent(self, error: SiteError, repository: str) -> bool:  # noqa: ARG002 - Harbor's text names it
        """Whether a refused write says that the repository does not exist. By default, if it is a 404 with a known code."""
        return isinstance(error, NotFound) and not error.doubtful

    def is_ready(self, wanted: CreateSettings) -> bool:
        """Whether the config has what creating needs."""
        has_all = all(getattr(wanted, key) is not None for key in self.required)
        return has_all and (wanted.is_asked or self.is_default)

    def comes_first(self, listing: Listing, wanted: CreateSettings) -> bool:  # noqa: ARG002
        """Whether a repository is created ("absent") or completed ("empty") before the first write after such a listing.

        By default the write comes first.
        """
        return False

    @abstractmethod
    async def create(self, api: CreationAPI, repository: str, wanted: CreateSettings) -> bool:
        """Creates what is missing; whether it did. False where it is there, which then is as after `complete`.

        Raises:
            SiteError: it is refused, with the right that is missing by name, or nobody answered.
        """

    async def complete(self, api: CreationAPI, repository: str, wanted: CreateSettings) -> None:  # noqa: B027
        """Sets what a crash may have left out, where several requests create a repository.

        Only what has our `MARK` is changed. Raises as `create` does.
        """


def is_about_repository(error: SiteError) -> bool:
    """Whether a refusal may be of this repository alone: many registries hide what does not exist behind 401 or 403."""
    return isinstance(error, NotFound | AuthFailed | Denied) and error.advice is not Advice.STOP_SITE
