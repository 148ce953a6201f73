"""Sites, opened together; and registries that no config names: by host, as docker and podman mean it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final

from replicator.cli.watch import Watch
from replicator.model.names import DOCKER_HUB
from replicator.ports import Site
from replicator.sites.open import SiteSettings, open_site
from replicator.sites.registry.origin import is_loopback
from replicator.sites.registry.settings import TLS, RegistrySettings

_HANDSHAKE_SECONDS: Final = 5.0
_HUB_API: Final = "https://registry-1.docker.io"


async def registry_at(host: str, *, insecure: bool) -> RegistrySettings:
    """How to reach the registry of a host (`HOST[:PORT]`), which is also the site's name.

    Docker Hub's API has another host than its name. Loopback may speak plain HTTP, as docker allows; with
    `insecure` any host may, and a certificate is not looked at. What a host speaks is found out by one handshake.
    """
    if host == DOCKER_HUB:
        return RegistrySettings(host, _HUB_API)
    tls = TLS(verify=not insecure)
    if (insecure or is_loopback(_split(host)[0])) and not await _speaks_tls(host):
        return RegistrySettings(host, f"http://{host}", tls=tls)
    return RegistrySettings(host, f"https://{host}", tls=tls)


@contextlib.asynccontextmanager
async def open_sites(settings: Iterable[SiteSettings], watch: Watch) -> AsyncIterator[Mapping[str, Site]]:
    """The sites by name, closed with the context, each even where another's closing fails."""
    async with contextlib.AsyncExitStack() as stack:
        sites: dict[str, Site] = {}
        for each in settings:
            site = sites[each.name] = open_site(each, events=watch.events, clock=watch.clock)
            stack.push_async_callback(site.aclose)
        yield sites


def looks_like_host(text: str) -> bool:
    """Whether the text is a registry's host rather than a name from a config, by docker's rule."""
    return "." in text or ":" in text or text == "localhost"


def _split(host: str) -> tuple[str, int | None]:
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        return name, int(port[1:]) if port[1:] else None
    name, _, port = host.partition(":")
    return name, int(port) if port else None


async def _speaks_tls(host: str) -> bool:
    """Whether a TLS handshake succeeds. Nothing is sent; whom it is with is checked when something is."""
    name, port = _split(host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            _, writer = await asyncio.open_connection(name, port or 443, ssl=context)
    except ssl.SSLError as error:
        # A server that wants a client certificate or another version does speak TLS.
        return error.reason not in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
