"""Text as editors save it."""

from __future__ import annotations

import codecs
from typing import Final

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decoded(data: bytes) -> str:
    """The text of a file: UTF-8, or UTF-16 where a byte order mark says so (Windows' editors write one).

    Raises:
        UnicodeDecodeError: it is neither.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.removeprefix(mark).decode(encoding)
    return data.decode()
