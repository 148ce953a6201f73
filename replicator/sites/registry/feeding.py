"""A request whose body comes from a source as it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from yarl import URL

from replicator.errors import Corrupt, SiteError, Unavailable
from replicator.sites.registry.body import UploadBody, WrongLength
from replicator.sites.registry.call import Call, Reply
from replicator.sites.registry.payload.answer import Answer, PayloadAnswer
from replicator.sites.registry.wire import Wire


async def fed(
    wire: Wire,
    call: Call,
    url: URL,
    headers: Mapping[str, str],
    feed: UploadBody,
    *,
    learn: Callable[[Answer], None],
) -> Reply:
    """Sends the call with the body that `feed` gives, and reads the reply, of whatever status.

    Args:
        wire: of the registry.
        call: what is asked for.
        url: where.
        headers: all of them.
        feed: the body; it knows how long the registry is waited for.
        learn: told the answer as soon as its head is there.

    Raises:
        Unavailable: no answer, or too late.
    """
    response: Answer | None = None
    try:
        async with asyncio.timeout(None) as deadline:
            feed.watch(deadline)
            try:
                response = await wire.send(
                    call, call.method, url, headers, data=feed, payload=call.is_payload
                )
            finally:
                feed.watch(None)
        learn(response)
        body = await wire.read_error(response)  # within a limit of its own
    except TimeoutError:
        raise Unavailable(wire.site, call.operation, feed.late_text(), repository=call.repository) from None
    finally:
        if response is not None:
            response.close()  # an early answer: ends the sending too
    is_early = not feed.ended or (isinstance(response, PayloadAnswer) and response.is_early)
    return Reply(response.status, response.headers, body, response.url, is_early)


def raise_source_failure(
    site: str, call: Call, feed: UploadBody, failure: Callable[[], SiteError | None]
) -> None:
    """Raises what broke the body, if anything did: the source's own error, or `Corrupt` for a wrong length.

    Args:
        site: where the body went.
        call: what it was sent with.
        feed: the body.
        failure: the error that broke the source; None as long as it is intact.
    """
    if feed.problem is None:
        return
    if (error := failure()) is not None:
        raise error
    if isinstance(feed.problem, WrongLength):
        raise Corrupt(site, call.operation, str(feed.problem), repository=call.repository)
    raise feed.problem
