import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TextIO

import msgspec
import pytest

from replicator.cli.logs import configure, log, log_event, logged_events
from replicator.cli.options import LogFormat
from replicator.cli.program import run
from replicator.daemon.runs import Runs
from replicator.events import (
    Failed,
    InFlight,
    LimitChanged,
    RequestDone,
    Reread,
    RetryPlanned,
    RunEnded,
    RunStarted,
    TagDone,
    TagUntrusted,
    Warned,
)
from replicator.model.shards import Shard
from replicator.runs.current import Run, context_of

FAILED = Failed("platform", "fra", "fra", "mirror/app", "put manifest", "rejected", "400 MANIFEST_INVALID")


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("replicator")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level = before[0], before[1]
    ours.setLevel(before[2])


def told(stderr: io.StringIO) -> list[str]:
    return stderr.getvalue().splitlines()


def logging_to(
    monkeypatch: pytest.MonkeyPatch,
    log_format: LogFormat = "text",
    verbose: int = 0,
    *,
    display: bool = False,
) -> io.StringIO:
    stderr = io.StringIO()
    configure(log_format, verbose, display=display)
    monkeypatch.setattr("sys.stderr", stderr)
    return stderr


@pytest.mark.parametrize("verbose", range(3))
def test_every_kind_of_event_that_gets_a_line_is_named(verbose: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = logging_to(monkeypatch, verbose=verbose)
    lines = {}
    for event in (
        FAILED,
        Warned("hub", "verify = false"),
        TagUntrusted("platform", "fra", "app", "v1", "app", "v1", "sha256:1", "no signature"),
        RunStarted("platform", "hub", ("fra",)),
        RunEnded("platform", "fra", "ok", 1.0, 1, 0, 0, 0),
        TagDone("platform", "fra", "app", "v1", "copy", "copied"),
        RetryPlanned("hub", "read blob", "reset", 1.0),
        Reread("hub", "sha256:1"),
        LimitChanged("hub", "reads", 8),
        RequestDone("hub", "ping", "200", 0.1),
        InFlight("hub", "reads", +1),
    ):
        before = len(told(stderr))
        log_event(event)
        lines[type(event)] = len(told(stderr)) - before
    assert {kind for kind, count in lines.items() if count} == logged_events()


def test_failure_is_one_line_with_all_that_is_needed_to_act_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = logging_to(monkeypatch)
    log_event(FAILED)
    [line] = told(stderr)
    assert line.split(" ", 1)[1] == (
        "ERROR 400 MANIFEST_INVALID rule=platform destination=fra site=fra repository=mirror/app"
        ' operation="put manifest" reason=rejected'
    )


def test_what_is_done_for_an_agents_run_names_it_and_why_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = logging_to(monkeypatch)
    run = Runs().begin(
        rule="platform", source="hub", destinations=("fra",), cause="webhook", scope=None, at=1.0
    )
    for event in (FAILED, RunStarted("platform", "hub", ("fra",)), Warned("hub", "verify = false")):
        context_of(run).run(log_event, event)
    log_event(FAILED)
    failed, started, warned, outside = told(stderr)
    assert all(f" run={run.id} " in line for line in (failed, started, warned))
    assert started.endswith("cause=webhook")
    assert " run=" not in outside


def test_json_has_the_same_as_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = logging_to(monkeypatch, "json")
    log_event(FAILED)
    record = msgspec.json.decode(stderr.getvalue())
    assert record.pop("time").endswith("Z")
    assert record == {
        "level": "error",
        "message": "400 MANIFEST_INVALID",
        "rule": "platform",
        "destination": "fra",
        "site": "fra",
        "repository": "mirror/app",
        "operation": "put manifest",
        "reason": "rejected",
    }


def test_libraries_only_warn_since_their_debug_lines_hold_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = logging_to(monkeypatch, verbose=9)
    log_event(RequestDone("fra", "list objects", "200", 0.1))
    logging.getLogger("botocore.auth").debug("x-amz-security-token: s3cret")
    logging.getLogger("botocore.auth").warning("clock skew")
    requested, warned = told(stderr)
    assert "list objects" in requested
    assert "clock skew" in warned


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_line_stays_one_line_whatever_a_server_says(
    monkeypatch: pytest.MonkeyPatch, log_format: LogFormat
) -> None:
    stderr = logging_to(monkeypatch, log_format)
    log(logging.ERROR, "one\ntwo\r\nERROR forged", cause='three\nfour "five"')
    assert len(told(stderr)) == 1


@pytest.mark.parametrize(
    ("verbose", "display", "levels"),
    [
        (0, True, ["WARNING"]),
        (0, False, ["WARNING", "INFO"]),
        (1, False, ["WARNING", "INFO", "DEBUG"]),
        (1, True, ["WARNING", "INFO"]),
        (2, False, ["WARNING", "INFO", "DEBUG", "TRACE"]),
        (9, True, ["WARNING", "INFO", "DEBUG", "TRACE"]),
    ],
)
def test_each_v_says_more_and_a_display_says_the_rest(
    monkeypatch: pytest.MonkeyPatch, verbose: int, *, display: bool, levels: list[str]
) -> None:
    stderr = logging_to(monkeypatch, verbose=verbose, display=display)
    log_event(Warned("hub", "verify = false"))
    log_event(RunStarted("platform", "hub", ("fra",)))
    log_event(TagDone("platform", "fra", "app", "v1", "copy", "copied"))
    log_event(RequestDone("hub", "ping", "200", 0.1))
    assert [line.split()[1] for line in told(stderr)] == levels


@pytest.mark.parametrize(
    ("repositories", "outcome", "copied", "levels"),
    [
        (None, "ok", 0, ["INFO", "INFO"]),
        (("app",), "ok", 0, ["DEBUG", "DEBUG"]),
        (("app",), "ok", 1, ["DEBUG", "INFO"]),
        (("app",), "failed", 0, ["DEBUG", "INFO"]),
    ],
)
def test_run_for_an_event_that_did_nothing_is_no_news(
    monkeypatch: pytest.MonkeyPatch,
    repositories: tuple[str, ...] | None,
    outcome: Literal["ok", "failed"],
    copied: int,
    levels: list[str],
) -> None:
    stderr = logging_to(monkeypatch, verbose=1)
    log_event(RunStarted("platform", "hub", ("fra",), repositories))
    ended = RunEnded("platform", "fra", outcome, 0.1, 1, 0, 0, 0, copied, repositories)
    log_event(ended)
    assert [line.split()[1] for line in told(stderr)] == levels
    assert all(("repositories=app" in line) == (repositories is not None) for line in told(stderr))


@pytest.mark.parametrize(
    ("outcome", "copied", "levels"),
    [("ok", 0, ["DEBUG", "DEBUG"]), ("ok", 1, ["DEBUG", "INFO"]), ("failed", 0, ["DEBUG", "INFO"])],
)
def test_run_of_a_shard_that_did_nothing_is_no_news(
    monkeypatch: pytest.MonkeyPatch, outcome: Literal["ok", "failed"], copied: int, levels: list[str]
) -> None:
    stderr = logging_to(monkeypatch, verbose=1)
    shard = Run("a-1-7", "platform", "hub", ("fra",), "interval", None, 0.0, {"fra"}, Shard(2, 64))
    context_of(shard).run(log_event, RunStarted("platform", "hub", ("fra",)))
    context_of(shard).run(log_event, RunEnded("platform", "fra", outcome, 0.1, 1, 0, 0, 0, copied))
    assert [line.split()[1] for line in told(stderr)] == levels
    assert all(" shard=3/64 " in line for line in told(stderr))


def test_run_for_events_names_few_of_its_repositories(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = logging_to(monkeypatch)
    names = tuple(f"app{number}" for number in range(1000))
    log_event(RunEnded("platform", "fra", "ok", 0.1, 1, 0, 0, 0, 7, names))
    [line] = told(stderr)
    assert 'repositories="app0,app1,app2 and 997 more"' in line


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """A file that is the journal, as far as a process can tell."""
    with (tmp_path / "journal").open("w+") as journal:
        there = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino}")
        yield journal


def told_journal(journal: TextIO) -> list[str]:
    journal.seek(0)
    return journal.read().split("\n")[:-1]


def test_journal_is_told_the_priority_of_each_line_and_has_the_time_itself(
    journal: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", journal)
    configure("text", 9, display=False)
    log_event(FAILED)
    log_event(Warned("hub", "verify = false"))
    log_event(RunStarted("platform", "hub", ("fra",)))
    log_event(TagDone("platform", "fra", "app", "v1", "copy", "copied"))
    log_event(RequestDone("hub", "ping", "200", 0.1))
    found = [line.split()[0] for line in told_journal(journal)]
    assert found == ["<3>ERROR", "<4>WARNING", "<6>INFO", "<7>DEBUG", "<7>TRACE"]


def test_all_lines_of_a_traceback_have_its_priority(journal: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", journal)
    configure("text", 0, display=False)
    try:
        int("none\nat all")
    except ValueError:
        logging.getLogger("replicator").exception("it broke")
    lines = told_journal(journal)
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_registry_says_begins_no_line_of_its_own(
    form: Literal["text", "json"], journal: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", journal)
    configure(form, 0, display=False)
    log_event(Warned("hub", "tag a\u2028<6>fake\u0085<6>fake\x1c<6>fake\n<6>fake"))
    (line,) = told_journal(journal)
    assert line.startswith("<4>")
    assert line.count("<4>") == 1


def test_json_goes_to_the_journal_with_its_priority_before_it(
    journal: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", journal)
    configure("json", 0, display=False)
    log_event(FAILED)
    (line,) = told_journal(journal)
    assert line[:3] == "<3>"
    assert msgspec.json.decode(line[3:])["time"].endswith("Z")


def test_what_ends_the_program_has_its_priority_too(
    journal: TextIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stderr", journal)
    assert run(["run", "--config", str(tmp_path / "none.toml")]) == 2
    (line,) = told_journal(journal)
    assert line.startswith("<3>error: ")


def test_stderr_that_was_turned_away_from_the_journal_is_as_ever(
    tmp_path: Path, journal: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "elsewhere").open("w+") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        configure("text", 0, display=False)
        log_event(FAILED)
        (line,) = told_journal(stderr)
    assert line.split()[1] == "ERROR"
    assert told_journal(journal) == []


def test_other_libraries_log_in_the_same_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = logging_to(monkeypatch)
    logging.getLogger("asyncio").info("not asked for")
    logging.getLogger("asyncio").warning("slow %s", "callback")
    assert [line.split(" ", 1)[1] for line in told(stderr)] == ["WARNING slow callback"]
