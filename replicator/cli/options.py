"""The options of every command, accepted before and after its name, and the group that imports commands lazily."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem

from replicator import __version__

LogFormat = Literal["text", "json"]


@dataclass
class Invocation:
    """The values of the common options, wherever they are on the command line. The last one wins; `-v` adds up."""

    config: Path | None = None
    json: bool = False
    verbose: int = 0
    log_format: LogFormat = "text"


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def store(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value:
            setattr(context.find_root().ensure_object(Invocation), name, value)

    return store


def _add_verbosity(context: click.Context, _parameter: click.Parameter, value: int) -> None:
    context.find_root().ensure_object(Invocation).verbose += value


_Decorated = TypeVar("_Decorated", bound="Callable[..., Any] | click.Command")


def everywhere(function: _Decorated) -> _Decorated:
    """Adds the common options to a command or group. Their values are in the root context's `Invocation`."""
    for option in (
        click.version_option(
            __version__, "--version", message="%(prog)s %(version)s", prog_name="replicator"
        ),
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            expose_value=False,
            callback=_store("log_format"),
            help="Log format on stderr; not used while live progress is shown.  [default: text]",
        ),
        click.option(
            "-v",
            "--verbose",
            count=True,
            expose_value=False,
            callback=_add_verbosity,
            help="More log messages; repeatable.",
        ),
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_store("json"),
            help="Print the result as JSON on stdout.",
        ),
        click.option(
            "-c",
            "--config",
            type=click.Path(dir_okay=False, path_type=Path),
            expose_value=False,
            callback=_store("config"),
            help="Config file.  [default: $REPLICATOR_CONFIG, ./replicator.toml, /etc/replicator/config.toml]",
        ),
    ):
        function = option(function)
    return function


@dataclass(frozen=True)
class Entry:
    """The module of a command, which has it as `command`, and the line that `--help` shows."""

    module: str
    help: str


class LateGroup(click.Group):
    """A group that imports a command's module only when the command runs, so that `--version` and TAB are fast."""

    def __init__(self, *args: Any, entries: Mapping[str, Entry], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order of the table."""
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """The command, importing its module; None if it does not exist."""
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = importlib.import_module(entry.module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """The table of commands, from the entries alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self._entries.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands and options, from the entries alone."""
        found = [
            CompletionItem(name, help=entry.help)
            for name, entry in self._entries.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)
