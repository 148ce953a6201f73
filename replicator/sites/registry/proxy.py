"""Which proxy leads to a host."""

from __future__ import annotations

import ipaddress
from fnmatch import fnmatchcase
from urllib.request import getproxies_environment

from yarl import URL

from replicator.errors import ConfigError
from replicator.scrub import remember_login
from replicator.sites.registry.origin import is_loopback


class Proxies:
    """The proxy of each host that a site leads to.

    What the environment says of a site that does not use it is not judged: desktops set ALL_PROXY to SOCKS for all.

    Args:
        site: name of the site, for messages.
        setting: the site's `proxy`: a URL for all hosts, "" for none, None for what the environment says
            (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, read now). As in Go's clients the environment's proxy
            is never asked for a loopback host.
        base: the site's own URL.

    Raises:
        ConfigError: the proxy for the site's own URL is not an http or https URL.
    """

    def __init__(self, site: str, setting: str | None, base: URL) -> None:
        self._site = site
        self._fixed: URL | None = None
        self._environment: dict[str, str] = {}
        self._cache: dict[tuple[str, str | None, int | None], URL | None] = {}
        if setting is None:
            self._environment = getproxies_environment()
            self.find(base)
        elif setting:
            self._fixed = _proxy(f"site.{site}.proxy", setting, site)

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts of all proxies that may be asked."""
        texts = [text for kind in ("http", "https", "all") if (text := self._environment.get(kind))]
        proxies = [self._fixed, *(_url(text) for text in texts)]
        return frozenset(proxy.host for proxy in proxies if proxy is not None and proxy.host)

    def find(self, url: URL) -> URL | None:
        """The proxy to ask for the URL, None for a direct connection. Raises ConfigError for one that cannot be used."""
        if not self._environment:
            return self._fixed
        key = (url.scheme, url.host, url.port)
        if key not in self._cache:
            self._cache[key] = self._choose(url)
        return self._cache[key]

    def _choose(self, url: URL) -> URL | None:
        host = url.host or ""
        kind = url.scheme if self._environment.get(url.scheme) else "all"
        text = self._environment.get(kind)
        if not text or is_loopback(host) or bypasses(self._environment.get("no", ""), host, url.port):
            return None
        return _proxy(f"environment {kind.upper()}_PROXY", text, self._site)


def bypasses(no_proxy: str, host: str, port: int | None) -> bool:
    """Whether NO_PROXY names the host, as Go's clients (docker, skopeo, crane) read it.

    Entries are parted by commas or blanks: `*` for all; an address or a network (`10.0.0.0/8`); a domain, which stands
    for those below it as well, with a leading dot (or `*.`) for these alone; each with `:PORT` for one port only.
    """
    address = _address(host)
    host = host.lower().rstrip(".")
    for entry in no_proxy.replace(",", " ").lower().split():
        if entry == "*" or _names(entry, host, port, address):
            return True
    return False


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _names(entry: str, host: str, port: int | None, address: _Address | None) -> bool:
    name, wanted = _split(entry)
    if wanted is not None and wanted != port:
        return False
    if address is not None:
        try:
            return address in ipaddress.ip_network(name, strict=False)
        except ValueError:
            return False
    name = name.rstrip(".")
    if name.startswith("*."):
        name = name[1:]
    if name.startswith("."):
        return host.endswith(name)
    return host == name or host.endswith(f".{name}") or ("*" in name and fnmatchcase(host, name))


def _split(entry: str) -> tuple[str, int | None]:
    """An entry without its port, and that port."""
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        return name, int(rest[1:]) if rest[1:].isdigit() else None
    name, colon, port = entry.rpartition(":")
    if colon and ":" not in name and port.isascii() and port.isdigit():
        return name, int(port)
    return entry, None


def _address(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _url(text: str) -> URL:
    try:
        return URL(text if "://" in text else f"http://{text}")
    except ValueError:
        return URL()


def _proxy(where: str, text: str, site: str) -> URL:
    remember_login(text)  # its 407 may quote what it was shown
    url = _url(text)
    if url.scheme.startswith("socks"):
        what = f"site {site} would be reached through a SOCKS proxy, which is not supported"
        remedy = f'set site.{site}.proxy to an http:// proxy, or to "" for a direct connection'
        raise ConfigError([f"{where}: {what}; {remedy}, or name its host in NO_PROXY"])
    if url.scheme not in {"http", "https"} or not url.host:
        # The text is not shown: proxies are configured with passwords in them.
        raise ConfigError([f"{where}: not a usable proxy; expected http://[USER:PASSWORD@]HOST[:PORT]"])
    return url
