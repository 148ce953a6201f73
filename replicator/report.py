"""The report of a run: put together from the rules' results, and written as text.

The text is plain ASCII and narrow, the same in a terminal and in a pipe; JSON is `RunResult` as it is.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from replicator.engine.result import ActionResult, DestinationResult, Outcome, RuleResult, RunResult, Totals
from replicator.events import BytesRead, Event, RequestDone, RetryPlanned

COUNTED: Final = frozenset({BytesRead, RequestDone, RetryPlanned})
"""The events that `RunCounts` counts."""
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_NUMBERS: Final = re.compile(r"([0-9]+)")


class RunCounts(msgspec.Struct):
    """What only the run as a whole can count, as a subscriber to `Events`."""

    requests: int = 0
    retries: int = 0
    bytes_read: int = 0

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        match event:
            case BytesRead(count=count):
                self.bytes_read += count
            case RequestDone():
                self.requests += 1
            case RetryPlanned():
                self.retries += 1


def combine(
    rules: Sequence[RuleResult], counts: RunCounts, *, started_at: float, seconds: float
) -> RunResult:
    """The report of one run. `started_at` in epoch seconds.

    What was read is the run's as a whole, since one read may feed many destinations; all else is the destinations' sum.
    """
    results = [each for rule in rules for each in rule.destinations]
    totals = Totals(requests=counts.requests, retries=counts.retries)
    for each in results:
        _add(totals, each.totals)
    totals.bytes.read = counts.bytes_read
    return RunResult(
        started_at=dt.datetime.fromtimestamp(started_at, dt.UTC).isoformat(timespec="milliseconds"),
        seconds=round(seconds, 3),
        outcome=overall(each.outcome for each in results),
        totals=totals,
        rules=list(rules),
    )


def overall(outcomes: Iterable[Outcome]) -> Outcome:
    """One outcome for many: interrupted if any was, ok if all are, failed if all are, else partial."""
    distinct = set(outcomes)
    if "interrupted" in distinct:
        return "interrupted"
    if len(distinct) > 1:
        return "partial"
    return distinct.pop() if distinct else "ok"


def failed(result: RunResult) -> bool:
    """Whether anything failed: then the exit code is 1, however much else was done."""
    return result.outcome in {"partial", "failed"} or any(
        each.failures or each.totals.tags.failed for rule in result.rules for each in rule.destinations
    )


def drift(result: RunResult) -> bool:
    """Whether a plan would change anything."""
    return any(
        action.action in {"copy", "delete"} and action.outcome == "planned"
        for rule in result.rules
        for destination in rule.destinations
        for action in destination.actions
    )


def render_run(result: RunResult) -> str:
    """What a run came to: a line for each rule and destination, then failures and warnings, then the sum."""
    rows: list[tuple[str, ...]] = [
        ("RULE", "DESTINATION", "OUTCOME", "COPIED", "UNCHANGED", "HELD", "FAILED", "WRITTEN", "SAVED")
    ]
    for rule in result.rules:
        for each in rule.destinations:
            tags, moved = each.totals.tags, each.totals.bytes
            rows.append(
                (
                    rule.rule,
                    each.destination,
                    each.outcome,
                    *(str(count) for count in (tags.copied, tags.unchanged, tags.held, tags.failed)),
                    format_bytes(moved.written),
                    format_bytes(moved.saved),
                )
            )
    lines = table(rows, right=frozenset(range(3, 9)))
    return "\n".join([*lines, *_remarks(result), _sum(result)])


def render_copy(result: RunResult) -> str:
    """What became of one image, or of a repository's tags: a line for each that was not there already."""
    rows = [
        (
            action.outcome,
            _place(each.destination, action),
            action.digest,
        )
        for rule in result.rules
        for each in rule.destinations
        for action in _sorted(each.actions)
    ]
    return "\n".join([*table(rows), *_remarks(result), _sum(result)])


def render_plan(result: RunResult) -> str:
    """What a run would do: each action with its size, what filters took away, and the sum for each destination."""
    lines: list[str] = []
    for rule in result.rules:
        for each in rule.destinations:
            lines.append(f"{rule.rule}: {rule.source} -> {each.destination}")
            lines += [f"  {line}" for line in table([_planned(action) for action in _sorted(each.actions)])]
            lines.append(f"  {_plan_sum(each)}")
        lines += [
            f"  filter: {each.repository}: {each.filter} left out {each.removed} of"
            f" {format_count(each.removed + each.left, 'tag')}"
            for each in sorted(rule.filters or (), key=lambda each: natural(each.repository))
            if each.removed
        ]
    lines += _remarks(result)
    lines.append(
        f"{'drift' if drift(result) else result.outcome}: checked in {format_seconds(result.seconds)}"
    )
    return "\n".join(lines)


def table(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """The rows as lines with aligned columns, two spaces apart; the columns in `right` are right-aligned."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def format_bytes(count: float) -> str:
    """A size as people read it: `0 B`, `999 kB`, `1.2 GB` (powers of 1000)."""
    for unit in _UNITS:
        if count < 999.5 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def format_count(count: int, noun: str, plural: str | None = None) -> str:
    """A number of things: `1 tag`, `2 tags`; `plural` where that is not the noun with an s."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def format_seconds(seconds: float) -> str:
    """A duration as people read it: `0.4 s`, `59 s`, `2 min 5 s`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller_size, smaller in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def natural(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sorts names as people do: numbers in them count as numbers, so that v1.10 comes after v1.9."""
    parts: list[str | tuple[int, str]] = []
    for index, part in enumerate(_NUMBERS.split(name)):
        # Text and numbers alternate, text first: never is one compared with the other.
        digits = part.lstrip("0")
        parts.append((len(digits), digits) if index % 2 else part)
    return parts, name


def _sorted(actions: Iterable[ActionResult]) -> list[ActionResult]:
    """In the order of their names; they were done in that which moves least."""
    return sorted(actions, key=lambda action: (natural(action.repository), natural(action.tag or "")))


def _place(site: str, action: ActionResult) -> str:
    """Where an action leads to, as `copy` takes it."""
    if site.startswith(("oci:", "oci-archive:")):
        name = site  # `copy` writes one repository into it
    else:
        name = f"{site}{'//' if '://' in site else '/'}{action.target}"
    return f"{name}:{action.tag}" if action.tag else name


def _add(totals: Totals, more: Totals) -> None:
    for name in ("tags", "blobs", "bytes"):
        sums, parts = getattr(totals, name), getattr(more, name)
        for field in parts.__struct_fields__:
            setattr(sums, field, getattr(sums, field) + getattr(parts, field))


def _sum(result: RunResult) -> str:
    totals = result.totals
    return (
        f"{result.outcome}: {format_count(totals.tags.copied, 'tag')} copied, {totals.tags.unchanged} unchanged,"
        f" {totals.tags.failed} failed; {format_bytes(totals.bytes.read)} read,"
        f" {format_bytes(totals.bytes.written)} written; {format_count(totals.requests, 'request')},"
        f" {format_count(totals.retries, 'retry', 'retries')}; {format_seconds(result.seconds)}"
    )


def _remarks(result: RunResult) -> list[str]:
    failures: dict[str, None] = {}
    warnings: dict[str, None] = {}
    for rule in result.rules:
        for each in rule.destinations:
            for failure in each.failures:
                where = f"{failure.site}: {failure.repository}" if failure.repository else failure.site
                failures[f"failed: {where}: {failure.operation}: {failure.cause}"] = None
            warnings |= dict.fromkeys(f"warning: {_with_rule(rule.rule, text)}" for text in each.warnings)
    return [*failures, *warnings]


def _with_rule(rule: str, text: str) -> str:
    """The text with the rule's name, once: warnings that are logged too bring it along."""
    name = f"rule {rule}: "
    return text if text.startswith(name) else name + text


def _planned(action: ActionResult) -> tuple[str, ...]:
    source = action.repository if action.tag is None else f"{action.repository}:{action.tag}"
    target = "" if action.target == action.repository else f"-> {action.target}"
    what = action.reason or ""
    if action.action == "copy" and action.blobs is not None:
        blobs = action.blobs
        what = (
            f"{format_bytes(action.bytes)}; blobs: {blobs.copied} to copy, {blobs.mounted} to mount,"
            f" {blobs.present} present"
        )
        what = f"{what}; {action.reason}" if action.reason else what
    return (action.action, source, target, action.digest[:19], what)


def _plan_sum(result: DestinationResult) -> str:
    copies = [action for action in result.actions if action.action == "copy"]
    tags = result.totals.tags
    return (
        f"{len(copies)} to copy, {tags.unchanged} unchanged, {tags.held} held, {tags.failed} failed;"
        f" {format_bytes(sum(action.bytes for action in copies))} to move"
    )
