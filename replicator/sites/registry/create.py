"""Repositories that must exist before a push: each is created once, when a write shows that it is missing."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final, TypeVar, cast

from replicator.errors import (
    Advice,
    AuthFailed,
    ConfigError,
    Denied,
    NotFound,
    Rejected,
    SiteError,
    Transient,
)
from replicator.sites.registry.bulk import VendorRequests
from replicator.sites.registry.call import Call
from replicator.sites.registry.context import Registry
from replicator.sites.registry.errormap import read_error
from replicator.sites.registry.vendors.creation import (
    APIAnswer,
    APIRequest,
    CreateSettings,
    RepositoryCreation,
)
from replicator.sites.registry.vendors.listing import Closable, ListedRepository

T = TypeVar("T")
Kept = TypeVar("Kept", bound=Closable)

OPERATION: Final = "create repository"
_HOLD_SECONDS: Final = 3600.0
"""How long it is not asked for again what was refused, or is there and yet cannot be written."""
_NEW_SECONDS: Final = 60.0
"""How long a refused write may have been on its way when the repository was created; later, it is gone again."""
_ANSWERS: Final = frozenset({200, 201, 202, 204, 400, 401, 403, 404, 405, 409, 412, 422})


def way_of(registry: Registry) -> RepositoryCreation | None:
    """How this registry's repositories are created; None where they are not."""
    vendor, wanted = registry.knowledge.vendor, registry.creations.wanted
    if vendor is None or vendor.creation is None or wanted is None or not vendor.creation.is_ready(wanted):
        return None
    return vendor.creation


async def writing(registry: Registry, repository: str, write: Callable[[], Awaitable[T]]) -> T:
    """Does the write, and once more after the repository, which it has shown to be missing, was created.

    Raises:
        SiteError: what the write raised, or the refusal to create the repository.
    """
    way, listing = way_of(registry), registry.creations.listed.get(repository)
    wanted = registry.creations.wanted
    if way is not None and wanted is not None and listing and way.comes_first(listing, wanted):
        await _settle(registry, way, repository, is_there=listing == "empty")
    try:
        return await write()
    except (AuthFailed, Denied, NotFound) as error:
        way = way_of(registry)  # the vendor may be known only by now
        if way is None or error.operation == OPERATION or not way.is_absent(error, repository):
            raise
        if not await _settle(registry, way, repository):
            raise
    return await write()


async def _settle(
    registry: Registry, way: RepositoryCreation, repository: str, *, is_there: bool = False
) -> bool:
    """Creates or completes the repository, unless that was done or refused lately; whether there was a way to."""
    unit = way.unit(registry.url.host or "", repository)
    if unit is None:
        return False
    creations, now = registry.creations, registry.clock.monotonic()
    known = creations.outcomes.get(unit)
    try:
        if known is None or now >= known[0]:
            await creations.in_progress.run(unit, partial(_make, registry, way, unit, repository, is_there))
        elif known[1] is not None:
            raise known[1]
    except SiteError as error:
        raise error.during(OPERATION, repository) from error
    return True


async def _make(
    registry: Registry,
    way: RepositoryCreation,
    unit: str,
    repository: str,
    is_there: bool,  # noqa: FBT001
) -> None:
    creations, clock = registry.creations, registry.clock
    api, wanted = _Requests(registry), cast("CreateSettings", creations.wanted)
    is_new = False
    try:
        if is_there:
            await way.complete(api, repository, wanted)
        else:
            is_new = await way.create(api, repository, wanted)
    except (SiteError, ConfigError) as error:
        failure = _of_repository(registry, error, repository)
        if not isinstance(failure, Transient):
            creations.outcomes[unit] = (clock.monotonic() + _HOLD_SECONDS, failure)
        raise failure from error
    if is_new:
        registry.warn(f"created the {way.what} {unit}, which was missing")
    creations.outcomes[unit] = (clock.monotonic() + (_NEW_SECONDS if is_new else _HOLD_SECONDS), None)


def _of_repository(registry: Registry, error: SiteError | ConfigError, repository: str) -> SiteError:
    """The failure as one of the repository: the site's other repositories go on."""
    if isinstance(error, ConfigError):  # of a secret that cannot be read
        return Denied(registry.site, OPERATION, "; ".join(error.problems), repository=repository)
    if isinstance(error, Transient):
        return error
    if isinstance(error, AuthFailed):
        return Denied(error.site, OPERATION, error.cause, repository=repository)
    if error.advice is Advice.STOP_SITE:
        return Rejected(error.site, OPERATION, error.cause, repository=repository)
    return error.during(OPERATION, repository)


class _Requests:
    """Asks the API of a registry's vendor; `vendors.creation.CreationAPI`."""

    def __init__(self, registry: Registry) -> None:
        self.site = registry.site
        self.host = registry.url.host or ""
        self.identity = registry.identity
        self._registry = registry
        self._requests = VendorRequests(registry)

    async def place(self, repository: str) -> ListedRepository:
        """See `CreationAPI`."""
        return await self._requests.place(repository)

    async def send(self, request: APIRequest, repository: str) -> APIAnswer:
        """See `CreationAPI`."""
        body = None if request.document is None else json.dumps(request.document).encode()
        headers = {"Accept": "application/json", **request.headers}
        if body is not None:
            headers["Content-Type"] = "application/json"
        call = Call(
            OPERATION,
            request.method,
            request.url,
            repository=repository,
            headers=headers,
            body=body,
            expected=_ANSWERS,
            follow=False,
            own_login=True,
        )
        reply = await self._registry.transport.request(call)
        told = read_error(reply.body)
        return APIAnswer(reply.status, reply.body, told.codes, told.text)

    async def sleep(self, seconds: float) -> None:
        """See `CreationAPI`."""
        await self._registry.clock.sleep(seconds)

    def kept(self, make: Callable[[], Kept]) -> Kept:
        """See `CreationAPI`."""
        return self._requests.kept(make)

    def turn(self, operation: str, repository: str) -> AbstractAsyncContextManager[None]:
        """See `CreationAPI`."""
        return self._requests.turn(operation, repository)

    def refused(self, cause: str, repository: str, needs: str = "") -> SiteError:
        """See `CreationAPI`."""
        if needs:
            return Denied(self.site, OPERATION, cause, repository=repository).needing(needs)
        return Rejected(self.site, OPERATION, cause, repository=repository)
