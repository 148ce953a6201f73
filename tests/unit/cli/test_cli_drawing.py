"""The live display at any width: no line is longer, and what matters is there."""

from __future__ import annotations

import pytest

from replicator.cli.drawing import draw
from replicator.events import (
    BytesWritten,
    ImagePrepared,
    RetryPlanned,
    RunStarted,
    ScanMoved,
    TagDone,
    TagPlanned,
    TagPostponed,
    TurnAwaited,
)
from replicator.runs.progress import Progress
from tests.fakes.clock import FakeClock

WIDTHS = (20, 40, 60, 80, 200)


def busy(destinations: int = 2) -> Progress:
    """Runs in progress at some destinations, each with a failed tag, and a site that limits requests."""
    clock = FakeClock()
    progress = Progress(clock.monotonic)
    names = tuple(f"datacenter-{number}" for number in range(destinations))
    progress(RunStarted("platform", "hub", names))
    for name in names:
        progress(TagPlanned("platform", name))
        progress(TagPlanned("platform", name))
        digest = f"sha256:{name}"
        blobs = ((digest, 2_000_000_000),)
        progress(ImagePrepared("platform", name, "team/with/a/long/repository/name", "v1", blobs))
        progress(
            BytesWritten("hub", name, 500_000_000, "team/with/a/long/repository/name", digest, 500_000_000)
        )
        progress(TagDone("platform", name, "other", "v2", "copy", "failed"))
    clock.advance(10)
    progress(RetryPlanned("hub", "read blob", "throttled", 20))
    for _ in range(12):
        progress(TurnAwaited("hub", +1))
    return progress


def text(progress: Progress, width: int, height: int = 24, *, is_unicode: bool = True) -> list[str]:
    lines = draw(progress, width, height, is_unicode=is_unicode)
    return ["".join(part.text for part in line) for line in lines]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("height", [1, 3, 24])
def test_no_line_is_longer_and_there_are_not_more_than_fit(width: int, height: int) -> None:
    lines = text(busy(8), width, height)
    assert max(map(len, lines)) <= width
    assert 1 <= len(lines) <= height


@pytest.mark.parametrize("width", [60, 80, 200])
def test_each_destination_has_a_line_with_part_failures_and_tags(width: int) -> None:
    lines = text(busy(), width)
    for number in range(2):
        (line,) = [each for each in lines if each.startswith(f"datacenter-{number}")]
        assert " 25%" in line
        assert "1 failed" in line
        assert "1/2" in line


def test_a_wide_terminal_has_bytes_rate_and_time_left() -> None:
    line = text(busy(1), 200)[0]
    assert "500 MB of 2.0 GB, 50.0 MB/s, 30 s left" in line


def test_transfers_and_waits_are_named() -> None:
    lines = text(busy(), 80)
    assert any("hub -> datacenter-0" in each and "500 MB of 2.0 GB" in each for each in lines)
    assert "  hub limits requests: 12 requests waiting, 20 s more" in lines


def test_destinations_that_do_not_fit_are_summed_up() -> None:
    lines = text(busy(30), 80, 10)
    assert any(each.startswith("and ") and "more destinations" in each and "failed" in each for each in lines)


def test_a_scan_says_how_far_it_is() -> None:
    progress = Progress(FakeClock().monotonic)
    progress(ScanMoved("platform", "hub", 0, 0, is_listed=False))
    assert text(progress, 60) == ["platform: scanning hub: listing repositories"]
    progress(ScanMoved("platform", "hub", 3, 10, is_listed=False))
    assert text(progress, 60) == ["platform: scanning hub: 3 of 10+ repositories"]
    progress(ScanMoved("platform", "hub", 3, 12, is_listed=True))
    assert text(progress, 60) == ["platform: scanning hub: 3 of 12 repositories"]
    progress(ScanMoved("platform", "hub", 5, 12, is_listed=True, unlisted=2))
    assert text(progress, 60) == [
        "platform: scanning hub: 5 of 12 repositories",
        "hub: 2 repositories could not be listed",
    ]
    progress(ScanMoved("platform", "hub", 12, 12, is_listed=True, is_over=True, unlisted=2))
    assert text(progress, 60) == ["hub: 2 repositories could not be listed"]
    progress(ScanMoved("platform", "hub", 0, 0, is_listed=False))
    assert text(progress, 60) == ["platform: scanning hub: listing repositories"]


def test_postponed_tags_are_named_beside_the_bar() -> None:
    progress = Progress(FakeClock().monotonic)
    progress(TagPostponed("platform", "fra"))
    assert text(progress, 60) == ["fra ██████████ 100%  1 postponed  0/0"]
    progress(TagPlanned("platform", "fra"))
    assert text(progress, 60) == ["fra ░░░░░░░░░░   0%  1 postponed  0/1, 0 B/s"]


def test_bars_are_plain_where_the_terminal_has_no_blocks() -> None:
    assert all(line.isascii() for line in text(busy(), 80, is_unicode=False))
    assert "#####..............." in text(busy(), 80, is_unicode=False)[0]
