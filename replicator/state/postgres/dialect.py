"""PostgreSQL's words for what `state.dialect` and SQLite's `insert` mean."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy.dialects.sqlite.dml import OnConflictDoNothing, OnConflictDoUpdate
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from replicator.state import dialect
from replicator.state.dialect import POSTGRESQL, sides

DRIVER: Final = f"{POSTGRESQL}+psycopg"
"""How SQLAlchemy calls the driver. Taken from here, so that what follows is known where an engine is made."""


@compiles(OnConflictDoNothing, POSTGRESQL)
@compiles(OnConflictDoUpdate, POSTGRESQL)
def _on_conflict(clause: Any, compiler: SQLCompiler, **options: Any) -> Any:
    """The same words. Only PostgreSQL's own clause may name a constraint, which the compiler asks for."""
    clause.constraint_target = None
    return getattr(compiler, f"visit_{clause.__visit_name__}")(clause, **options)


@compiles(dialect._Matches, POSTGRESQL)  # noqa: SLF001  the other half of that module
def _matches(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    return "({} LIKE {})".format(*sides(element, compiler, **options))


@compiles(dialect._Contains, POSTGRESQL)  # noqa: SLF001
def _contains(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    return "(strpos({}, {}) > 0)".format(*sides(element, compiler, **options))


@compiles(dialect._Among, POSTGRESQL)  # noqa: SLF001
def _among(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    left, right = sides(element, compiler, **options)
    return f"({left} = ANY(({right})::integer[]))"


@compiles(dialect._Member, POSTGRESQL)  # noqa: SLF001
def _member(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    left, right = sides(element, compiler, **options)
    return f"(({left})::jsonb ->> {right})"


@compiles(dialect._Described, POSTGRESQL)  # noqa: SLF001
def _described(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    left, right = sides(element, compiler, **options)
    found = f"SELECT id FROM image_text WHERE words @@ ({right})::text::tsquery"  # noqa: S608  compiled by SQLAlchemy
    return f"({left} IN ({found}))"
