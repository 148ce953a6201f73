"""`replicator state`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.runner import run_async
from replicator.config.load import load
from replicator.config.secrets import parse_secret
from replicator.config.syntax import parse_state
from replicator.errors import ConfigError
from replicator.state.place import Place, PostgresPlace


class _PlaceType(click.ParamType[Place]):
    """A URL as `agent.state` has it."""

    name = "URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """The place. Fails with what would be right."""
        try:
            return value if isinstance(value, Path | PostgresPlace) else parse_state(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group("state")
@everywhere
def command() -> None:
    """Move the state from SQLite to PostgreSQL, or back."""


@command.command("move")
@click.argument("source", metavar="FROM", type=_PlaceType())
@click.argument("target", metavar="TO", type=_PlaceType())
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the password of the database. Default: agent.state_password, where the config names the database.",
)
@everywhere
@click.pass_obj
def move_state(invocation: Invocation, source: Place, target: Place, password_file: Path | None) -> int:
    """Copy a state from one place to another that has none yet: all of it, or nothing.

    FROM and TO are URLs as agent.state has them. Stop the agent first; then set agent.state to TO and start it. FROM stays as
    it is.
    """
    source, target = (_with_password(invocation, each, password_file) for each in (source, target))
    return run_async(_move(invocation, source, target))


async def _move(invocation: Invocation, source: Place, target: Place) -> int:
    from replicator.state.move import move  # noqa: PLC0415 - SQLAlchemy

    rows = await move(source, target)
    if invocation.json:
        print_json({"version": 1, "from": str(source), "to": str(target), "rows": rows})
    else:
        for table, count in sorted(rows.items()):
            if count:
                click.echo(f"{table}: {count}")
        click.echo(f"moved {sum(rows.values())} rows; next: set agent.state to the new place", err=True)
    return 0


def _with_password(invocation: Invocation, place: Place, file: Path | None) -> Place:
    """The place with its password. Raises ConfigError."""
    if not isinstance(place, PostgresPlace):
        return place
    if file is not None:
        try:
            secret = parse_secret({"file": str(file)}, Path.cwd(), os.environ)
        except ValueError as error:
            raise ConfigError([f"--password-file: {error}"]) from None
        return PostgresPlace(place.url, secret)
    try:
        configured = load(invocation.config, os.environ).agent.state
    except ConfigError:
        if invocation.config is not None:
            raise
        return place  # libpq looks for a password
    return configured if isinstance(configured, PostgresPlace) and configured.url == place.url else place
