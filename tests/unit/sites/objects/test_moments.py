from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.sites.objects.s3.moments import read_time


@pytest.mark.parametrize(
    "text",
    ["2026-11-28T10:15:00.000Z", "2026-11-28T10:15:00Z", "2026-11-28T11:15:00+01:00", "2026-11-28T10:15:00"],
)
def test_times_of_xml(text: str) -> None:
    assert read_time(text) == datetime(2026, 11, 28, 10, 15, tzinfo=UTC)


def test_time_of_a_header() -> None:
    assert read_time("Sat, 28 Nov 2026 10:15:00 GMT") == datetime(2026, 11, 28, 10, 15, tzinfo=UTC)


@given(st.text(max_size=100))
def test_what_is_none_is_refused_as_one(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert read_time(text).tzinfo is not None


@pytest.mark.parametrize("text", ["", "yesterday", "2026-99-99", "9:" + "9" * 40, "9" * 100])
def test_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="a time"):
        read_time(text)
