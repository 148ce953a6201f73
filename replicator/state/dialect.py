"""What SQLite and PostgreSQL say in different words, as constructs of SQLAlchemy with one meaning.

SQLite's words are here. PostgreSQL's are in `postgres.dialect`, which is imported where such a database is opened.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Dialect,
    Text,
    TextClause,
    TypeDecorator,
    literal,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseList
from sqlalchemy.sql.functions import FunctionElement

LONGEST_TOKEN: Final = 100
"""Characters. PostgreSQL takes words of 2 KB, and nobody types as many."""
_TOKEN: Final = re.compile(r"[^\W_]+")

POSTGRESQL: Final = "postgresql"
"""The name of the dialect."""


class _Given(TypeDecorator[Any]):
    """A value that each database is given in its own form."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return self.postgresql(value) if dialect.name == POSTGRESQL else self.sqlite(value)

    def sqlite(self, value: Any) -> Any:
        """The value as SQLite takes it."""
        return value

    def postgresql(self, value: Any) -> Any:
        """The value as PostgreSQL takes it."""
        return value


class _Pattern(_Given):
    """A glob with `*` and `?`."""

    cache_ok = True

    def sqlite(self, value: str) -> str:
        return value.replace("[", "[[]")

    def postgresql(self, value: str) -> str:
        return re.sub(r"[\\%_]", r"\\\g<0>", value).replace("*", "%").replace("?", "_")


class _Key(_Given):
    """A key of a JSON object; one with a quotation mark is never found."""

    cache_ok = True

    def sqlite(self, value: str) -> str:
        return f'$."{value}"'


class _Numbers(_Given):
    cache_ok = True

    def sqlite(self, value: Collection[int]) -> str:
        return json.dumps(list(value))

    def postgresql(self, value: Collection[int]) -> str:
        return "{" + ",".join(map(str, value)) + "}"


class _Beginnings(_Given):
    """Beginnings of words, all of which a text must have."""

    cache_ok = True

    def sqlite(self, value: Iterable[str]) -> str:
        return " ".join(f'"{token}"*' for token in value)

    def postgresql(self, value: Iterable[str]) -> str:
        return " & ".join(f"'{token}':*" for token in value)


class _Condition(FunctionElement[bool]):
    """A condition of two elements."""

    type = Boolean()
    inherit_cache = True


class _Matches(_Condition):
    inherit_cache = True
    name = "matches"


class _Contains(_Condition):
    inherit_cache = True
    name = "contains"


class _Among(_Condition):
    inherit_cache = True
    name = "among"


class _Described(_Condition):
    inherit_cache = True
    name = "described"


class _Member(FunctionElement[str]):
    type = Text()
    inherit_cache = True
    name = "member"


def matches(column: ColumnElement[Any], glob: str) -> ColumnElement[bool]:
    """Whether a text matches a glob: `*` is anything, `?` any character, everything else itself. Case counts."""
    return _Matches(column, literal(glob, _Pattern()))


def contains(column: ColumnElement[Any], part: str) -> ColumnElement[bool]:
    """Whether a text has this in it. Case counts."""
    return _Contains(column, literal(part, Text()))


def among(column: ColumnElement[Any], numbers: Collection[int]) -> ColumnElement[bool]:
    """Whether a number is one of these, of which there may be thousands."""
    return _Among(column, literal(numbers, _Numbers()))


def member(column: ColumnElement[Any], key: str) -> ColumnElement[str]:
    """The text at a key of a JSON object; NULL where it has none."""
    return _Member(column, literal(key, _Key()))


def described(image: ColumnElement[Any], beginnings: Collection[str]) -> ColumnElement[bool]:
    """Whether an image's words, as `ADD_WORDS` wrote them, begin in all of these ways; each is one of `tokens`."""
    return _Described(image, literal(beginnings, _Beginnings()))


def tokens(words: str) -> list[str]:
    """The words of a text as they are found: letters and digits, without case and without accents.

    Made here and not by the databases, whose ideas of a word differ.
    """
    plain = unicodedata.normalize("NFKD", words).casefold()
    bare = "".join(each for each in plain if not unicodedata.combining(each))
    return [token[:LONGEST_TOKEN] for token in _TOKEN.findall(bare)]


CREATE_WORDS: Final = "CREATE VIRTUAL TABLE image_text USING fts5(text, content='', tokenize='ascii')"
"""SQLite's table of words. Contentless: it finds rows of `images`, and keeps no second copy of their labels. With this
tokenizer all but ASCII's punctuation belongs to words, and of that `tokens` leaves blanks only."""

ADD_WORDS: Final[Mapping[str, TextClause]] = {
    "sqlite": text("INSERT INTO image_text (rowid, text) VALUES (:id, :text)"),
    POSTGRESQL: text(
        "INSERT INTO image_text (id, words) VALUES (:id, array_to_tsvector(string_to_array(:text, ' ')))"
    ),
}
"""By dialect: an image has these words. `text` is `tokens` with blanks between, at least one."""
DROP_WORDS: Final[Mapping[str, TextClause]] = {
    "sqlite": text("INSERT INTO image_text (image_text, rowid, text) VALUES ('delete', :id, :text)"),
    POSTGRESQL: text("DELETE FROM image_text WHERE id = :id AND cast(:text AS text) IS NOT NULL"),
}
"""By dialect: takes back what `ADD_WORDS` was given."""


def sides(element: FunctionElement[Any], compiler: SQLCompiler, **options: Any) -> tuple[str, str]:
    """The two elements of a construct, compiled."""
    clauses: ClauseList = element.clauses
    left, right = (compiler.process(each, **options) for each in clauses)
    return left, right


@compiles(_Matches)
def _matches(element: _Matches, compiler: SQLCompiler, **options: Any) -> str:
    return "({} GLOB {})".format(*sides(element, compiler, **options))


@compiles(_Contains)
def _contains(element: _Contains, compiler: SQLCompiler, **options: Any) -> str:
    return "(instr({}, {}) > 0)".format(*sides(element, compiler, **options))


@compiles(_Among)
def _among(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    left, right = sides(element, compiler, **options)
    return f"({left} IN (SELECT value FROM json_each({right})))"  # noqa: S608  compiled by SQLAlchemy


@compiles(_Member)
def _member(element: _Member, compiler: SQLCompiler, **options: Any) -> str:
    return "json_extract({}, {})".format(*sides(element, compiler, **options))


@compiles(_Described)
def _described(element: _Described, compiler: SQLCompiler, **options: Any) -> str:
    found = "SELECT rowid FROM image_text WHERE image_text MATCH"
    left, right = sides(element, compiler, **options)
    return f"({left} IN ({found} {right}))"
