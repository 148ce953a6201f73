"""Telling a web page from a registry's answer: what proxies, login pages and captive portals send, with 200."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from replicator.sites.bounds import MAX_ERROR_BYTES
from replicator.sites.registry.markup import title_of

_MARKUP: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body|!--|\?xml)", re.IGNORECASE)


def web_page(headers: Mapping[str, str], body: bytes) -> str | None:
    """What an answer is, in words ("a web page, 'Sign in'"), where it is a web page; None where it is not.

    Args:
        headers: of the answer.
        body: its beginning is enough.
    """
    if "html" not in headers.get("Content-Type", "").lower() and not _MARKUP.match(body[:1024]):
        return None
    text = title_of(body[:MAX_ERROR_BYTES].decode("utf-8", "replace"))[:80]
    return f"a web page ({text!r})" if text.isprintable() and text else "a web page"
