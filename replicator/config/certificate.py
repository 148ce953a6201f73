"""The TLS certificate of the agent and of `serve`."""

from __future__ import annotations

import ssl
from pathlib import Path

from replicator.sites.registry.tls import pem_problem


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """A TLS context for a server with this certificate (PEM, with its chain) and key. Never prompts for a password.

    Raises:
        ValueError: a file cannot be read or is not PEM, the two do not match, or the key is encrypted. Names the files.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # For an encrypted key OpenSSL would prompt on the terminal; with the empty password it fails instead.
        context.load_cert_chain(cert, key, password=str)
    except OSError as error:
        raise ValueError(
            f"{cert} with key {key}: {pem_problem(error)}; expected a PEM certificate and its unencrypted key"
        ) from None
    return context
