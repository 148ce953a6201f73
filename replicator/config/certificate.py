"""The certificate that a server of ours shows."""

from __future__ import annotations

import ssl
from pathlib import Path

from replicator.sites.registry.tls import pem_problem


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """A server's side of TLS with this certificate (PEM, with its chain) and key. Reads files; asks nobody anything.

    Raises:
        ValueError: they cannot be read, are no PEM, do not belong together, or the key is encrypted; names the files.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # An encrypted key would make OpenSSL ask at the terminal; the empty password makes that an error.
        context.load_cert_chain(cert, key, password=str)
    except OSError as error:
        raise ValueError(
            f"{cert} with key {key}: {pem_problem(error)}; expected a PEM certificate and its unencrypted key"
        ) from None
    return context
