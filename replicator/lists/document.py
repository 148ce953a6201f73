"""YAML with line numbers and limits.

The tree is built from PyYAML's events, not by its constructor: events come without recursion, so that depth can be
bounded before a stack overflows, an alias costs nothing until its size is known ("billion laughs"), every text keeps
its line, and no type is guessed (a tag `1.10` stays `1.10`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import yaml

MAX_DEPTH: Final = 64
MAX_NODES: Final = 1_000_000
"""Nodes of one file, each alias counted with all that it stands for."""

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Text(str):
    """A scalar, whatever its type: the text as written, and its line (from 1)."""

    __slots__ = ("line",)
    line: int

    @classmethod
    def at(cls, text: str, line: int) -> Text:
        """The text of a line."""
        made = cls(text)
        made.line = line
        return made


class Mapping(dict[str, "Node"]):
    """A mapping; its keys are texts. `line` is where it begins."""

    line: int = 0


class Items(list["Node"]):
    """A sequence."""

    line: int = 0


Node = Text | Mapping | Items | None


class DocumentError(ValueError):
    """Not YAML, or more than the limits allow. `line` counts from 1, 0 if it is not known."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


class _Open:
    """A collection whose end has not come yet."""

    __slots__ = ("anchor", "key", "node", "size")

    def __init__(self, node: Mapping | Items, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: str | None = None
        self.size = 1


def documents(text: str) -> Iterator[Node]:
    """The documents of a YAML (or JSON) text, one by one; empty ones are left out.

    Raises:
        DocumentError: at the first place that is not YAML, nests deeper than `MAX_DEPTH` or grows beyond `MAX_NODES`.
    """
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            done = builder.take(event)
            if done is not None:
                yield done
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(mark.line + 1 if mark else 0, error.problem or "not valid YAML") from error
    except yaml.YAMLError as error:
        raise DocumentError(0, " ".join(str(error).split())[:200]) from error


class _Builder:
    """Builds one document after another from events."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._total = 0

    def take(self, event: yaml.Event) -> Node:
        """Takes an event. Returns the document that it ends, if it ends one."""
        line = event.start_mark.line + 1 if event.start_mark else 0
        match event:
            case yaml.DocumentStartEvent():
                self._anchors.clear()
            case yaml.ScalarEvent():
                is_null = event.style is None and event.value in _NULLS
                return self._put(None if is_null else Text.at(event.value, line), 1, event.anchor, line)
            case yaml.AliasEvent():
                if event.anchor not in self._anchors:
                    raise DocumentError(line, f"alias *{event.anchor} has no complete anchor before it")
                node, size = self._anchors[event.anchor]
                return self._put(node, size, None, line)
            case yaml.MappingStartEvent():
                self._start(Mapping(), event.anchor, line)
            case yaml.SequenceStartEvent():
                self._start(Items(), event.anchor, line)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                ended = self._open.pop()
                return self._put(ended.node, ended.size, ended.anchor, line, counted=True)
            case _:
                pass
        return None

    def _start(self, node: Mapping | Items, anchor: str | None, line: int) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise DocumentError(line, f"nested deeper than {MAX_DEPTH} levels")
        node.line = line
        self._open.append(_Open(node, anchor))
        self._count(1, line)

    def _put(self, node: Node, size: int, anchor: str | None, line: int, *, counted: bool = False) -> Node:
        if not counted:
            self._count(size, line)
        if anchor:
            self._anchors[anchor] = (node, size)
        if not self._open:
            return node
        parent = self._open[-1]
        parent.size += size
        if isinstance(parent.node, Items):
            parent.node.append(node)
        elif parent.key is None:
            parent.key = node if isinstance(node, Text) else ""
        else:
            _set(parent.node, parent.key, node)
            parent.key = None
        return None

    def _count(self, size: int, line: int) -> None:
        self._total += size
        if self._total > MAX_NODES:
            raise DocumentError(line, f"more than {MAX_NODES} values, aliases expanded")


def _set(mapping: Mapping, key: str, node: Node) -> None:
    """Sets a key; `<<` merges mappings in below the keys that are there, as Compose files use it."""
    if key != "<<":
        mapping[key] = node
        return
    for other in node if isinstance(node, Items) else [node]:
        if isinstance(other, Mapping):
            for name, value in other.items():
                mapping.setdefault(name, value)


def mapping(node: Node) -> Mapping:
    """The node, or an empty mapping where it is something else."""
    return node if isinstance(node, Mapping) else Mapping()


def items(node: Node) -> Items:
    """The node, or an empty sequence where it is something else."""
    return node if isinstance(node, Items) else Items()


def at(node: Node, *path: str) -> Node:
    """What lies at a path of keys; None where nothing does."""
    for key in path:
        node = mapping(node).get(key)
    return node
