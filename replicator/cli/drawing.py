"""Live progress as lines of a terminal. Pure: from what is known to text of a width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from replicator.report import format_bytes, format_count, format_seconds
from replicator.runs.ledger import TransferProgress
from replicator.runs.progress import DestinationProgress, Progress, WaitProgress

Style = Literal["", "dim", "red", "yellow", "green"]

NARROW: Final = 70
WIDE: Final = 110
_LONGEST_NAME: Final = 20
_FILLED: Final = {True: "█", False: "#"}
_EMPTY: Final = {True: "░", False: "."}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a line, and how it looks where there are colours."""

    text: str
    style: Style = ""


Line = Sequence[Part]


def draw(progress: Progress, width: int, height: int, *, is_unicode: bool) -> list[Line]:
    """The display: scans, a line for each destination, the largest transfers, and who waits for whom.

    Args:
        progress: what is known.
        width: columns; no line is longer.
        height: lines; destinations that do not fit are summed up in one.
        is_unicode: whether bars may have block characters.
    """
    scans, waits, transfers = progress.scans(), progress.waits(), progress.transfers()
    lines: list[Line] = [
        [
            Part(
                f"{each.rule + ': ' if each.rule else ''}scanning {each.source}: {_scanned(each.scanned, each.found, is_all=each.is_listed)}"
            )
        ]
        for each in scans[:3]
    ]
    if len(scans) > 3:
        lines.append([Part(f"and {format_count(len(scans) - 3, 'more scan')}", "dim")])
    lines += [
        [Part(f"{source}: {format_count(count, 'repository', 'repositories')} could not be listed", "red")]
        for source, count in list(progress.unlisted().items())[:3]
    ]
    below: list[Line] = [*(_transfer(each, width) for each in transfers), *map(_wait, waits[:3])]
    if height < len(lines) + len(below) + 2:
        below = below[:1]
    room = max(1, height - len(lines) - len(below) - 1)
    lines += _destinations(progress.destinations(), width, room, is_unicode=is_unicode)
    return [_cut(line, width) for line in (*lines, *below)][: max(1, height)]


def _scanned(scanned: int, found: int, *, is_all: bool) -> str:
    if not found:
        return "listing repositories"
    return f"{scanned} of {found}{'' if is_all else '+'} repositories"


def _destinations(
    found: Sequence[DestinationProgress], width: int, room: int, *, is_unicode: bool
) -> Iterator[Line]:
    shown = found if len(found) <= room else found[: room - 1]
    names = max((len(each.destination) for each in shown), default=0)
    for each in shown:
        yield _destination(each, width, min(names, _LONGEST_NAME), is_unicode=is_unicode)
    if len(shown) < len(found):
        rest = found[len(shown) :]
        unfinished = sum(each.tags_done < each.tags_planned for each in rest)
        failed = sum(each.tags_failed for each in rest)
        text = f"and {format_count(len(rest), 'more destination')}, {unfinished} in progress"
        yield [Part(text, "dim"), Part(f", {failed} failed" if failed else "", "red")]


def _destination(each: DestinationProgress, width: int, names: int, *, is_unicode: bool) -> Line:
    name = _short(each.destination, names).ljust(names)
    is_done = each.tags_planned <= each.tags_done
    part = 1.0 if is_done else each.part
    bar = _bar(part, _bar_width(width), is_unicode=is_unicode)
    parts = [f"{each.tags_done}/{each.tags_planned}{'' if width < NARROW else ' tags'}"]
    if each.bytes_planned and width >= NARROW:
        parts.append(f"{format_bytes(each.bytes_moved)} of {format_bytes(each.bytes_planned)}")
    if not is_done:
        parts.append(f"{format_bytes(each.rate)}/s")
        if each.seconds_left is not None:
            parts.append(f"{format_seconds(max(1.0, round(each.seconds_left)))} left".replace(".0 s", " s"))
    failed = f"  {each.tags_failed} failed" if each.tags_failed else ""
    # What failed is said first where there is little room: it is what somebody acts on.
    postponed = f"  {each.tags_postponed} postponed" if each.tags_postponed else ""
    told = [Part(failed, "red"), Part(postponed, "yellow"), Part(f"  {', '.join(parts)}")]
    return [Part(f"{name} "), Part(bar, "green"), Part(f" {int(part * 100):3d}%"), *told]


def _bar_width(width: int) -> int:
    if width < NARROW:
        return 10
    return 20 if width < WIDE else 30


def _bar(part: float, cells: int, *, is_unicode: bool) -> str:
    filled = min(cells, int(part * cells))
    return _FILLED[is_unicode] * filled + _EMPTY[is_unicode] * (cells - filled)


def _transfer(each: TransferProgress, width: int) -> Line:
    figures = f"{format_bytes(each.moved)} of {format_bytes(each.size)}, {format_bytes(each.rate)}/s"
    place = f"  {each.source} -> {each.destination} "
    digest = each.digest.partition(":")[2][:12]
    room = width - len(place) - len(figures) - len(digest) - 3
    repository = f"{_short(each.repository, room)} " if room >= 8 else ""
    return [Part(f"{place}{repository}{digest}  {figures}", "dim")]


def _wait(each: WaitProgress) -> Line:
    who = f"{format_count(each.requests, 'request')} waiting" if each.requests else "waiting"
    until = f", {format_seconds(each.seconds)} more" if each.seconds is not None else ""
    return [Part(f"  {each.site} limits requests: {who}{until}", "yellow")]


def _short(text: str, width: int) -> str:
    """The text, without its beginning where it is too long: names differ at their end."""
    return text if len(text) <= width else f"..{text[len(text) - max(0, width - 2) :]}"[:width]


def _cut(line: Line, width: int) -> Line:
    """The line, not longer than the width."""
    cut: list[Part] = []
    for part in line:
        room = width - sum(len(each.text) for each in cut)
        if room <= 0:
            break
        cut.append(Part(part.text[:room], part.style))
    return cut
