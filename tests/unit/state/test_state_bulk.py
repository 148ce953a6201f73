"""Statements for many rows, as PostgreSQL gets them: each once."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

import replicator.state.postgres.dialect  # noqa: F401  what statements mean in PostgreSQL
from replicator.state import images, statements
from replicator.state.dialect import ADD_WORDS, POSTGRESQL
from replicator.state.postgres.bulk import as_one

MANY = {
    name: getattr(module, name)
    for module, names in (
        (
            statements,
            """INTERN KNOW_REPOSITORY BELIEVE END_BELIEF PLACE END_PLACEMENT PEND UNPEND SCAN SCAN_AND_COUNT END_UNIT
            END_PENDING_OF SEE FORGET TRIM_WHEREABOUTS CREATE NOTE UNLIST REFUSE BEGIN ACCEPT ANSWER""",
        ),
        (images, "NOTE_MOVE TRIM_MOVES _NEW_LAYER"),
    )
    for name in names.split()
} | {"ADD_WORDS": ADD_WORDS[POSTGRESQL]}
UPSERT = "INSERT INTO t (a, b) VALUES (%(a)s, %(b)s) ON CONFLICT (a) DO UPDATE SET b = excluded.b"


def compiled(statement: ClauseElement) -> tuple[str, list[str]]:
    """The statement's text, and the names of its parameters."""
    done = statement.compile(dialect=PGDialect_psycopg())  # type: ignore[no-untyped-call]
    return str(done), list(done.params)


@pytest.mark.parametrize("name", MANY)
def test_whatever_is_written_of_tags_is_one_statement(name: str) -> None:
    text, names = compiled(MANY[name])
    constant = {"ahead", "kept", "param_1", "param_2", "hold_1", "hold_2"}
    rows = [{each: 5 if each in constant else number for each in names} for number in range(3)]
    found = as_one(text, rows)
    assert found is not None
    one, parameters = found
    assert one.count("unnest(") == 1
    for each in names:
        assert (f"%({each})s" in one) != (f"given._{each}" in one), each
        assert parameters[each] == (5 if each in constant else [0, 1, 2])


def test_rows_about_one_row_of_the_table_come_one_after_the_other() -> None:
    assert as_one(UPSERT, [{"a": 1, "b": 1}, {"a": 1, "b": 2}]) is None
    assert as_one(UPSERT, [{"a": 1, "b": 1}, {"a": 2, "b": 2}]) is not None


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        (UPSERT, [{"a": 1, "b": 1}]),
        (f"{UPSERT} WHERE t.b < %(most)s", [{"a": 1, "b": 1, "most": 1}, {"a": 2, "b": 1, "most": 2}]),
        ("UPDATE t SET a = %(a)s", [{"a": 1}, {"a": 2}]),
        (
            "INSERT INTO t (a, b) VALUES (%(a)s, %(a)s) ON CONFLICT (a) DO UPDATE SET b = 1",
            [{"a": 1}, {"a": 1}],
        ),
        ("INSERT INTO t (a, b) VALUES (%(a)s, 5) ON CONFLICT (a) DO UPDATE SET b = 1", [{"a": 1}, {"a": 2}]),
    ],
)
def test_what_cannot_be_one_statement_is_left(statement: str, rows: list[dict[str, Any]]) -> None:
    assert as_one(statement, rows) is None


def test_values_that_are_alike_are_given_once_and_arrays_have_types() -> None:
    rows: list[dict[str, Any]] = [
        {"a": 1, "b": None, "c": 0, "d": "x", "e": b"", "f": None},
        {"a": 2, "b": "t", "c": 1.5, "d": "x", "e": b"1", "f": True},
    ]
    conditions = " AND ".join(f"{name} = %({name})s" for name in "abcdef")
    found = as_one(f"DELETE FROM t WHERE {conditions}", rows)  # noqa: S608  never executed
    assert found is not None
    assert found[0] == (
        "DELETE FROM t USING unnest(%(a)b::bigint[], %(b)b::text[], %(c)b::float8[], %(e)b::bytea[], %(f)b::boolean[])"
        " AS given (_a, _b, _c, _e, _f) WHERE a = given._a AND b = given._b AND c = given._c AND d = %(d)s"
        " AND e = given._e AND f = given._f"
    )
    assert found[1]["d"] == "x"
    assert found[1]["c"] == [0.0, 1.5]
