"""AWS ECR."""

from __future__ import annotations

import re

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from replicator.demo import wire
from tests.fakes.places import session_of


def habits(*repositories: str) -> Middleware:
    """ECR [9]: repositories exist beforehand; a PATCH is 201 with a Range that sticks at the first chunk; n is capped."""
    first: dict[str, str] = {}

    @web.middleware
    async def quirk(request: web.Request, handler: Handler) -> web.StreamResponse:
        match = re.match(r"/v2/(.+?)/(?:blobs|manifests|tags|referrers)/", request.path)
        if match is not None and match[1] not in repositories:
            return wire.refusal(
                "NAME_UNKNOWN", f"The repository with name '{match[1]}' does not exist", status=404
            )
        if int(request.query.get("n", "1")) > 1_000:
            return wire.refusal("UNSUPPORTED", "Invalid parameter at 'maxResults'", status=400)
        response = await handler(request)
        session = session_of(request)
        if session and request.method == "PATCH" and response.status == 202:
            response.headers["Range"] = first.setdefault(session, response.headers["Range"])
            response.set_status(201)
        return response

    return quirk
