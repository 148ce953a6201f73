"""Layout of the map: sources on the left, their destinations to the right of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from replicator.daemon.http.api.shapes import FlowInfo, SiteInfo
from replicator.report import format_bytes, format_seconds

_WIDTH: Final = 176
_HEIGHT: Final = 52
_PORT: Final = 26
"""Distance between the ends of two lines on one side of a site: room for a label on each."""
_ACROSS: Final = 310
_RUN: Final = 224
"""The straight end of a line, above which its label stands: room for "lag 23 h 59 min · 99.9 MB/s" in a wide font."""
_DOWN: Final = 24
_MARGIN: Final = 10
_NAME: Final = 20
_URL: Final = 25
"""Characters of a name and a URL that fit a box."""
_SIGN: Final[Mapping[str, str]] = {"ok": "●", "behind": "◐", "failing": "▲", "paused": "❚❚", "new": "○"}

_Side = Literal["left", "right"]


@dataclass(slots=True, eq=False)
class _Box:
    site: SiteInfo
    column: int
    x: float = 0.0
    y: float = 0.0
    height: float = _HEIGHT
    ends: dict[_Side, list[tuple[_Box, int]]] = field(default_factory=lambda: {"left": [], "right": []})
    """For each side: the lines that end there, as the box at the other end and the line's number."""

    def port(self, side: _Side, line: int) -> tuple[float, float]:
        """Where this line ends: sorted by the height of its other end, so that few lines cross."""
        ends = sorted(self.ends[side], key=lambda end: (end[0].y, end[1]))
        index = next(at for at, (_, number) in enumerate(ends) if number == line)
        x = self.x if side == "left" else self.x + _WIDTH
        return x, self.y + self.height / 2 + (index - (len(ends) - 1) / 2) * _PORT


@dataclass(frozen=True, slots=True)
class Box:
    """A site, where it is drawn, in pixels."""

    name: str
    url: str
    title: str
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """The height of its centre."""
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Line:
    """What flows between two sites: the path of its line, and its label, which stands above the end of the line.

    There lines are apart, wherever they come from. `kind` is the flow's state, or `mirror`.
    """

    path: str
    kind: str
    moving: bool
    sentence: str
    sign: str
    carried: str
    label_x: float
    label_y: float
    anchor: Literal["start", "end"]


@dataclass(frozen=True, slots=True)
class SiteMap:
    """What `templates/map.svg` draws, in pixels."""

    width: float
    height: float
    boxes: Sequence[Box]
    lines: Sequence[Line]
    kinds: Sequence[str] = (*_SIGN, "mirror")


def draw(sites: Sequence[SiteInfo], flows: Sequence[FlowInfo]) -> SiteMap:
    """The map. Every fact in it is in a table of the page as well."""
    columns = _columns([site.site for site in sites], flows)
    boxes = {site.site: _Box(site, columns[site.site]) for site in sites}
    lines = [(number, flow, *_sides(boxes, flow)) for number, flow in enumerate(flows)]
    for number, flow, out, into in lines:
        boxes[flow.source].ends[out].append((boxes[flow.destination], number))
        boxes[flow.destination].ends[into].append((boxes[flow.source], number))
    width, height = _place(boxes.values())
    return SiteMap(
        width, height, [_box(box) for box in boxes.values()], [_line(boxes, line) for line in lines]
    )


def _columns(names: Sequence[str], flows: Sequence[FlowInfo]) -> dict[str, int]:
    """The length of the longest path to each site; flows that would close a cycle are ignored."""
    feeds: dict[str, list[str]] = {name: [] for name in names}
    for flow in flows:
        feeds[flow.destination].append(flow.source)
    columns: dict[str, int] = {}
    for name in names:
        _column(name, feeds, columns, ())
    return columns


def _column(
    name: str, feeds: Mapping[str, list[str]], columns: dict[str, int], above: tuple[str, ...]
) -> int:
    if name not in columns:
        before = [
            _column(each, feeds, columns, (*above, name))
            for each in feeds[name]
            if each != name and each not in above
        ]
        columns[name] = max(before, default=-1) + 1
    return columns[name]


def _sides(boxes: Mapping[str, _Box], flow: FlowInfo) -> tuple[_Side, _Side]:
    """The sides at which a line leaves and arrives."""
    out, into = boxes[flow.source].column, boxes[flow.destination].column
    if out < into:
        return "right", "left"
    return ("left", "right") if out > into else ("right", "right")


def _place(boxes: Iterable[_Box]) -> tuple[float, float]:
    """Puts the boxes of each column below each other, centred. Returns width and height of all."""
    columns: dict[int, list[_Box]] = {}
    for box in boxes:
        box.height = max(_HEIGHT, max(len(ends) for ends in box.ends.values()) * _PORT + 8)
        columns.setdefault(box.column, []).append(box)
    heights = {
        column: sum(box.height for box in stack) + _DOWN * (len(stack) - 1)
        for column, stack in columns.items()
    }
    tallest = max(heights.values(), default=0)
    for column, stack in columns.items():
        y = _MARGIN + (tallest - heights[column]) / 2
        for box in stack:
            box.x, box.y = _MARGIN + column * (_WIDTH + _ACROSS), y
            y += box.height + _DOWN
    # beyond the last column: room for lines between sites of that same column
    last = max(columns, default=0)
    beyond = any(other.column == last for box in columns.get(last, ()) for other, _ in box.ends["right"])
    width = (last + 1) * _WIDTH + last * _ACROSS + 2 * _MARGIN + (_ACROSS if beyond else 0)
    return width, tallest + 2 * _MARGIN


def _line(boxes: Mapping[str, _Box], line: tuple[int, FlowInfo, _Side, _Side]) -> Line:
    number, flow, out, into = line
    x1, y1 = boxes[flow.source].port(out, number)
    x2, y2 = boxes[flow.destination].port(into, number)
    level = x2 - _RUN if into == "left" else x2 + _RUN
    bend = max(50.0, abs(level - x1) / 2)
    c1, c2 = (x1 + bend if out == "right" else x1 - bend), (level - bend if into == "left" else level + bend)
    return Line(
        path=f"M{x1:g} {y1:g} C{c1:g} {y1:g} {c2:g} {y2:g} {level:g} {y2:g} H{x2:g}",
        kind="mirror" if flow.mirror else flow.state,
        moving=bool(flow.bytes_per_second),
        sentence=_sentence(flow),
        sign="mirror" if flow.mirror else _SIGN[flow.state],
        carried=_carried(flow),
        label_x=x2 - 14 if into == "left" else x2 + 14,
        label_y=y2 - 6,
        anchor="end" if into == "left" else "start",
    )


def _carried(flow: FlowInfo) -> str:
    """Lag and throughput, abbreviated."""
    parts = [] if flow.mirror else [_lag(flow)]
    if flow.bytes_per_second:
        parts.append(f"{format_bytes(flow.bytes_per_second)}/s")
    return " · ".join(parts)


def _lag(flow: FlowInfo) -> str:
    if flow.state == "paused":
        return "paused"
    if flow.lag_seconds is None:
        return "not looked yet"
    if flow.lag_seconds:
        return f"lag {format_seconds(flow.lag_seconds)}"
    return "failing" if flow.state == "failing" else "in step"


def _sentence(flow: FlowInfo) -> str:
    what = "mirror" if flow.mirror else flow.state
    return f"{flow.source} to {flow.destination} ({what}): {_carried(flow)}; rules {', '.join(flow.rules)}"


def _box(box: _Box) -> Box:
    site = box.site
    return Box(
        name=_short(site.site, _NAME),
        url=_short(_place_of(site.url), _URL),
        title=f"{site.site}: {site.url} ({', '.join(site.roles)})",
        x=box.x,
        y=box.y,
        width=_WIDTH,
        height=box.height,
    )


def _place_of(url: str) -> str:
    return url.partition("://")[2] or url


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
