"""How a vendor lists tags with what they name: what to ask, and what an answer says. Pure but for `pages`.

A listing may be refused, and may lag behind the registry: whoever uses it falls back to the standard's listing, and asks
again before acting on a difference.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import ClassVar, Final, Protocol, TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from replicator.model.digest import Digest, is_digest
from replicator.model.names import is_tag
from replicator.ports import Listed
from replicator.sites.bounds import FREE_PAGES, LARGE_JSON_BYTES, LEAST_NAMES_PER_PAGE, MAX_NAMES
from replicator.sites.registry.identity.settings import Identity

LOCKED: Final = "locked"
IMMUTABLE: Final = "immutable"


@dataclass(frozen=True, slots=True)
class Login:
    """The site's credentials as a vendor's API may need them."""

    username: str = ""
    password: str = field(default="", repr=False)
    bearer: str = field(default="", repr=False)

    def basic(self) -> dict[str, str]:
        """Headers that log in with the user name and password, or with a bearer token that the config gives."""
        if self.bearer:
            return {"Authorization": f"Bearer {self.bearer}"}
        if not self.password:
            return {}
        text = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {text}"}

    def token(self) -> dict[str, str]:
        """Headers that log in with the password as a bearer token."""
        token = self.bearer or self.password
        return {"Authorization": f"Bearer {token}"} if token else {}


class ListedRepository(msgspec.Struct, frozen=True):
    """What is listed: a repository of the registry at `url`, by the API at `api` (both without a slash at the end).

    `login` is None without credentials.
    """

    url: str
    api: str
    repository: str
    login: Login | None = None


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One request of a listing.

    Args:
        url: absolute.
        actions: the registry's own credentials for the repository with these rights; "" sends what `headers` have.
        method: of HTTP; asked again after a failure, whatever it is.
        headers: beside those of the session.
        body: a small one.
        otherwise: asked instead where this is not found.
    """

    url: str
    actions: str = ""
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    otherwise: PageRequest | None = None


class PageAnswer(msgspec.Struct, frozen=True):
    """An answer of status 200: to what, its body, and the target of its link to the next page ("" without one)."""

    asked: PageRequest
    body: bytes
    next_link: str = ""

    def next_query(self, name: str) -> str:
        """A parameter of the next page's query; "" without one. Host and path of the link are never followed."""
        return parse_qs(urlsplit(self.next_link).query).get(name, [""])[0]


class Refers(msgspec.Struct, frozen=True):
    """One referrer of a manifest.

    `subject` is the manifest's digest. `what` tells its referrers apart; "" if the listing does not name them. `hides_tag`: there
    may be a `.sig` tag that the listing does not show.
    """

    subject: str
    what: str
    hides_tag: bool = False


class Page(msgspec.Struct, frozen=True):
    """Some tags, and what to ask for more; None at the end. `refers`: the referrers that the answer names."""

    tags: Sequence[Listed]
    next: PageRequest | None = None
    refers: Sequence[Refers] = ()


class Closable(Protocol):
    """What a listing keeps open between its uses."""

    async def aclose(self) -> None:
        """Closes it."""
        ...


T = TypeVar("T", bound=Closable)


class AboutRepository(ValueError):
    """An answer is not a listing of this repository, while those of others may be."""


class VendorAPI(Protocol):
    """Asks a vendor's API on behalf of one registry.

    `site` is its name, `host` the registry's, `identity` the one that the config gives.
    """

    site: str
    host: str
    identity: Identity | None

    async def place(self, repository: str) -> ListedRepository:
        """What is listed, with the site's credentials."""
        ...

    async def ask(self, request: PageRequest, repository: str) -> PageAnswer:
        """The answer to a request. Raises SiteError for anything but a good one."""
        ...

    def kept(self, make: Callable[[], T]) -> T:
        """What an earlier listing of this registry has made; `make` makes it."""
        ...

    def turn(self, operation: str, repository: str) -> AbstractAsyncContextManager[None]:
        """For one request that a library sends: it is limited and counted as our own are."""
        ...


class BulkListing(Protocol):
    """A way to list tags with what they name."""

    how: ClassVar[str]
    """What is asked, for people."""
    page_tags: ClassVar[int]
    """Most tags in an answer."""
    is_hint: ClassVar[bool]
    """Whether it may lag behind the registry."""

    def pages(self, api: VendorAPI, repository: str) -> AsyncGenerator[Page, None]:
        """The tags of a repository. None at all where it cannot be asked (no credentials, no API).

        Raises:
            SiteError: it is refused.
            AboutRepository: this repository cannot be listed so.
            ValueError: the answer is not such a listing.
        """
        ...


class PagedListing(ABC):
    """A listing whose pages lead from one to the next."""

    how: ClassVar[str] = ""
    page_tags: ClassVar[int] = 100
    is_hint: ClassVar[bool] = False

    @abstractmethod
    def first(self, place: ListedRepository) -> PageRequest | None:
        """The request of the first page; None where it cannot be asked."""

    @abstractmethod
    def read(self, place: ListedRepository, answer: PageAnswer) -> Page:
        """What an answer says. Raises ValueError where it is not such a listing."""

    async def pages(self, api: VendorAPI, repository: str) -> AsyncGenerator[Page, None]:
        """See `BulkListing`."""
        place = await api.place(repository)
        asked, names, pages = self.first(place), dict[str, Digest | None](), 0
        while asked is not None:
            pages += 1
            if pages > FREE_PAGES and len(names) < pages * LEAST_NAMES_PER_PAGE:
                raise ValueError(f"it does not end: {pages} pages with {len(names)} tags")
            answer = await api.ask(asked, repository)
            if len(answer.body) < LARGE_JSON_BYTES:
                page = self.read(place, answer)
            else:
                import asyncio  # noqa: PLC0415 - 20 ms that reading the config need not spend

                page = await asyncio.to_thread(self.read, place, answer)
            if page.tags and all(one.tag in names and names[one.tag] == one.digest for one in page.tags):
                raise ValueError("it repeats")
            names.update((one.tag, one.digest) for one in page.tags)
            if len(names) > MAX_NAMES:
                raise AboutRepository(f"it has more than {MAX_NAMES} tags")
            yield page
            asked = page.next


def listed(
    tag: str, digest: str | None, *, fixed: str = "", archived: bool = False, is_hint: bool = False
) -> Listed | None:
    """An entry of a listing; None for an invalid tag. An invalid digest counts as missing."""
    if not is_tag(tag):
        return None
    told = Digest(digest) if digest is not None and is_digest(digest) else None
    return Listed(tag, told, fixed=fixed, archived=archived, is_hint=is_hint)
