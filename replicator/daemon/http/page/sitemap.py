"""Sites and what flows between them, drawn: sources at the left, what they feed to the right of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from replicator.daemon.http.api.shapes import FlowInfo, SiteInfo
from replicator.daemon.http.page.markup import Markup, element
from replicator.report import format_bytes, format_seconds

_WIDTH: Final = 176
_HEIGHT: Final = 52
_PORT: Final = 26
"""Between the ends of two lines at one side of a site: room for a label on each."""
_ACROSS: Final = 310
_RUN: Final = 224
"""The straight end of a line, above which its label stands: room for "lag 23 h 59 min · 99.9 MB/s" in a wide font."""
_DOWN: Final = 24
_MARGIN: Final = 10
_NAME: Final = 20
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
    """Of each side: the lines that end there, as what is at their other end and their number."""

    def port(self, side: _Side, line: int) -> tuple[float, float]:
        """Where this line ends: by the height of its other end, so that lines cross little."""
        ends = sorted(self.ends[side], key=lambda end: (end[0].y, end[1]))
        index = next(at for at, (_, number) in enumerate(ends) if number == line)
        x = self.x if side == "left" else self.x + _WIDTH
        return x, self.y + self.height / 2 + (index - (len(ends) - 1) / 2) * _PORT


def draw(sites: Sequence[SiteInfo], flows: Sequence[FlowInfo]) -> Markup:
    """The map as SVG. Every fact in it stands in a table of the page as well."""
    columns = _columns([site.site for site in sites], flows)
    boxes = {site.site: _Box(site, columns[site.site]) for site in sites}
    lines = [(number, flow, *_sides(boxes, flow)) for number, flow in enumerate(flows)]
    for number, flow, out, into in lines:
        boxes[flow.source].ends[out].append((boxes[flow.destination], number))
        boxes[flow.destination].ends[into].append((boxes[flow.source], number))
    width, height = _place(boxes.values())
    return element(
        "svg",
        element("title", "Sites and what flows between them"),
        element("defs", [_arrow(state) for state in (*_SIGN, "mirror")]),
        [_line(boxes, line) for line in lines],
        [_box(box) for box in boxes.values()],
        [_label(boxes, line) for line in lines],
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label="Sites and what flows between them; the tables below say the same",
        class_="map",
    )


def _columns(names: Sequence[str], flows: Sequence[FlowInfo]) -> dict[str, int]:
    """The length of the longest way to each site; what would close a circle is passed over."""
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
    """At which sides a line leaves and arrives."""
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


_Line = tuple[int, FlowInfo, _Side, _Side]


def _line(boxes: Mapping[str, _Box], line: _Line) -> Markup:
    number, flow, out, into = line
    x1, y1 = boxes[flow.source].port(out, number)
    x2, y2 = boxes[flow.destination].port(into, number)
    level = x2 - _RUN if into == "left" else x2 + _RUN
    bend = max(50.0, abs(level - x1) / 2)
    c1, c2 = (x1 + bend if out == "right" else x1 - bend), (level - bend if into == "left" else level + bend)
    kind = "mirror" if flow.mirror else flow.state
    return element(
        "path",
        element("title", _sentence(flow)),
        d=f"M{x1:g} {y1:g} C{c1:g} {y1:g} {c2:g} {y2:g} {level:g} {y2:g} H{x2:g}",
        class_=f"flow {kind}{' moving' if flow.bytes_per_second else ''}",
        marker_end=f"url(#arrow-{kind})",
    )


def _label(boxes: Mapping[str, _Box], line: _Line) -> Markup:
    """What the line carries, above its end: there lines are apart, wherever they come from."""
    number, flow, _, into = line
    x, y = boxes[flow.destination].port(into, number)
    left = into == "left"
    kind = "mirror" if flow.mirror else flow.state
    return element(
        "text",
        element("tspan", f"{'mirror' if flow.mirror else _SIGN[flow.state]} ", class_=f"sign {kind}"),
        _carried(flow),
        x=x - 14 if left else x + 14,
        y=y - 6,
        text_anchor="end" if left else "start",
        class_="label",
    )


def _carried(flow: FlowInfo) -> str:
    """Lag and throughput, shortly."""
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


def _box(box: _Box) -> Markup:
    middle = box.y + box.height / 2
    roles = ", ".join(box.site.roles)
    return element(
        "g",
        element("title", f"{box.site.site}: {box.site.url} ({roles})"),
        element("rect", x=box.x, y=box.y, width=_WIDTH, height=box.height, rx=8),
        element("text", _short(box.site.site, _NAME), x=box.x + 14, y=middle - 3, class_="name"),
        element("text", _short(_place_of(box.site.url), 25), x=box.x + 14, y=middle + 14, class_="url"),
        class_="site",
    )


def _place_of(url: str) -> str:
    return url.partition("://")[2] or url


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _arrow(kind: str) -> Markup:
    return element(
        "marker",
        element("path", d="M0 0 L8 4 L0 8 z", class_=f"head {kind}"),
        id=f"arrow-{kind}",
        viewBox="0 0 8 8",
        refX=7,
        refY=4,
        markerWidth=7,
        markerHeight=7,
        markerUnits="userSpaceOnUse",
        orient="auto",
    )
