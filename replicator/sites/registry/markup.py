"""The words of a web page, read in one pass: no regular expression, which `<<<<` would send back and forth."""

from __future__ import annotations

import html
from collections.abc import Iterator


def title_of(page: str) -> str:
    """The page's title, one line; "" where it has none."""
    lower = page.lower()
    at = lower.find("<title")
    begin = -1 if at < 0 else lower.find(">", at)
    if begin < 0:
        return ""
    end = lower.find("<", begin)
    return _plain(page[begin + 1 : end if end >= 0 else None])


def words_of(page: str) -> str:
    """The page's title, else its text without markup, one line."""
    return title_of(page) or _plain(" ".join(_texts(page)))


def _texts(page: str) -> Iterator[str]:
    """The text between tags; none of styles and scripts."""
    at = 0
    while (begin := page.find("<", at)) >= 0:
        yield page[at:begin]
        end = page.find(">", begin)
        if end < 0:
            return
        at = end + 1
        if page[begin + 1 : begin + 8].lower().startswith(("style", "script")):
            at = page.find("<", at)
            if at < 0:
                return
    yield page[at:]


def _plain(text: str) -> str:
    return " ".join(html.unescape(text).split())
