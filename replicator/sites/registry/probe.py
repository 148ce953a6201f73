"""From a registry's name, as people write it, to the URL it is spoken to at."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from yarl import URL

from replicator.model.names import DOCKER_HUB
from replicator.sites.registry.origin import is_loopback

_HUB_URL: Final = "https://registry-1.docker.io"
_PROBE_SECONDS: Final = 5.0


async def registry_url(host: str, *, insecure: bool = False) -> str:
    """The URL for a host as `parse_host` gives it: https; plain http where that is allowed and https does not answer.

    Docker Hub's API has another host than its name. Plain http is allowed for `insecure`, and unasked for loopback hosts, as docker does. Only these are probed, by a
    TLS handshake that says nothing and checks nothing; elsewhere no connection is made. Never raises for a host
    that cannot be reached.
    """
    if host == DOCKER_HUB:
        return _HUB_URL
    url = URL(f"https://{host}")
    if not insecure and not is_loopback(url.host or ""):
        return f"https://{host}"
    return f"https://{host}" if await _speaks_tls(url.host or "", url.port or 443) else f"http://{host}"


async def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as error:
        # A server that wants a client certificate or another version does speak TLS.
        return error.reason not in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True
