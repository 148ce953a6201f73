"""TLS of one site: whom we believe and as whom we come."""

from __future__ import annotations

import ssl
from typing import Final
from weakref import WeakValueDictionary

from replicator.errors import ConfigError
from replicator.sites.registry.settings import TLS

_CONTEXTS: Final[WeakValueDictionary[tuple[TLS, bool], ssl.SSLContext]] = WeakValueDictionary()


def client_context(site: str, tls: TLS, *, with_certificate: bool = True) -> ssl.SSLContext:
    """A context that trusts the system's authorities and `tls.ca`, and shows `tls.cert` where asked to.

    Open sites with the same settings share one. Otherwise this reads files and blocks for some milliseconds.

    Args:
        site: name of the site, for the message.
        tls: the settings.
        with_certificate: False for hosts other than the site's own (storage, token service): a client
            certificate is a credential too.

    Raises:
        ConfigError: a file is missing, unreadable or no PEM.
    """
    key = (tls, with_certificate)
    if (shared := _CONTEXTS.get(key)) is None:
        shared = _CONTEXTS[key] = _new_context(site, tls, with_certificate=with_certificate)
    return shared


def _new_context(site: str, tls: TLS, *, with_certificate: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if tls.ca is not None:
        try:
            context.load_verify_locations(cafile=tls.ca)
        except OSError as error:
            raise ConfigError(
                [f"site.{site}.tls.ca: {tls.ca}: {pem_problem(error)}; expected PEM certificates"]
            ) from None
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert is not None and with_certificate:
        try:
            # An encrypted key would make OpenSSL ask at the terminal; the empty password makes that an error.
            context.load_cert_chain(tls.cert, tls.key, password=str)
        except OSError as error:
            files = f"{tls.cert}" if tls.key is None else f"{tls.cert} with key {tls.key}"
            raise ConfigError(
                [
                    f"site.{site}.tls.cert: {files}: {pem_problem(error)}; expected a PEM certificate and its unencrypted key"
                ]
            ) from None
    return context


def pem_problem(error: OSError) -> str:
    """What was wrong with a PEM file, in a few words."""
    if isinstance(error, ssl.SSLError):
        return error.reason.replace("_", " ").lower() if error.reason else "not usable"
    return error.strerror or "not readable"
