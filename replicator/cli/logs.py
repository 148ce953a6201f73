"""The log on stderr, as text or JSON lines, and the subscriber that logs the events of a run.

This is the standard `logging` with our own formatters, so that records of libraries have the same format. Importing
structlog would add a tenth of a second to the start of every command, because it imports rich.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final, TextIO

import msgspec

from replicator.cli.options import LogFormat
from replicator.events import (
    Event,
    Failed,
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
from replicator.runs.current import current_run
from replicator.scrub import scrub

TRACE: Final = 5
"""Below DEBUG: every request."""

_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG, TRACE)
_MAX_CHARACTERS: Final = 4_000
_FIELDS: Final = "fields"
_NAMED: Final = 3
"""Maximum number of repositories of a run in a log line."""

_log = logging.getLogger("replicator")


def configure(log_format: LogFormat, verbose: int, *, display: bool) -> None:
    """Configures logging. Call it once, before anything is logged.

    With a live display, only warnings and errors are logged; without one, also the start and end of runs. Each `-v`
    adds a level: decisions for each tag, then every request. Libraries log only warnings at any level, because
    botocore's debug messages contain session tokens and the answers of role logins.
    """
    logging.addLevelName(TRACE, "TRACE")
    level = _LEVELS[min(verbose + (0 if display else 1), len(_LEVELS) - 1)]
    root = logging.getLogger()
    journal = leads_to_journal()
    lines = JSONLines() if log_format == "json" else TextLines(timed=not journal)
    root.handlers[:] = [_Stderr(JournalLines(lines) if journal else lines)]
    root.setLevel(logging.WARNING)
    _log.setLevel(level)


def log(level: int, message: str, **fields: object) -> None:
    """Logs a constant message with variable fields. Fields that are None are left out."""
    if _log.isEnabledFor(level):
        given = {key: value for key, value in fields.items() if value is not None}
        _log.log(level, message, extra={_FIELDS: given})


def logged_events() -> frozenset[type[Event]]:
    """The events that `log_event` may have a line for, at the level that is configured."""
    logged: set[type[Event]] = {Failed, Warned, TagUntrusted, RunStarted, RunEnded}
    if _log.isEnabledFor(logging.DEBUG):
        logged |= {TagDone, RetryPlanned, Reread, LimitChanged}
    if _log.isEnabledFor(TRACE):
        logged.add(RequestDone)
    return frozenset(logged)


def log_event(event: Event) -> None:
    """A subscriber to `Events`: logs each failure and warning, and the start and end of runs."""
    match event:
        case Failed():
            log(
                logging.ERROR,
                event.cause,
                rule=event.rule or None,
                destination=event.destination or None,
                site=event.site,
                repository=event.repository,
                operation=event.operation,
                reason=event.reason,
            )
        case Warned():
            log(logging.WARNING, event.text, site=event.site)
        case TagUntrusted():
            log(
                logging.WARNING,
                "not trusted, held",
                rule=event.rule,
                destination=event.destination,
                repository=event.repository,
                tag=event.tag,
                digest=event.digest,
                reason=event.reason,
            )
        case RunStarted() | RunEnded():
            _log_run(event)
        case _:
            _log_detail(event)


def _log_run(event: RunStarted | RunEnded) -> None:
    """A run for a single event, or of one shard, is logged only if it did something: there may be ten thousand a day."""
    run = current_run()
    shard = None if run is None or run.shard is None else str(run.shard)
    narrowed = event.repositories is not None or shard is not None
    if isinstance(event, RunStarted):
        log(
            logging.DEBUG if narrowed else logging.INFO,
            "run started",
            rule=event.rule or None,
            source=event.source,
            destinations=",".join(event.destinations),
            repositories=_listed(event.repositories),
            shard=shard,
            cause=run.cause if run else None,
        )
        return
    log(
        logging.DEBUG if narrowed and event.outcome == "ok" and not event.copied else logging.INFO,
        "run ended",
        rule=event.rule or None,
        destination=event.destination,
        repositories=_listed(event.repositories),
        shard=shard,
        cause=run.cause if run else None,
        outcome=event.outcome,
        seconds=round(event.seconds, 1),
        copied=event.copied,
        in_step=event.in_step,
        pending=event.pending,
        held=event.held,
        failed=event.failed,
    )


def _listed(names: Sequence[str] | None) -> str | None:
    if names is None or len(names) <= _NAMED:
        return None if names is None else ",".join(names)
    return f"{','.join(names[:_NAMED])} and {len(names) - _NAMED} more"


def _log_detail(event: Event) -> None:
    match event:
        case TagDone():
            log(
                logging.DEBUG,
                f"tag {event.outcome}",
                rule=event.rule or None,
                destination=event.destination,
                repository=event.repository,
                tag=event.tag,
            )
        case RetryPlanned():
            log(
                logging.DEBUG,
                "retrying",
                site=event.site,
                operation=event.operation,
                reason=event.reason,
                wait=round(event.wait, 2),
            )
        case Reread():
            log(logging.DEBUG, "reading blob again", site=event.source, digest=event.digest)
        case LimitChanged():
            log(logging.DEBUG, "concurrency changed", site=event.site, kind=event.kind, limit=event.limit)
        case RequestDone():
            log(
                TRACE,
                "request",
                site=event.site,
                operation=event.operation,
                code=event.code,
                seconds=round(event.seconds, 3),
            )


def leads_to_journal() -> bool:
    """Whether stderr is connected to systemd's journal ($JOURNAL_STREAM, systemd.exec(5)) and was not redirected."""
    try:
        stderr = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or not a file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"


def priority(level: int) -> str:
    """The priority prefix of a line to the journal, for `journalctl -p` (sd-daemon(3))."""
    names = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
    return f"<{next((number for least, number in names if level >= least), 7)}>"


class JournalLines(logging.Formatter):
    """The lines of another formatter, each with its priority prefix: `<4>WARNING ...`."""

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        """The text of the other formatter. Each line of a traceback has the prefix, too."""
        text = self._lines.format(record)
        return "\n".join(f"{priority(record.levelno)}{line}" for line in text.split("\n"))


class TextLines(logging.Formatter):
    """`2026-11-24T09:00:00Z INFO run started rule=platform source=hub`; without the time if not `timed`."""

    def __init__(self, *, timed: bool = True) -> None:
        super().__init__()
        self._timed = timed

    def format(self, record: logging.LogRecord) -> str:
        """One line, followed by the traceback if the record has one."""
        fields = "".join(f" {key}={_quoted(value)}" for key, value in _fields(record).items())
        line = f"{record.levelname} {_one_line(record.getMessage())}{fields}"
        if self._timed:
            line = f"{_timestamp(record)} {line}"
        return f"{line}\n{_traceback(self.formatException(record.exc_info))}" if record.exc_info else line


class JSONLines(logging.Formatter):
    """`{"time": ..., "level": "info", "message": ..., the fields}`, one object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, always."""
        line: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "message": _one_line(record.getMessage()),
            **{
                key: _one_line(value) if isinstance(value, str) else value
                for key, value in _fields(record).items()
            },
        }
        if record.exc_info:
            line["traceback"] = _traceback(self.formatException(record.exc_info))
        return msgspec.json.encode(line, enc_hook=str).decode()


class _Stderr(logging.StreamHandler[TextIO]):
    """Looks up stderr for each record, because a live display replaces it while it is active."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record to the current stderr."""
        self.stream = sys.stderr
        super().emit(record)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The fields, with the run's id in an agent, where runs of one rule may overlap."""
    fields: dict[str, object] = getattr(record, _FIELDS, {})
    run = current_run()
    return fields if run is None else {"run": run.id, **fields}


def _timestamp(record: logging.LogRecord) -> str:
    at = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _one_line(text: str) -> str:
    return scrub(text, _MAX_CHARACTERS)


def _traceback(formatted: str) -> str:
    """Its lines stay lines; what they quote is scrubbed."""
    return "\n".join(line[: len(line) - len(line.lstrip())] + scrub(line) for line in formatted.split("\n"))


def _quoted(value: object) -> str:
    text = _one_line(str(value))
    return msgspec.json.encode(text).decode() if not text or " " in text or '"' in text else text
