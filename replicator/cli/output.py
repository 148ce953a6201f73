"""Results on stdout."""

from __future__ import annotations

import datetime as dt

import click
import msgspec


def print_json(result: object) -> None:
    """Prints the result of a command as one JSON object."""
    click.echo(msgspec.json.format(msgspec.json.encode(result), indent=2))


def iso(at: float) -> str:
    """An epoch time in the format of reports."""
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="seconds")
