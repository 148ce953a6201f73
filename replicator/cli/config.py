"""`replicator config`."""

from __future__ import annotations

import os

import click

from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json


@click.group("config")
@everywhere
def command() -> None:
    """JSON Schema of the config, or the effective config."""


@command.command("schema")
@everywhere
def show_schema() -> int:
    """Prints the JSON Schema of a config file, for editors and other checkers."""
    from replicator.config.schema import schema  # noqa: PLC0415 - pydantic only where it is needed

    print_json(schema())
    return 0


@command.command("show")
@everywhere
@click.pass_obj
def show_config(invocation: Invocation) -> int:
    """Prints the config as it takes effect: files merged, defaults filled in, secrets masked."""
    from replicator.config.load import load  # noqa: PLC0415 - pydantic only where it is needed
    from replicator.config.show import show  # noqa: PLC0415 - see above

    loaded = load(invocation.config, os.environ)
    for text in loaded.warnings:
        click.echo(f"warning: {text}", err=True)
    if invocation.json:
        print_json(loaded.effective)
    else:
        click.echo(show(loaded), nl=False)
    return 0
