"""Times as S3 writes them, in place of botocore's own reading, which guesses and fails in many ways on what is none."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

MAX_CHARACTERS: Final = 64


def read_time(value: object) -> datetime:
    """A time in ISO 8601 (XML) or as HTTP writes it; one without a zone is UTC.

    Raises:
        ValueError: it is none.
    """
    text = str(value)
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"a time of {len(text)} characters")
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        try:
            time = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            raise ValueError(f"not a time: {text!r}") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
