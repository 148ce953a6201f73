"""Alibaba Cloud Container Registry."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Middleware

from tests.fakes import habits as field
from tests.fakes.vendors.vendor import VendorRegistry


class Alibaba(VendorRegistry):
    """What may not be seen and what does not exist are both denied; no catalog, nothing is deleted, no referrers API."""

    kind = "alibaba"
    cannot = frozenset({"tell missing from hidden", "catalog", "delete_tag", "referrers"})
    refusal = (403, "DENIED", "The requested tag already exists and cannot be overwritten.")

    def habits(self) -> Iterable[Middleware]:
        return (
            field.hides_unknown_repositories(401, until="blobs"),
            field.no_catalog(401),
            field.no_delete(),
            field.no_referrers(),
        )

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        return None
