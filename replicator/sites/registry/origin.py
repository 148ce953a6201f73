"""Where a URL leads: origins, redirect targets kept byte for byte, and what is refused as a target.

Credentials go to the registry's own origin only. A registry cannot send us from https to http, nor (unless it is
there itself) to a private address, where the site's settings do not allow it.
"""

from __future__ import annotations

import re
from typing import Final

from yarl import URL

from replicator.sites.registry.addresses import AddressGuard, reach_of_host

Origin = tuple[str, str, int | None]
"""Scheme, host, port; the default port is filled in."""

_FRONTS: Final = (("registry.k8s.io", ".pkg.dev"), ("registry-sandbox.k8s.io", ".pkg.dev"))
"""https://github.com/kubernetes/registry.k8s.io, cmd/archeio/docs/request-handling.md."""
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def origin_of(url: URL) -> Origin:
    """The URL's origin. Some registries write `:443`, so the default port is filled in before comparing."""
    return (url.scheme, (url.raw_host or "").lower(), url.port)


def resolve(base: URL, location: str) -> URL:
    """A Location relative to the URL of the request it answered, with path and query byte for byte.

    yarl's own join re-encodes; a signed query or an upload's `_state` does not survive that.

    Raises:
        ValueError: no URL can be made of it.
    """
    location = location.partition("#")[0]
    if _ABSOLUTE.match(location):
        return URL(location, encoded=True)
    if location.startswith("//"):
        return URL(f"{base.scheme}:{location}", encoded=True)
    root = f"{base.scheme}://{base.raw_authority}"
    if location.startswith("/"):
        return URL(root + location, encoded=True)
    if location.startswith("?") or not location:
        return URL(root + base.raw_path + location, encoded=True)
    return URL(f"{root}{base.raw_path.rpartition('/')[0]}/{location}", encoded=True)


def upgraded(registry: URL, target: URL) -> URL:
    """The target over https, where it is the https registry itself called by http.

    A registry behind a proxy that ends TLS often writes its Locations so.
    """
    if registry.scheme != "https" or target.scheme != "http" or target.raw_host != registry.raw_host:
        return target
    if target.port not in {registry.port, 80} or (target.port == 80 and registry.port != 443):
        return target
    return URL(f"https://{registry.raw_authority}{target.raw_path_qs}", encoded=True)


def with_prefix(registry: URL, target: URL) -> URL:
    """The target below the registry's path prefix, where it lost that: a proxy that strips it does not put it back.

    Only paths of the registry's API, at the registry's own origin.
    """
    prefix = registry.raw_path.rstrip("/")
    if not prefix or origin_of(target) != origin_of(registry) or target.raw_path.startswith(f"{prefix}/"):
        return target
    if not target.raw_path.startswith("/v2/"):
        return target
    return URL(f"{registry.scheme}://{registry.raw_authority}{prefix}{target.raw_path_qs}", encoded=True)


def refusal(
    registry: URL, target: URL, guard: AddressGuard | None = None, *, downgrade: bool = False
) -> str | None:
    """Why nothing is sent to `target` at a registry's word; None where it is fine.

    Args:
        registry: who says so.
        target: where it leads. A name is judged once more when it is resolved.
        guard: of the registry's site; by default one that knows no more than the registry's URL.
        downgrade: whether an https registry may lead to http.
    """
    if target.scheme not in {"http", "https"} or not target.raw_host:
        return "it is not an http or https URL"
    if target.raw_user is not None or target.raw_password is not None:
        return "it carries user information"
    if target.raw_host == registry.raw_host and target.scheme == registry.scheme:
        return None
    if registry.scheme == "https" and target.scheme == "http" and not downgrade:
        return 'it leaves https for http (redirects = "any" allows it)'
    reach = reach_of_host(target.raw_host)
    return None if reach is None else (guard or AddressGuard(registry)).refusal(reach)


def is_known_redirect(registry: str, target: str) -> bool:
    """Whether the registry is known to be a front that leads every request, for tags too, to hosts of its owner."""
    return any(registry == front and target.endswith(owner) for front, owner in _FRONTS)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its very name."""
    return reach_of_host(host) == "loopback"


def shown(url: URL) -> str:
    """The URL as it may be told: a signed query, user and password are left out."""
    port = f":{url.explicit_port}" if url.explicit_port is not None else ""
    return f"{url.scheme}://{url.raw_host}{port}{url.raw_path}"
