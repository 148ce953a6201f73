"""One statement in place of one for each row: the rows become arrays, and `unnest` makes a table of them.

psycopg alone sends the statement once for each row and the server executes each, at four times the cost of SQLite.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_PARAMETER: Final = re.compile(r"%\((\w+)\)s")
_INSERT: Final = re.compile(
    r"(INSERT INTO \S+ \((?P<columns>[^)]*)\)) (?:VALUES \((?P<values>.*)\)|SELECT (?P<selected>.*?)(?P<where>\s+WHERE .*)?)",
    re.DOTALL,
)
_DELETE: Final = re.compile(r"(DELETE FROM \S+)( WHERE .*)", re.DOTALL)
_UPSERT: Final = re.compile(r" ON CONFLICT \(([^)]*)\) DO UPDATE ")
_TYPES: Final[Sequence[tuple[type, str]]] = (
    (bool, "boolean"),
    (float, "float8"),
    (int, "bigint"),
    (str, "text"),
    (bytes, "bytea"),
)
"""In this order: if any value is a `float`, the `int`s beside it are sent as `float8` too."""


def as_one(statement: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, Any]] | None:
    """The statement for all of the rows and its parameters, both as psycopg takes them.

    None: it has to be executed row by row. Either this module does not know its form, or all rows are equal, or two of them
    have the same key, of which the later must win.
    """
    head, conflict, tail = statement.partition(" ON CONFLICT ")
    tail = conflict + tail
    varying = [name for name in _names(head) if any(row[name] != rows[0][name] for row in rows)]
    if not varying or any(row[name] != rows[0][name] for name in _names(tail) for row in rows):
        return None
    upsert = _UPSERT.match(tail)
    if upsert and not _are_distinct(head, upsert[1].split(", "), rows):
        return None
    columns, arrays = {}, []
    for name in varying:
        values = [row[name] for row in rows]
        kind = _type_of(values)
        columns[name] = (
            values if kind != "float8" else [None if each is None else float(each) for each in values]
        )
        arrays.append(f"%({name})b::{kind}[]")
    given = f"unnest({', '.join(arrays)}) AS given ({', '.join(f'_{name}' for name in varying)})"
    text = _with_rows(head, given)
    if text is None:
        return None
    text = _PARAMETER.sub(lambda found: f"given._{found[1]}" if found[1] in columns else found[0], text)
    return text + tail, {**rows[0], **columns}


def _with_rows(head: str, given: str) -> str | None:
    if found := _INSERT.fullmatch(head):
        body = found["values"] or found["selected"]
        return f"{found[1]} SELECT {body} FROM {given}{found['where'] or ''}"  # noqa: S608  our own statements
    if found := _DELETE.fullmatch(head):
        return f"{found[1]} USING {given}{found[2]}"
    return None


def _are_distinct(head: str, keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no two rows have the same key. False also if it is unknown which parameters are the key."""
    found = _INSERT.fullmatch(head)
    if found is None:
        return False
    columns = found["columns"].split(", ")
    parameters = _PARAMETER.findall(found["values"] or found["selected"])
    if len(parameters) != len(columns):
        return False
    named = dict(zip(columns, parameters, strict=True))
    return len({tuple(row[named[key]] for key in keys) for row in rows}) == len(rows)


def _type_of(values: Sequence[Any]) -> str:
    found = {type(value) for value in values}
    return next((name for known, name in _TYPES if known in found), "text")


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(_PARAMETER.findall(text)))
