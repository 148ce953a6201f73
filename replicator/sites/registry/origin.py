"""Where a URL leads: origins, redirect targets kept byte for byte, and what is refused as a target.

The rules are those of go-containerregistry: credentials go to the registry's own origin only, and a registry
cannot send us from https to http, nor (unless it is there itself) to a private address.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final

from yarl import URL

Origin = tuple[str, str, int | None]
"""Scheme, host, port; the default port is filled in."""

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


def refusal(registry: URL, target: URL) -> str | None:
    """Why nothing is sent to `target` at a registry's word; None where it is fine."""
    if target.scheme not in {"http", "https"} or not target.raw_host:
        return "it is no http or https URL"
    if target.raw_user is not None or target.raw_password is not None:
        return "it carries user information"
    if target.raw_host == registry.raw_host and target.scheme == registry.scheme:
        return None
    if registry.scheme == "https" and target.scheme == "http":
        return "it leaves https for http"
    if is_private(target.raw_host) and not is_private(registry.raw_host or ""):
        return "it is a private address and the registry is not"
    return None


def is_private(host: str) -> bool:
    """Whether the host is written as a private, link-local or loopback address, in any notation, or is localhost."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _literal(host.strip("[]"))
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and not address.is_global


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its very name."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _literal(host.strip("[]"))
    return address is not None and address.is_loopback


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        # The resolver takes 127.1, 0x7f000001 and 2130706433 for addresses too.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def shown(url: URL) -> str:
    """The URL as it may be told: a signed query, user and password are left out."""
    port = f":{url.explicit_port}" if url.explicit_port is not None else ""
    return f"{url.scheme}://{url.raw_host}{port}{url.raw_path}"
