"""`replicator init`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click

from replicator.cli.check import run_check
from replicator.cli.options import Invocation, everywhere
from replicator.cli.runner import run_async
from replicator.config.load import load
from replicator.config.starter import Answers, first_config, site_url
from replicator.errors import ConfigError

DEFAULT_FILE = Path("replicator.toml")


@click.command("init")
@click.option("--source", metavar="URL", help="Registry, bucket or directory to copy from.")
@click.option(
    "--destination", "destinations", metavar="URL", multiple=True, help="Where to copy to; repeatable."
)
@click.option(
    "--repository", "repositories", metavar="PATTERN", multiple=True, help="Repositories; repeatable."
)
@click.option("--interval", metavar="TIME", help="How often to look, as 5m or 1h.  [default: 5m]")
@click.option(
    "--print", "only_print", is_flag=True, help="Print the config instead of writing and checking it."
)
@click.option("--no-check", is_flag=True, help="Write the config without reaching its sites.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@everywhere
@click.pass_obj
def command(
    invocation: Invocation,
    source: str | None,
    destinations: tuple[str, ...],
    repositories: tuple[str, ...],
    interval: str | None,
    *,
    only_print: bool,
    no_check: bool,
    force: bool,
) -> int:
    """Write a first, commented config, then check its sites.

    Asks for what no option gives, if there is a terminal. A site is a host (registry.example.com), a URL (https://, http://,
    s3://BUCKET/PREFIX) or a directory. The file is that of --config, else ./replicator.toml.
    """
    file = invocation.config or DEFAULT_FILE
    if not only_print and not force and os.path.lexists(file):
        raise ConfigError(
            [f"{file} exists; use --force to replace it, --config FILE for another, or --print"]
        )
    text = first_config(_answers(source, destinations, repositories, interval))
    if only_print:
        _validate(text)
        click.echo(text, nl=False)
        return 0
    _validate(text)
    file.write_text(text)
    click.echo(f"wrote {file}", err=True)
    if no_check:
        click.echo(f"next: replicator -c {file} check", err=True)
        return 0
    invocation.config = file
    return run_async(run_check(invocation, None))


def _answers(
    source: str | None, destinations: tuple[str, ...], repositories: tuple[str, ...], interval: str | None
) -> Answers:
    """What the options say; the rest is asked for. Raises ConfigError where nobody can be asked."""
    if not sys.stdin.isatty():
        missing = [
            option for option, given in (("--source", source), ("--destination", destinations)) if not given
        ]
        if missing:
            raise ConfigError([f"{option} is required: stdin is not a terminal" for option in missing])
        return _made(source or "", destinations, repositories or ("**",), interval or "5m")
    source = source or click.prompt("Copy from (host, URL or directory)", err=True)
    if not destinations:
        text = click.prompt("Copy to (several are separated by spaces)", err=True)
        destinations = tuple(text.split())
    if not repositories:
        text = click.prompt("Repositories (patterns, separated by spaces)", default="**", err=True)
        repositories = tuple(text.split())
    interval = interval or click.prompt("Look for changes every", default="5m", err=True)
    return _made(source or "", destinations, repositories, interval or "5m")


def _made(
    source: str, destinations: tuple[str, ...], repositories: tuple[str, ...], interval: str
) -> Answers:
    return Answers(site_url(source), tuple(map(site_url, destinations)), repositories, interval)


def _validate(text: str) -> None:
    """Reads the config as every command would. Raises ConfigError, without the name of the temporary file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "replicator.toml"
        path.write_text(text)
        try:
            load(path, os.environ)
        except ConfigError as error:
            raise ConfigError([each.replace(f"{path}: ", "") for each in error.problems]) from None
