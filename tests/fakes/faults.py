"""What can go wrong with one request: actions for `FakeRegistry.fault`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from aiohttp import web

from replicator.demo import wire
from replicator.model.digest import Digest
from tests.fakes.delivery import abort
from tests.fakes.registry import Action, Exchange


def answer(
    status: int, body: str = "", headers: Mapping[str, str] | None = None, *, html: bool = False
) -> Action:
    """Refuses (or accepts) without doing anything, before the request's body is read."""

    async def act(_: Exchange) -> web.StreamResponse:
        kind = "text/html" if html else "text/plain"
        return web.Response(status=status, text=body, headers=headers, content_type=kind)

    return act


def refuse(status: int, code: str, detail: object = None, headers: Mapping[str, str] | None = None) -> Action:
    """Refuses with an error body as the distribution-spec has it."""

    async def act(_: Exchange) -> web.StreamResponse:
        response = wire.refusal(code, "a fault", detail, status)
        response.headers.update(headers or {})
        return response

    return act


def reset(after: int = 0) -> Action:
    """Resets the connection when so many bytes of the answer's body went out (at most: a reset may overtake them)."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        exchange.damage.cut_at, exchange.damage.then = after, "reset"
        return await exchange.proceed()

    return act


def reset_unanswered() -> Action:
    """Resets the connection with the request not even looked at."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        abort(exchange.request)

    return act


def reset_upload(after: int) -> Action:
    """Resets the connection when so many bytes of the request's body came in; they are kept, as servers do."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        exchange.damage.cut_upload_at, exchange.damage.then = after, "reset"
        return await exchange.proceed()

    return act


def lose_answer() -> Action:
    """The request takes effect; the connection is reset before any answer."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        await exchange.proceed()
        abort(exchange.request)

    return act


def answer_late(status: int) -> Action:
    """The request takes effect, and is answered as if it had failed."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        await exchange.proceed()
        return web.Response(status=status)

    return act


def truncate(after: int) -> Action:
    """Closes in good order after so many bytes of the body; the Content-Length announced more."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        exchange.damage.cut_at, exchange.damage.then = after, "close"
        return await exchange.proceed()

    return act


def shorten(to: int) -> Action:
    """Sends a body that is too short, with a Content-Length that agrees with it."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        response = await exchange.proceed()
        response.headers["Content-Length"] = str(to)
        return response

    return act


def lengthen(by: int = 1) -> Action:
    """Sends more than there is, with a Content-Length that agrees with it."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        response = await exchange.proceed()
        assert isinstance(response, web.Response)
        body = response.body
        data = body if isinstance(body, bytes) else await body.as_bytes()  # type: ignore[union-attr]
        response.headers["Content-Length"] = str(len(data) + by)
        response.body = data + bytes(by)
        return response

    return act


def corrupt(at: int = 0) -> Action:
    """Changes one byte of the answer's body."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        exchange.damage.corrupt_at = at
        return await exchange.proceed()

    return act


def hang() -> Action:
    """Never answers, until the fake closes."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        await exchange.fake.released.wait()
        abort(exchange.request)

    return act


def hang_after(sent: int) -> Action:
    """Sends so many bytes of the body and then never another one."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        exchange.damage.cut_at, exchange.damage.then = sent, "hang"
        return await exchange.proceed()

    return act


def hang_upload(after: int) -> Action:
    """Takes so many bytes of the request's body and then neither takes more nor answers."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        exchange.damage.cut_upload_at, exchange.damage.then = after, "hang"
        return await exchange.proceed()

    return act


def drip(rate: int) -> Action:
    """Sends so many bytes of the body a second, until the fake closes: a slow line."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        exchange.damage.drip = rate
        return await exchange.proceed()

    return act


def delay(seconds: float) -> Action:
    """Latency before the request is looked at."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await exchange.proceed()

    return act


def header(name: str, value: str | None) -> Action:
    """Sets a header of the answer (a lying digest, a lying length of a HEAD), or with None drops it."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        response = await exchange.proceed()
        if value is None:
            response.headers.popall(name, None)
        else:
            response.headers[name] = value
        return response

    return act


def redirect(location: str, status: int = 307) -> Action:
    """Sends the client elsewhere; an empty location is the very same request: a loop."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": location or str(exchange.request.rel_url)})

    return act


def redirect_to_storage(status: int = 307) -> Action:
    """Sends the client to the second origin, where no Authorization is taken and the signature must be byte-exact."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        url = exchange.fake.signed_url(exchange.request.rel_url.raw_path, exchange.request.method)
        return web.Response(status=status, headers={"Location": url})

    return act


def lose_session() -> Action:
    """The upload session is purged before the request is looked at."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        exchange.fake.store.uploads.pop(exchange.request.path.rpartition("/")[2], None)
        return await exchange.proceed()

    return act


def ignore_mount() -> Action:
    """Answers a mount with 202 and an upload session."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        repository = re.fullmatch(r"/v2/(.+)/blobs/uploads/", exchange.request.path)
        assert repository is not None
        return wire.progress(exchange.fake.store.start_upload(repository[1]), 202)

    return act


def lose_blob(repository: str, digest: Digest) -> Action:
    """Garbage collection takes a blob just before the request is looked at."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        exchange.fake.store.delete_blob(repository, digest)
        return await exchange.proceed()

    return act


class Hold:
    """Holds requests. Await `reached`; `release()` lets them, and all that come later, go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._released = asyncio.Event()

    def release(self) -> None:
        """Lets go, once and for all."""
        self._released.set()

    async def __call__(self, exchange: Exchange) -> web.StreamResponse:
        self.reached.set()
        closing = asyncio.create_task(exchange.fake.released.wait())
        released = asyncio.create_task(self._released.wait())
        await asyncio.wait({closing, released}, return_when=asyncio.FIRST_COMPLETED)
        for task in (closing, released):
            task.cancel()
        return await exchange.proceed()
