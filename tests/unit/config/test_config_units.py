from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.config.units import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("24h", 86400),
        ("1d", 86400),
        ("2w", 1209600),
        ("1h30m", 5400),
        ("1d1s", 86401),
    ],
)
def test_duration_is_the_sum_of_its_parts(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "5", "5 m", "m", "-5m", "1.5h", "30m1h", "5m5m", "5min", "0s", "0h0m", "999999999w", "\u0665m"],
)
def test_what_is_no_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("50MB", 50_000_000),
        ("20GB", 20_000_000_000),
        ("512MiB", 512 * 1024**2),
        ("1.5KiB", 1536),
        ("20 gb", 20_000_000_000),
        ("1TiB", 1024**4),
    ],
)
def test_size_knows_thousands_from_powers_of_two(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "20", "20G", "20GBs", "GB", "-1GB", "1e3MB", "0B", "0.1B", "1,5GB", "20GB\n"]
)
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        parse_size(text)


@given(st.text(max_size=20) | st.from_regex(r"[0-9]{1,4}[wdhmsBkKMGTib]{1,3}", fullmatch=True))
def test_any_text_is_a_positive_value_or_a_value_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with contextlib.suppress(ValueError):
            assert parse(text) > 0
