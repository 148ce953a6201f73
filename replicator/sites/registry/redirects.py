"""Redirects and Locations of one registry: which are followed, and with which headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from yarl import URL

from replicator.errors import Rejected
from replicator.sites.reading import Patience
from replicator.sites.registry.call import Call
from replicator.sites.registry.location import resolve_location
from replicator.sites.registry.origin import is_known_redirect, origin_of, refusal, resolve, shown, upgraded
from replicator.sites.registry.payload.answer import Answer
from replicator.sites.registry.wire import Wire

MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_FOREIGN_HEADERS: Final = frozenset({"accept", "range"})
"""Headers that are sent to another origin too; credentials are not among them."""


def is_redirect(call: Call, response: Answer) -> bool:
    """Whether the response is a redirect that the call allows to follow."""
    return response.status in _REDIRECTS and call.follow and call.method in {"GET", "HEAD"}


class Redirects:
    """Follows what one registry redirects to.

    Args:
        site: the site's name, for errors.
        wire: sends the requests, and knows the registry's own URL and settings.
    """

    def __init__(self, site: str, wire: Wire) -> None:
        self._site = site
        self._wire = wire

    async def follow(
        self,
        call: Call,
        response: Answer,
        headers: Mapping[str, str],
        patience: Patience | None,
    ) -> Answer:
        """The first response that is not a redirect, unread; `headers` are those of the first request.

        Raises:
            Rejected: a target is refused, or there are too many.
            SiteError: no response.
        """
        seen = {str(response.url)}
        while response.status in _REDIRECTS:
            location = response.headers.get("Location", "")
            base = response.url
            response.release() if call.method == "HEAD" else await self._wire.read_error(response)
            try:
                url = self.checked(call, resolve(base, location))
            except ValueError:
                raise self._rejected(call, "redirected to what is not a URL") from None
            self._check_trust(call, url)
            if str(url) in seen:
                raise self._rejected(call, f"redirects lead in a circle at {shown(url)}")
            if len(seen) > MAX_REDIRECTS:
                raise self._rejected(call, f"more than {MAX_REDIRECTS} redirects")
            seen.add(str(url))
            if origin_of(url) != self._wire.origin:
                headers = _for_foreigners(headers)  # also after a redirect back: it gets no credentials
            response = await self._wire.send(
                call, call.method, url, headers, patience=patience, payload=call.is_payload
            )
        return response

    def checked(self, call: Call, target: URL) -> URL:
        """The target of a Location, over https where it is the registry itself. Raises `Rejected` if it is unsafe."""
        target = upgraded(self._wire.base, target)
        reason = refusal(self._wire.base, target, self._wire.guard, downgrade=self._wire.allows_any)
        if reason is not None:
            raise self._rejected(call, f"sent to {shown(target)}, which is refused: {reason}")
        return target

    def locate(self, location: str, asked: URL) -> str:
        """As `location.resolve_location`, by this registry's rules."""
        return resolve_location(
            location,
            asked=asked,
            registry=self._wire.base,
            guard=self._wire.guard,
            downgrade=self._wire.allows_any,
        )

    def _check_trust(self, call: Call, target: URL) -> None:
        """Only content that a digest verifies may come from another host: tags, listings and the like would be believed.

        A facade may redirect the same request to a registry at another port of its own host.
        """
        base = self._wire.base
        if target.scheme == base.scheme and target.raw_host == base.raw_host:
            path = call.url if call.url.startswith("/") else URL(call.url, encoded=True).raw_path_qs
            if target.raw_path_qs == path:
                return
        if call.verified or self._wire.allows_any or origin_of(target) == self._wire.origin:
            return
        if is_known_redirect(self._wire.base.host or "", target.host or ""):
            return
        why = 'only content that a digest verifies is taken from another host (redirects = "any" allows it)'
        raise self._rejected(call, f"redirected to {shown(target)}, which is refused: {why}")

    def _rejected(self, call: Call, cause: str) -> Rejected:
        return Rejected(self._site, call.operation, cause, repository=call.repository)


def _for_foreigners(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in headers.items() if name.lower() in _FOREIGN_HEADERS}
