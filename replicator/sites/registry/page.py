"""Telling a web page from a registry's answer: what proxies, login pages and captive portals send, with 200."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Final

_TITLE: Final = re.compile(rb"<title[^>]*>([^<]{1,200})", re.IGNORECASE)
_MARKUP: Final = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body|!--|\?xml)", re.IGNORECASE)


def web_page(headers: Mapping[str, str], body: bytes) -> str | None:
    """What an answer is, in words ("a web page, 'Sign in'"), where it is a web page; None where it is not.

    Args:
        headers: of the answer.
        body: its beginning is enough.
    """
    if "html" not in headers.get("Content-Type", "").lower() and not _MARKUP.match(body[:1024]):
        return None
    title = _TITLE.search(body[:65_536])
    text = " ".join(html.unescape(title[1].decode("utf-8", "replace")).split())[:80] if title else ""
    return f"a web page ({text!r})" if text.isprintable() and text else "a web page"
