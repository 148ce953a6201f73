"""Durations and sizes as people write them."""

from __future__ import annotations

import re
from typing import Final

_DURATION: Final = re.compile(
    r"(?:(\d{1,9})w)?(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII
)
_SECONDS: Final = (7 * 86400, 86400, 3600, 60, 1)
_MAX_SECONDS: Final = 100 * 365 * 86400
"""A century: longer is a slip of the keyboard, and stays far from what dates can hold."""

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
    """Seconds of a duration such as "90s", "5m", "1h30m" or "1d"; units w, d, h, m, s, each once and large to small.

    Raises:
        ValueError: not of that form, zero, or more than a hundred years.
    """
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError(
            f'{text[:50]!r} is no duration: write whole numbers with units, as "90s", "5m", "1h30m", "1d"'
        )
    seconds = sum(int(number or 0) * unit for number, unit in zip(match.groups(), _SECONDS, strict=True))
    if not 0 < seconds <= _MAX_SECONDS:
        raise ValueError(f"{text!r} is no usable duration: more than zero and at most a hundred years")
    return float(seconds)


def parse_size(text: str) -> int:
    """Bytes of a size such as "20GB" (powers of 1000) or "512MiB" (powers of 1024); upper or lower case.

    Raises:
        ValueError: not of that form, or less than one byte.
    """
    match = _SIZE.fullmatch(text)
    factor = _BYTES.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(
            f'{text[:50]!r} is no size: write a number with a unit, as "50MB" (1000s) or "512MiB" (1024s)'
        )
    size = int(float(match[1]) * factor)
    if size < 1:
        raise ValueError(f"{text!r} is no usable size: at least one byte")
    return size
