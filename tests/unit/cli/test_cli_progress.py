import pytest

from replicator.cli.console import Progress, summary
from replicator.events import BytesRead, BytesSaved, BytesWritten, Event, ImagePrepared, TagDone, TagPlanned


def progress(*events: Event) -> Progress:
    seen = Progress()
    for event in events:
        seen(event)
    return seen


def done(outcome: str) -> TagDone:
    return TagDone("platform", "fra", "app", "v1", "copy", outcome)


def test_rate_is_that_of_the_last_ten_seconds() -> None:
    seen = progress()
    assert seen.rate(0.0) == 0.0
    seen(BytesWritten("hub", "fra", 1_000))
    assert seen.rate(1.0) == pytest.approx(1_000)
    for now in range(2, 30):
        seen(BytesWritten("hub", "fra", 10))
        seen.rate(float(now))
    assert seen.rate(29.0) == pytest.approx(10)


def test_rate_falls_to_nothing_when_nothing_moves() -> None:
    seen = progress()
    seen.rate(0.0)
    seen(BytesWritten("hub", "fra", 1_000))
    for now in range(1, 20):
        seen.rate(float(now))
    assert seen.rate(20.0) == 0.0


def test_time_left_leaves_out_what_need_not_move_at_this_destination() -> None:
    seen = progress(
        TagPlanned("platform", "fra"),
        ImagePrepared("platform", "fra", 1_000),
        BytesWritten("hub", "fra", 100),
        BytesSaved("fra", "mounted", 300),
        BytesSaved("fra", "shared_read", 500),  # spares the source, and is written all the same
    )
    assert seen.left(100.0) == pytest.approx(6.0)


def test_time_left_is_not_told_where_it_is_not_known() -> None:
    seen = progress(TagPlanned("platform", "fra"), ImagePrepared("platform", "fra", 1_000))
    assert seen.left(0.0) is None
    seen(done("copied"))
    assert seen.left(100.0) is None
    assert "left" not in summary(seen, 100.0)


def test_tags_are_counted_for_each_rule_and_destination() -> None:
    seen = progress(
        TagPlanned("platform", "fra"), TagPlanned("platform", "sin"), done("failed"), BytesRead("hub", 7)
    )
    assert seen.tags() == (1, 2)
    assert seen.rows["platform", "fra"].failed == 1
    assert summary(seen, 0.0).startswith("7 B read, 0 B written")
