"""The system's certificate authorities, read when the first handshake needs them: that takes 20 ms for each context."""

from __future__ import annotations

import contextlib
import ssl
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

_METHOD: Final = "set_default_verify_paths"


class _Late(ssl.SSLContext):
    """A context that lacks the system's authorities until its first handshake. Then it is an ordinary one."""

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        _complete(self)
        return self.wrap_bio(*arguments, **options)

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        _complete(self)
        return self.wrap_socket(*arguments, **options)


def _complete(context: ssl.SSLContext) -> None:
    """Makes the context an ordinary one; threads share it, so another may have done that at any moment."""
    super(ssl.SSLContext, context).set_default_verify_paths()
    # Last: reading twice does no harm, a handshake without authorities would fail.
    context.__class__ = ssl.SSLContext


@cache
def default_context() -> ssl.SSLContext:
    """The one context of the process that trusts the system's authorities and has no client certificate."""
    with _late():
        return ssl.create_default_context()


def import_aiohttp() -> None:
    """Imports aiohttp, which creates two contexts with the system's authorities, most of the time for nobody.

    Call it before a module that imports aiohttp where the start must be fast. The contexts are complete when they are used.
    aiohttp has no setting for it: `aiohttp.connector` creates them at its import, whatever the program asks for later.
    """
    if "aiohttp" not in sys.modules:
        with _late():
            import aiohttp  # noqa: F401, PLC0415 - see above


@contextlib.contextmanager
def _late() -> Iterator[None]:
    """Whoever asks for the system's authorities in this context gets them at the first handshake."""

    def wait(context: ssl.SSLContext) -> None:
        context.__class__ = _Late

    setattr(ssl.SSLContext, _METHOD, wait)
    try:
        yield
    finally:
        with contextlib.suppress(AttributeError):  # another thread was first
            delattr(ssl.SSLContext, _METHOD)  # what is left is the inherited one
