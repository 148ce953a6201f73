"""The tables of a fleet, as the state's migrations make them."""

from __future__ import annotations

from importlib.resources import files

import psycopg

FLEET = """
CREATE TABLE fleet_agents (
  name text PRIMARY KEY, version text NOT NULL, serves text[], sites text[] NOT NULL DEFAULT '{}',
  heartbeat timestamptz NOT NULL, started timestamptz NOT NULL, draining boolean NOT NULL DEFAULT false,
  doing jsonb NOT NULL DEFAULT '[]', clock_skew double precision NOT NULL DEFAULT 0
);
CREATE TABLE fleet_looks (
  rule text, tick bigint, remaining integer NOT NULL, results jsonb NOT NULL DEFAULT '[]',
  at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (rule, tick)
);
"""


def make(dsn: str) -> None:
    """Makes them in an empty database."""
    with psycopg.connect(dsn) as connection:
        connection.execute((files("procrastinate.sql") / "schema.sql").read_bytes())
        connection.execute(FLEET.encode())
