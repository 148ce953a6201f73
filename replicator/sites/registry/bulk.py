"""Tags with what they name, by the way of the registry's vendor, and the standard's way where that is refused."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final, TypeVar, cast

import msgspec

from replicator.errors import AuthFailed, Denied, NotFound, SiteError, Throttled, Transient, Unsupported
from replicator.model.companion import Attached, digest_of_texts
from replicator.model.decoding import JSON_ERRORS
from replicator.model.digest import Digest, is_digest
from replicator.ports import Listed, ListingRefused
from replicator.sites.bounds import MAX_PAGE_BYTES
from replicator.sites.registry.call import Call
from replicator.sites.registry.context import Registry
from replicator.sites.registry.links import next_link
from replicator.sites.registry.refusedlistings import AGAIN_SECONDS
from replicator.sites.registry.vendors.listing import (
    AboutRepository,
    BulkListing,
    Closable,
    ListedRepository,
    Login,
    PageAnswer,
    PageRequest,
    Refers,
)

T = TypeVar("T", bound=Closable)

OPERATION: Final = "list digests"
_ABOUT_REPOSITORY: Final = frozenset({401, 403, 404})
"""What is answered for a repository that these credentials may not list, while others may be listed."""
_REFUSALS: Final = frozenset({400, 401, 402, 403, 404, 405, 406, 410, 415, 422, 429, 501})


class VendorRequests:
    """Asks the API of a registry's vendor; `vendors.listing.VendorAPI`."""

    def __init__(self, registry: Registry) -> None:
        self.site = registry.site
        self.host = registry.url.host or ""
        self.identity = registry.identity
        self._registry = registry
        self._asked = False

    async def place(self, repository: str) -> ListedRepository:
        """See `VendorAPI`."""
        url, vendor = self._registry.url, self._registry.knowledge.vendor
        is_own_host = vendor is not None and vendor.owns(self.host)
        api = vendor.api if vendor is not None and is_own_host and vendor.api else str(url.origin())
        found = await self._registry.transport.credentials(repository)
        login = None
        if found is not None and (found.password or found.bearer_token):
            login = Login(found.username, found.password, found.bearer_token)
        return ListedRepository(str(url).rstrip("/"), api.rstrip("/"), repository, login)

    async def ask(self, request: PageRequest, repository: str) -> PageAnswer:
        """See `VendorAPI`. The first request is sent once: where it fails, the standard's listing is at hand."""
        call = Call(
            OPERATION,
            request.method,
            request.url,
            repository=repository,
            actions=request.actions,
            headers=request.headers,
            body=request.body,
            max_bytes=MAX_PAGE_BYTES,
            idempotent=True,
            own_login=not request.actions,
            expected=frozenset({200}) if request.actions else _REFUSALS | {200},
        )
        ways = self._registry.bulk.missing
        way = request.url.partition("?")[0]
        if request.otherwise is not None and way in ways:
            return await self.ask(request.otherwise, repository)
        once, self._asked = not self._asked, True
        reply = await self._registry.transport.request(call, once=once)
        if reply.status == 404 and request.otherwise is not None:
            answer = await self.ask(request.otherwise, repository)
            ways.add(way)
            return answer
        if reply.status != 200:
            where = reply.url
            cause = f"HTTP {reply.status} from {where.host}{where.path}"
            kind = Denied if reply.status in _ABOUT_REPOSITORY else Unsupported
            raise kind(self.site, OPERATION, cause, repository=repository)
        return PageAnswer(request, reply.body, next_link(reply.headers.getall("Link", ())) or "")

    def kept(self, make: Callable[[], T]) -> T:
        """See `VendorAPI`."""
        bulk = self._registry.bulk
        if bulk.kept is None:
            bulk.kept = make()
        return cast("T", bulk.kept)

    def turn(self, operation: str, repository: str) -> AbstractAsyncContextManager[None]:
        """See `VendorAPI`."""
        return self._registry.transport.turn(operation, repository)


class BulkTags:
    """One listing of a repository's tags with what they name, as far as its registry tells.

    Until the vendor's listing has worked once, one repository at a time tries it.

    `refused` is what this listing was refused, None where it was not.
    """

    def __init__(self, registry: Registry, repository: str) -> None:
        self._registry = registry
        self._repository = repository
        self.refused: ListingRefused | None = None
        self._failure: Exception | None = None
        self._pages = 0
        self._told = False
        self._is_trial = False
        self._refers: defaultdict[Digest, set[str]] = defaultdict(set)
        self._hiding: set[Digest] = set()

    @property
    def is_whole(self) -> bool:
        """Whether what came from `pages` is all there is. No tags at all are believed from the standard's listing alone."""
        return self._failure is None and self._told

    @property
    def notice(self) -> str:
        """For the report: why tags are asked for one by one; "" where they are not, or no other way is known."""
        registry, vendor = self._registry, self._registry.knowledge.vendor
        refused = registry.bulk.refused.of(self._repository, registry.clock.now())
        if refused is not None and vendor is not None and vendor.listing is not None:
            until = dt.datetime.fromtimestamp(refused.at + AGAIN_SECONDS, dt.UTC).isoformat(" ", "minutes")
            where = f" for {refused.repository}" if refused.repository else ""
            how = f"{vendor.listing.how} is of no use{where} ({refused.cause})"
            return f"{registry.site}: {how}; each tag is asked for until {until}"
        if self._failure is None:
            return ""
        return f"{registry.site}: {self._repository}: each tag is asked for: {_cause(self._failure)}"

    async def pages(self) -> AsyncGenerator[Sequence[Listed], None]:
        """What the vendor's listing tells, up to where it fails. Nothing if the vendor has no listing."""
        knowledge = self._registry.knowledge
        listing = await self._listing()
        if listing is None:
            return
        requests = VendorRequests(self._registry)
        try:
            async with aclosing(listing.pages(requests, self._repository)) as pages:
                async for page in pages:
                    self._pages += 1
                    self._told |= bool(page.tags)
                    self._take(page.refers)
                    if page.tags:
                        knowledge.is_bulk_tried = True
                        self._registry.bulk.refused.worked(self._registry.clock.now())
                        self.close()
                    yield [_as_hint(listed) for listed in page.tags] if listing.is_hint else page.tags
            if not self._pages:
                knowledge.is_bulk_tried = True  # without credentials, say, it can be asked nothing
                self.close()
        except (SiteError, ValueError, *JSON_ERRORS) as error:
            self._failure = error

    def _take(self, refers: Sequence[Refers]) -> None:
        for one in refers:
            if not is_digest(one.subject):
                continue
            if one.what:
                self._refers[Digest(one.subject)].add(one.what)
            if one.hides_tag:
                self._hiding.add(Digest(one.subject))

    @property
    def attached(self) -> Mapping[Digest, Attached]:
        """What the listing told of what refers to manifests; nothing where it failed."""
        if self._failure is not None:
            return {}
        return {
            subject: Attached(
                digest_of_texts(self._refers[subject]) if subject in self._refers else None,
                hides_tag=subject in self._hiding,
            )
            for subject in self._refers.keys() | self._hiding
        }

    async def _listing(self) -> BulkListing | None:
        registry, knowledge = self._registry, self._registry.knowledge
        if knowledge.vendor is None:
            await registry.transport.meet()
        if not knowledge.is_bulk_tried and listing_of(registry, self._repository) is not None:
            await registry.bulk.trial.acquire()
            self._is_trial = True
        return listing_of(registry, self._repository)

    def listed_otherwise(self, tags: Sequence[str]) -> None:
        """The standard's listing has told some tags, so that the repository is there, and the vendor's is to blame."""
        if self.refused is not None:
            return
        if self._failure is None and self._pages and not self._told and tags:
            self._failure = AboutRepository(f"it has no tag of {self._repository}, which has some")
        failure = self._failure
        if failure is not None and (isinstance(failure, Throttled) or not isinstance(failure, Transient)):
            registry = self._registry
            self.refused = registry.bulk.refused.add(
                registry.site,
                self._repository,
                _cause(failure),
                registry.clock.now(),
                about_repository=isinstance(failure, AuthFailed | Denied | NotFound | AboutRepository),
            )
        self.close()

    def close(self) -> None:
        """Lets others try, if this one was the first."""
        if self._is_trial:
            self._is_trial = False
            self._registry.bulk.trial.release()


def listing_of(registry: Registry, repository: str) -> BulkListing | None:
    """How the vendor lists these tags with what they name; None where it does not, or refused within the last day."""
    vendor = registry.knowledge.vendor
    if vendor is None or registry.bulk.refused.of(repository, registry.clock.now()) is not None:
        return None
    return vendor.listing


async def bulk_answer(registry: Registry, repository: str, tags: Sequence[str]) -> str:
    """For `check`: how tags are listed with what they name, tried at a repository that has these tags."""
    bulk = BulkTags(registry, repository)
    is_listed = False
    try:
        async with aclosing(bulk.pages()) as pages:
            async for page in pages:
                if page:
                    is_listed = True
                    break
        if not is_listed:
            bulk.listed_otherwise(tags)
    finally:
        bulk.close()
    listing = listing_of(registry, repository)
    if is_listed and listing is not None:
        return f"listed by {listing.how}, at most {listing.page_tags} tags a request"
    return f"one request a tag: {bulk.notice or 'these credentials allow nothing else'}"


def _cause(error: Exception) -> str:
    return error.cause if isinstance(error, SiteError) else f"the answer is not such a listing: {error}"


def _as_hint(listed: Listed) -> Listed:
    return msgspec.structs.replace(listed, is_hint=True)
