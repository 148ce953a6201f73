"""Which proxy leads to a host."""

from __future__ import annotations

from urllib.request import (  # type: ignore[attr-defined]  # undocumented, but aiohttp's own way too
    getproxies_environment,
    proxy_bypass_environment,
)

from yarl import URL

from replicator.errors import ConfigError
from replicator.sites.registry.origin import is_loopback


class Proxies:
    """The proxy of each host that a site leads to.

    Args:
        site: name of the site, for messages.
        setting: the site's `proxy`: a URL for all hosts, "" for none, None for what the environment says
            (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, read now). As in Go's clients the environment's proxy
            is never asked for a loopback host.

    Raises:
        ConfigError: a proxy that is no http or https URL (aiohttp speaks no SOCKS).
    """

    def __init__(self, site: str, setting: str | None) -> None:
        self._fixed: URL | None = None
        self._environment: dict[str, str] = {}
        self._cache: dict[tuple[str, str | None, int | None], URL | None] = {}
        if setting is None:
            self._environment = getproxies_environment()
            for scheme in ("http", "https", "all"):
                if text := self._environment.get(scheme):
                    _proxy(f"environment {scheme.upper()}_PROXY", text)
        elif setting:
            self._fixed = _proxy(f"site.{site}.proxy", setting)

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts of all proxies that may be asked."""
        texts = [text for scheme in ("http", "https", "all") if (text := self._environment.get(scheme))]
        proxies = [self._fixed, *(_proxy("environment", text) for text in texts)]
        return frozenset(proxy.host for proxy in proxies if proxy is not None and proxy.host)

    def find(self, url: URL) -> URL | None:
        """The proxy to ask for the URL, None for a direct connection."""
        if not self._environment:
            return self._fixed
        key = (url.scheme, url.host, url.port)
        if key not in self._cache:
            self._cache[key] = self._choose(url)
        return self._cache[key]

    def _choose(self, url: URL) -> URL | None:
        host = url.host or ""
        text = self._environment.get(url.scheme) or self._environment.get("all")
        if not text or is_loopback(host) or proxy_bypass_environment(f"{host}:{url.port}", self._environment):
            return None
        return _proxy(f"environment {url.scheme.upper()}_PROXY", text)


def _proxy(where: str, text: str) -> URL:
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        # The text is not shown: proxies are configured with passwords in them.
        raise ConfigError([f"{where}: not a usable proxy; expected http://[USER:PASSWORD@]HOST[:PORT]"])
    return url
