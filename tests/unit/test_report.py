import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.engine.result import (
    ActionResult,
    BlobTotals,
    ByteTotals,
    DestinationResult,
    Failure,
    FilterCount,
    Outcome,
    RuleResult,
    RunResult,
    TagTotals,
    Totals,
)
from replicator.events import BytesRead, RequestDone, RetryPlanned
from replicator.report import (
    RunCounts,
    combine,
    drift,
    failed,
    format_bytes,
    format_seconds,
    overall,
    render_copy,
    render_plan,
    render_run,
    table,
)

DIGEST = "sha256:" + "a" * 64


def destination(name: str, outcome: Outcome = "ok", **fields: object) -> DestinationResult:
    return msgspec.structs.replace(DestinationResult(name, outcome), **fields)


def report(*destinations: DestinationResult) -> RunResult:
    return combine(
        [RuleResult("platform", "hub", list(destinations))], RunCounts(), started_at=0.0, seconds=1.9
    )


def copy_action(tag: str, **fields: object) -> ActionResult:
    action = ActionResult("copy", "platform/app", "mirror/app", tag, DIGEST, "planned", bytes=1_500_000)
    return msgspec.structs.replace(action, **fields)


def test_totals_are_the_destinations_sums_but_what_was_read_is_counted_once() -> None:
    totals = Totals(
        TagTotals(copied=2, held=1), BlobTotals(mounted=3), ByteTotals(read=10, written=20, saved=5)
    )
    counts = RunCounts()
    for event in (
        BytesRead("hub", 12),
        RequestDone("hub", "ping", "200", 0.1),
        RetryPlanned("hub", "ping", "reset", 1),
    ):
        counts(event)
    result = combine(
        [
            RuleResult(
                "platform", "hub", [destination("fra", totals=totals), destination("sin", totals=totals)]
            )
        ],
        counts,
        started_at=0.0,
        seconds=1.25,
    )
    assert result.totals == Totals(
        TagTotals(copied=4, held=2), BlobTotals(mounted=6), ByteTotals(read=12, written=40, saved=10), 1, 1
    )
    assert result.started_at == "1970-01-01T00:00:00.000+00:00"


def test_json_has_the_documented_shape() -> None:
    decoded = msgspec.json.decode(msgspec.json.encode(report(destination("fra"))))
    assert list(decoded) == ["version", "started_at", "seconds", "outcome", "totals", "rules"]
    assert decoded["version"] == 1
    assert set(decoded["totals"]) == {"tags", "blobs", "bytes", "requests", "retries"}
    assert set(decoded["rules"][0]["destinations"][0]) == {
        *("destination", "outcome", "totals", "warnings", "failures", "actions")
    }


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], "ok"),
        (["ok", "ok"], "ok"),
        (["failed", "failed"], "failed"),
        (["ok", "failed"], "partial"),
        (["partial"], "partial"),
        (["ok", "interrupted", "failed"], "interrupted"),
    ],
)
def test_outcome_of_a_run_is_that_of_its_parts(outcomes: list[Outcome], expected: Outcome) -> None:
    assert overall(outcomes) == expected


@pytest.mark.parametrize(
    "bad",
    [
        destination("fra", "partial"),
        destination("fra", "interrupted", failures=[Failure("fra", None, "ping", "refused")]),
        destination("fra", "interrupted", totals=Totals(TagTotals(failed=1))),
    ],
)
def test_any_failure_makes_the_run_failed(bad: DestinationResult) -> None:
    assert failed(report(destination("sin"), bad))
    assert not failed(report(destination("sin")))


def test_only_what_would_change_the_destination_is_drift() -> None:
    held = ActionResult("hold", "app", "app", "v1", DIGEST, "held", "another rule owns it")
    kept = ActionResult("keep", "app", "app", "v2", DIGEST, "kept")
    assert not drift(report(destination("fra", actions=[held, kept])))
    assert drift(report(destination("fra", actions=[held, copy_action("v3")])))


def test_each_failure_is_one_line_with_site_repository_operation_and_cause() -> None:
    failure = Failure("fra", "mirror/app", "put manifest", "400 MANIFEST_INVALID")
    text = render_run(
        report(destination("fra", "failed", failures=[failure, failure], warnings=["no tag matched"]))
    )
    assert text.count("failed: fra: mirror/app: put manifest: 400 MANIFEST_INVALID\n") == 1
    assert "warning: rule platform: no tag matched\n" in text
    assert text.splitlines()[-1].startswith("failed: 0 tags copied")


def test_warning_names_its_rule_once() -> None:
    result = report(destination("fra", warnings=["rule platform: no tag matches", "slow"]))
    lines = [line for line in render_run(result).splitlines() if line.startswith("warning")]
    assert lines == ["warning: rule platform: no tag matches", "warning: rule platform: slow"]


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0 tags copied"), (1, "1 tag copied"), (2, "2 tags copied")],
)
def test_one_is_not_many(count: int, told: str) -> None:
    counts = RunCounts(requests=count, retries=count)
    rules = [RuleResult("a", "hub", [destination("fra", totals=Totals(TagTotals(copied=count)))])]
    last = render_run(combine(rules, counts, started_at=0.0, seconds=1.0)).splitlines()[-1]
    assert last.startswith(f"ok: {told}, 0 unchanged")
    assert ("1 request, 1 retry;" in last) == (count == 1)
    assert ("requests" in last and "retries" in last) == (count != 1)


def test_plan_shows_actions_reasons_filters_and_the_sum() -> None:
    plan = combine(
        [
            RuleResult(
                "platform",
                "hub",
                [
                    destination(
                        "fra",
                        actions=[
                            copy_action("v1", blobs=BlobTotals(copied=3, mounted=1, present=2)),
                            ActionResult("hold", "app", "app", "v2", DIGEST, "held", "another rule owns it"),
                        ],
                        totals=Totals(TagTotals(copied=1, unchanged=5, held=1)),
                    )
                ],
                filters=[FilterCount("platform/app", "semver", 3, 7)],
            )
        ],
        RunCounts(),
        started_at=0.0,
        seconds=0.5,
    )
    assert render_plan(plan).splitlines() == [
        "platform: hub -> fra",
        "  hold  app:v2                          sha256:aaaaaaaaaaaa  another rule owns it",
        (
            "  copy  platform/app:v1  -> mirror/app  sha256:aaaaaaaaaaaa"
            "  1.5 MB; blobs: 3 to copy, 1 to mount, 2 present"
        ),
        "  1 to copy, 5 unchanged, 1 held, 0 failed; 1.5 MB to move",
        "  filter: platform/app: semver left out 3 of 10 tags",
        "drift: checked in 0.5 s",
    ]


def test_plan_and_copy_show_tags_in_the_order_of_their_versions() -> None:
    tags = ("v1.10", "v1.9", "v2")
    done = report(destination("fra", actions=[copy_action(tag) for tag in tags]))
    for text in (render_plan(done), render_copy(done)):
        assert re.findall(r":(v[0-9.]+)", text) == ["v1.9", "v1.10", "v2"]


@pytest.mark.parametrize(
    ("site", "place"),
    [
        ("fra:5000", "fra:5000/mirror/app:v1"),
        ("file:///srv/mirror", "file:///srv/mirror//mirror/app:v1"),
        ("s3://bucket", "s3://bucket//mirror/app:v1"),
        ("oci:layout", "oci:layout:v1"),
        ("oci-archive:app.tar", "oci-archive:app.tar:v1"),
    ],
)
def test_what_was_copied_is_named_as_copy_takes_it(site: str, place: str) -> None:
    text = render_copy(report(destination(site, actions=[copy_action("v1")])))
    assert text.split()[1] == place


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_500, "99.5 kB"),
        (999_600, "1.0 MB"),
        (5e15, "5000 TB"),
    ],
)
def test_sizes_read_well(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (12_000, "3 h 20 min"),
        (187_300, "2 d 4 h"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.integers(min_value=0, max_value=10**18))
def test_sizes_stay_narrow(count: int) -> None:
    assert len(format_bytes(count)) <= len("1000000 TB")


@given(st.lists(st.tuples(st.text("ab ", max_size=6), st.text("ab ", max_size=6)), max_size=5))
def test_second_column_starts_at_one_place(rows: list[tuple[str, str]]) -> None:
    lines = table([(first, f"|{second}") for first, second in rows])
    assert len({line.index("|") for line in lines}) <= 1
