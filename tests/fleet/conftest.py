"""Databases with the tables of a fleet."""

from __future__ import annotations

import pytest

from tests.fleet import schema
from tests.postgres import Database


@pytest.fixture
def shared(database: Database) -> str:
    """A database that agents share: its DSN."""
    schema.make(database.dsn)
    return database.dsn
