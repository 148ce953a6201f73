"""Tag and catalog listings, in every form of paging that registries have.

An iteration that ends was complete; whatever might make it silently short is an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from replicator.errors import (
    Advice,
    AuthFailed,
    Corrupt,
    Denied,
    NotFound,
    Rejected,
    SiteError,
    Unavailable,
    Unsupported,
)
from replicator.flow.retry import is_refusal
from replicator.model.decoding import JSON_ERRORS
from replicator.model.names import is_repository, is_tag
from replicator.sites.bounds import (
    EMPTY_PAGES,
    FREE_PAGES,
    LARGE_JSON_BYTES,
    LEAST_NAMES_PER_PAGE,
    MAX_NAME_BYTES,
    MAX_NAMES,
    MAX_PAGE_BYTES,
    MAX_PAGE_ENTRIES,
    MAX_PAGES,
    MAX_URL_CHARACTERS,
)
from replicator.sites.registry.call import Call, Reply
from replicator.sites.registry.context import Registry
from replicator.sites.registry.links import next_link
from replicator.sites.registry.location import UNSAFE
from replicator.sites.registry.origin import resolve, with_prefix
from replicator.sites.registry.page import web_page

_SHOWN: Final = 5


class _TagPage(msgspec.Struct):
    """`tags` is null where distribution 2 has no more tags, and odd entries must not spoil the others."""

    tags: list[Any] | msgspec.UnsetType | None = msgspec.UNSET
    name: Any = None


class _CatalogPage(msgspec.Struct):
    repositories: list[Any] | msgspec.UnsetType | None = msgspec.UNSET
    name: Any = None


def next_page(
    registry: Registry, operation: str, repository: str | None, reply: Reply, asked: str
) -> str | None:
    """Where the page after this one is asked for, None where it was the last.

    Always at the registry's own origin: behind proxies and facades a Link names the inner host or port, a path without
    the prefix that the proxy strips, or the path that a redirect led to. A next page is the listing that was `asked` for
    with another query; a Link that leads to another path of the registry's is taken by that path.

    Raises `Corrupt` for a Link that is not a URL.
    """
    link = next_link(reply.headers.getall("Link", ()))
    if link is None:
        return None
    if not link or UNSAFE.search(link) or len(link) > MAX_URL_CHARACTERS:
        cause = "the Link to the next page is not a usable URL"
        raise Corrupt(registry.site, operation, cause, repository=repository)
    try:
        target = resolve(reply.url, link)
    except ValueError:
        cause = "the Link to the next page is not a usable URL"
        raise Corrupt(registry.site, operation, cause, repository=repository) from None
    path = asked.partition("?")[0]
    if target.raw_path.rpartition("/")[2] != path.rpartition("/")[2]:
        path = with_prefix(registry.url, target).raw_path.removeprefix(registry.url.raw_path.rstrip("/"))
    return f"{path}?{target.raw_query_string}" if target.raw_query_string else path


class Listing(msgspec.Struct, frozen=True):
    """What is listed, and how: the two listings differ in nothing else.

    `n` is the page size to ask for (0: none); `refused_n` is told when the registry does not want it.
    """

    operation: str
    path: str
    repository: str | None
    actions: str
    page: type[_TagPage | _CatalogPage]
    is_name: Callable[[str], bool]
    n: int
    refused_n: Callable[[], None]


async def tag_pages(registry: Registry, repository: str) -> AsyncGenerator[Sequence[str], None]:
    """The tags of a repository, a page at a time, each once.

    Names outside the grammar are left out with a warning. Raises `NotFound` if the repository does not exist,
    `Corrupt` where the listing repeats, breaks off, or leads to another host.
    """
    listing = Listing(
        operation="list tags",
        path=f"/v2/{repository}/tags/list",
        repository=repository,
        actions="pull",
        page=_TagPage,
        is_name=is_tag,
        n=registry.knowledge.record.tags_per_page,
        refused_n=lambda: registry.knowledge.learn(tags_per_page=0),
    )
    async for names in _pages(registry, listing):
        yield names


async def catalog_pages(registry: Registry) -> AsyncIterator[Sequence[str]]:
    """The repositories of a registry, a page at a time, each once.

    Raises `Unsupported`, once and for all, where the registry has no catalog or does not show it to us.
    """
    listing = Listing(
        operation="list repositories",
        path="/v2/_catalog",
        repository=None,
        actions="catalog",
        page=_CatalogPage,
        is_name=is_repository,
        n=registry.knowledge.record.repositories_per_page,
        refused_n=lambda: registry.knowledge.learn(repositories_per_page=0),
    )
    cause = "the registry lists none to us; name the repositories in the rule, without wildcards"
    if not registry.knowledge.record.catalog:
        raise Unsupported(registry.site, listing.operation, cause)
    begun = False
    try:
        async for names in _pages(registry, listing):
            begun = True
            yield names
    except (NotFound, Denied, AuthFailed, Unsupported, Rejected) as error:
        # An error of another step (a token refused, no registry at all) says more than a missing catalog.
        if begun or error.operation != listing.operation:
            raise
        registry.knowledge.learn(catalog=False)
        raise Unsupported(registry.site, listing.operation, f"{cause} ({error.cause})") from error


async def _pages(registry: Registry, listing: Listing) -> AsyncIterator[Sequence[str]]:
    told: set[str] = set()
    odd = _Odd()
    for restarts_left in (1, 0):
        walk = _Walk(registry, listing, odd)
        try:
            async for names in walk.pages():
                fresh = [name for name in names if name not in told] if told else names
                if fresh:
                    yield fresh
        except NotFound:
            # zot: the tag that the next page was to start after is gone. Start again (docs/quirks.md#pages-of-tags).
            if walk.pages_seen == 0 or not restarts_left:
                raise
            told = walk.seen
            continue
        break
    odd.warn(registry, listing)


def _may_be_about_n(error: SiteError) -> bool:
    """Whether the listing may be had without a page size: not where the registry said plainly what is wrong."""
    if isinstance(error, NotFound):
        return error.doubtful
    return isinstance(error, (Rejected, Unsupported, Unavailable)) and error.advice is not Advice.STOP_SITE


class _Odd:
    """Names outside the grammar: counted, a few kept to show."""

    def __init__(self) -> None:
        self._count = 0
        self._examples: list[str] = []

    def add(self, name: object) -> None:
        self._count += 1
        if len(self._examples) < _SHOWN:
            self._examples.append(repr(name)[:150])

    def warn(self, registry: Registry, listing: Listing) -> None:
        if self._count:
            of = f" of {listing.repository}" if listing.repository else ""
            examples = ", ".join(self._examples)
            registry.warn(f"{listing.operation}{of}: {self._count} skipped, invalid names: {examples}")


class _Walk:
    """One way through a listing's pages, from the first to the last."""

    def __init__(self, registry: Registry, listing: Listing, odd: _Odd) -> None:
        self._registry = registry
        self._listing = listing
        self._odd = odd
        self.seen: set[str] = set()
        self._asked: set[str] = set()
        self._last_asked = listing.path
        self.pages_seen = 0
        self._bytes = 0

    async def pages(self) -> AsyncIterator[Sequence[str]]:
        """The names of each page, each once in this walk."""
        reply = await self._first()
        registry, listing = self._registry, self._listing
        registry.knowledge.see(reply.headers)
        empty = 0
        while True:
            listed = await self._names(reply)
            names = list(self._fresh(listed))
            self.pages_seen += 1
            url = next_page(registry, listing.operation, listing.repository, reply, self._last_asked)
            if url is None:
                yield names
                if listing.n and len(listed) == listing.n:
                    async for rest in self._without_links(listed):
                        yield rest
                return
            if not names:
                empty += 1
                if listed or empty > EMPTY_PAGES:
                    raise self._error(Corrupt, "the listing repeats: a page had nothing new")
            yield names
            reply = await self._ask(url)

    async def _first(self) -> Reply:
        """The first page: asked for without a page size where the registry refuses that, however it says so."""
        listing = self._listing
        if not listing.n:
            return await self._ask(listing.path)
        url = f"{listing.path}?n={listing.n}"
        try:
            reply = await self._ask(url, once=True)
        except SiteError as error:
            if is_refusal(error):
                self._asked.discard(url)
                return await self._ask(url)
            if not _may_be_about_n(error):
                raise
            if isinstance(error, Unavailable):  # perhaps only this once
                return await self._ask(listing.path)
        else:
            if web_page(reply.headers, reply.body) is None:
                return reply
        reply = await self._ask(listing.path)
        listing.refused_n()
        return reply

    async def _without_links(self, listed: list[Any]) -> AsyncIterator[Sequence[str]]:
        """More, from a registry that filled the page exactly and gave no link (old ones know only `last`)."""
        listing = self._listing
        while len(listed) == listing.n:
            last = listed[-1]
            if not isinstance(last, str) or not listing.is_name(last):
                break
            listed = await self._names(await self._ask(f"{listing.path}?n={listing.n}&last={last}"))
            names = list(self._fresh(listed))
            if not names:
                break
            yield names
        if len(listed) >= listing.n:
            await self._must_be_whole()

    async def _must_be_whole(self) -> None:
        """Tells a listing of just `n` names, which `last` only repeats, from one that was cut off there.

        A page of one name less is whole again where `n` is ignored, and has a link where links are given; else
        the registry heeds `n`, ignores `last`, gives no links, and nothing leads further.
        """
        listing = self._listing
        reply = await self._ask(f"{listing.path}?n={listing.n - 1}")
        cut = len(await self._names(reply)) < listing.n
        if cut and listing.n > 1 and next_link(reply.headers.getall("Link", ())) is None:
            raise self._error(Corrupt, f"the listing breaks off after {listing.n} and cannot be continued")

    async def _ask(self, url: str, *, once: bool = False) -> Reply:
        if url in self._asked:
            raise self._error(Corrupt, "the listing repeats: its pages lead in a circle")
        self._asked.add(url)
        pages, listing = len(self._asked), self._listing
        if pages > MAX_PAGES or (pages > FREE_PAGES and len(self.seen) < pages * LEAST_NAMES_PER_PAGE):
            raise self._error(Corrupt, f"the listing does not end: {pages} pages with {len(self.seen)} names")
        # Without Accept: docs/quirks.md#accept-on-listings
        call = Call(
            listing.operation,
            "GET",
            url,
            repository=listing.repository,
            actions=listing.actions,
            max_bytes=MAX_PAGE_BYTES,
        )
        self._last_asked = url
        return await self._registry.transport.request(call, once=once)

    async def _names(self, reply: Reply) -> list[Any]:
        if (found := web_page(reply.headers, reply.body)) is not None:
            listing = self._listing
            cause = (
                f"expected a listing, received {found}; is a proxy or a login page in front of the registry?"
            )
            raise Unavailable(
                self._registry.site,
                listing.operation,
                cause,
                repository=listing.repository,
                advice=Advice.LATER,
            )
        body, shape = reply.body, self._listing.page
        if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_PAGE_ENTRIES:
            raise self._error(Corrupt, f"a page of the listing has more than {MAX_PAGE_ENTRIES} entries")
        try:
            if len(body) < LARGE_JSON_BYTES:
                page = msgspec.json.decode(body, type=shape)
            else:
                page = await asyncio.to_thread(msgspec.json.decode, body, type=shape)
        except JSON_ERRORS as error:
            raise self._error(Corrupt, f"the answer is not a listing: {error}") from error
        names = page.tags if isinstance(page, _TagPage) else page.repositories
        if names is msgspec.UNSET:
            # Go's omitempty leaves an empty list out but keeps the name; without both it is something else.
            if page.name is None:
                raise self._error(Corrupt, "the answer is not a listing: it has neither names nor a name")
            return []
        return names or []

    def _fresh(self, names: list[Any]) -> Iterator[str]:
        """The legal names that this walk had not met, noting them."""
        seen, is_name = self.seen, self._listing.is_name
        for name in names:
            if not isinstance(name, str) or not is_name(name):
                self._odd.add(name)
            elif name not in seen:
                seen.add(name)
                self._bytes += len(name)
                yield name
        if len(seen) > MAX_NAMES or self._bytes > MAX_NAME_BYTES:
            limits = f"{MAX_NAMES} names or {MAX_NAME_BYTES} bytes of them"
            raise self._error(Corrupt, f"the listing has more than {limits}")

    def _error(self, kind: type[SiteError], cause: str) -> SiteError:
        listing = self._listing
        return kind(self._registry.site, listing.operation, cause, repository=listing.repository)
