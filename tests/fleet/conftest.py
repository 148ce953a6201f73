"""Databases with the tables of a fleet."""

from __future__ import annotations

import pytest

from replicator.flow.clock import SystemClock
from replicator.state.place import PostgresPlace
from replicator.state.store import open_state
from tests.postgres import Database


@pytest.fixture
async def shared(database: Database) -> str:
    """A database that agents share: its DSN."""
    state = await open_state(place(database), clock=SystemClock())
    await state.aclose()
    return database.dsn


def place(database: Database) -> PostgresPlace:
    """Where the state is."""
    return PostgresPlace(database.url, lambda: database.password)
