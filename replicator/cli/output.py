"""What goes to stdout."""

from __future__ import annotations

import datetime as dt

import click
import msgspec


def print_json(result: object) -> None:
    """Writes the one JSON object that a command answers with."""
    click.echo(msgspec.json.format(msgspec.json.encode(result), indent=2))


def iso(at: float) -> str:
    """An epoch time as reports have it."""
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="seconds")
