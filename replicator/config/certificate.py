"""The certificate that a server of ours shows."""

from __future__ import annotations

import ssl
from pathlib import Path


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
            f"{cert} with key {key}: {_reason(error)}; expected a PEM certificate and its unencrypted key"
        ) from None
    return context


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason.replace("_", " ").lower() if error.reason else "not usable"
    return error.strerror or "not readable"
