"""Durations and sizes, as written in the config."""

from __future__ import annotations

import re
from typing import Final

_DURATION: Final = re.compile(
    r"(?:(\d{1,9})w)?(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII
)
_SECONDS: Final = (7 * 86400, 86400, 3600, 60, 1)
_MAX_SECONDS: Final = 100 * 365 * 86400
"""A century. Anything longer is a typing mistake, and could exceed the range of dates."""

_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([A-Za-z]+)", re.ASCII)
_BYTES: Final = {
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "tib": 1024**4,
}


def parse_duration(text: str) -> float:
    """Seconds of a duration such as "90s", "5m", "1h30m" or "1d": units w, d, h, m, s, each once, largest first.

    Raises:
        ValueError: the text has another form, or is zero or more than a hundred years.
    """
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError(
            f'invalid duration {text[:50]!r}: write whole numbers with units, such as "90s", "5m", "1h30m", "1d"'
        )
    seconds = sum(int(number or 0) * unit for number, unit in zip(match.groups(), _SECONDS, strict=True))
    if not 0 < seconds <= _MAX_SECONDS:
        raise ValueError(f"invalid duration {text!r}: must be more than zero and at most a hundred years")
    return float(seconds)


def parse_size(text: str) -> int:
    """Bytes of a size such as "20GB" (powers of 1000) or "512MiB" (powers of 1024), in upper or lower case.

    Raises:
        ValueError: the text has another form, or is less than one byte.
    """
    match = _SIZE.fullmatch(text)
    factor = _BYTES.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(
            f'invalid size {text[:50]!r}: write a number with a unit, such as "50MB" or "512MiB"'
        )
    size = int(float(match[1]) * factor)
    if size < 1:
        raise ValueError(f"invalid size {text!r}: must be at least one byte")
    return size
