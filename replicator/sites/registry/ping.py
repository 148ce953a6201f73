"""The first request to a registry: what it asks of clients, and that it is a registry at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from yarl import URL

from replicator.errors import Advice, Denied, SiteError, Unsupported
from replicator.ports import Clock
from replicator.sites.registry.challenge import Challenge, best_challenge, parse_challenges
from replicator.sites.registry.errormap import Answer, Step, reply_failure
from replicator.sites.registry.origin import shown
from replicator.sites.registry.wire import Wire

_OPEN: Final = Challenge("none")


def ping_url(base: URL) -> URL:
    """The URL below a registry's own that tells whether there is a registry, and whether it takes a login."""
    return URL(str(base).rstrip("/") + "/v2/", encoded=True)


async def ping(wire: Wire, clock: Clock, see: Callable[[Mapping[str, str]], None] | None) -> Challenge:
    """The registry's challenge, learnt without credentials; `none` where it asks for nothing.

    Args:
        wire: sends the request.
        clock: the time, for what an answer says of waiting.
        see: told the headers of the answer.

    Raises:
        Unsupported: this is not a registry.
        SiteError: no answer, or one that is about the load or refuses every client.
    """
    step = Step("ping")
    url = ping_url(wire.base)
    response = await wire.send(step, "GET", url, {})
    body = await wire.read_error(response)
    answer = Answer("GET", url.raw_path, response.status, response.headers, body)
    if see is not None:
        see(response.headers)
    if answer.status == 401:
        challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
        # Without a challenge (seen at gcr.io) a later refusal may bring one.
        return best_challenge(challenges) or _OPEN
    if answer.status == 200 and _is_registry(answer):
        return _OPEN
    raise _not_a_registry(wire.site, url, answer, reply_failure(wire.site, step, answer, now=clock.now()))


def _not_a_registry(site: str, url: URL, answer: Answer, error: SiteError) -> SiteError:
    if answer.status in {408, 429} or answer.status >= 500:
        return error
    cause = f"not a registry: {shown(url)} answered {error.cause}"
    if answer.status == 200:
        cause = f"not a registry: {shown(url)} answered with a web page"
    elif 300 <= answer.status < 400:
        target = answer.headers.get("Location", "").partition("?")[0][:200]
        cause = (
            f"not a registry: {shown(url)} redirects to {target!r}; if that is the registry, set url to it"
        )
    elif answer.status == 403:
        return Denied(site, error.operation, error.cause, advice=Advice.STOP_SITE)
    return Unsupported(site, error.operation, cause, advice=Advice.STOP_SITE)


def _is_registry(answer: Answer) -> bool:
    """Captive portals and web servers answer 200 with a page; registries with JSON or nothing, and a header."""
    if "Docker-Distribution-Api-Version" in answer.headers:
        return True
    return "html" not in answer.headers.get("Content-Type", "") and not answer.body.lstrip().startswith(b"<")
