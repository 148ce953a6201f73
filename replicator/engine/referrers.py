"""What sites list as referrers of a manifest: by their API, else by the fallback tag.

OCI distribution-spec, "Listing Referrers" and "Referrers Tag Schema".
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from replicator.errors import NotFound, Unavailable, Unsupported
from replicator.model.companion import fallback_tag
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.manifest import Manifest
from replicator.ports import Clock, ListsReferrers, Repository

SUPPORT_SECONDS: Final = 3600.0
"""How long a site without a referrers API is not asked for it again."""


class ReferrersAPIs:
    """The referrers APIs of all sites. Remembers which sites have none.

    Args:
        clock: the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._missing_since: dict[str, float] = {}
        self._listed_at: dict[str, float] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def may_have(self, site: str) -> bool:
        """False while the site is known to have no API."""
        since = self._missing_since.get(site)
        return since is None or self._clock.monotonic() - since >= SUPPORT_SECONDS

    def is_known(self, site: str) -> bool:
        """Whether the site has listed referrers by its API within the last hour."""
        at = self._listed_at.get(site)
        return at is not None and self._clock.monotonic() - at < SUPPORT_SECONDS

    async def listed(self, repository: Repository, subject: Digest) -> Sequence[Descriptor] | None:
        """What the API lists as referrers of a subject; None if the site has no API, which may be known without asking.

        Raises:
            NotFound: the site does not know the subject.
            SiteError: the site could not be asked, or refuses to tell.
        """
        if isinstance(repository, ListsReferrers) and not repository.lists_referrers:
            return None
        if not self.is_known(repository.site):
            async with self._asking[repository.site]:  # the others wait for the first answer
                if not self.may_have(repository.site):
                    return None
                if not self.is_known(repository.site):
                    return await self._ask(repository, subject)
        return await self._ask(repository, subject)

    async def _ask(self, repository: Repository, subject: Digest) -> Sequence[Descriptor] | None:
        site, now = repository.site, self._clock.monotonic()
        try:
            found = await repository.referrers(subject)
        except Unsupported as error:
            if self.is_known(site):  # an API does not vanish: what a proxy answers is not "no referrers"
                cause = f"the API that was there a moment ago is not: {error.cause}"
                raise Unavailable(site, "list referrers", cause, repository=repository.name) from error
            self._missing_since[site] = now
            return None
        self._listed_at[site] = now
        return found


async def read_fallback(repository: Repository, subject: Digest) -> Manifest | None:
    """What the fallback tag of a subject names, which should be an index; None if the tag does not exist."""
    try:
        return await repository.read_manifest(fallback_tag(subject))
    except NotFound:
        return None
