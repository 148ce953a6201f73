"""Writes man pages for every command from its own help: `python scripts/man_pages.py FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from replicator import __version__
from replicator.cli.program import cli


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Context]]:
    """The command and everything below it, each with its name and a context."""
    context = click.Context(command, info_name=name)
    yield name, context
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None and not found.hidden:
                yield from commands(found, f"{name} {below}")


def page(name: str, context: click.Context) -> str:
    """One page, in the macros of man(7)."""
    command = context.command
    title = name.replace(" ", "-")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH "{escaped(title.upper())}" 1 "" "replicator {__version__}" "replicator"',
        ".SH NAME",
        f"{escaped(title)} \\- {escaped(command.get_short_help_str(200))}",
        ".SH SYNOPSIS",
        f".B {escaped(name)}",
        escaped(usage),
        ".SH DESCRIPTION",
    ]
    for paragraph in (command.help or "").split("\n\n"):
        lines += [".PP", escaped(" ".join(paragraph.split()))]
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    records = [record for each in options if (record := each.get_help_record(context))]
    lines += [".SH OPTIONS"] if records else []
    for option, text in records:
        lines += [".TP", f".B {escaped(option)}", escaped(text)]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None:
                lines += [
                    ".TP",
                    f".B {escaped(f'{title}-{below}')}(1)",
                    escaped(found.get_short_help_str(200)),
                ]
    elif " " in name:
        lines += [".SH SEE ALSO", ".BR replicator (1)"]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that troff shows as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def main(folder: Path) -> None:
    """Writes all pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, context in commands(cli, "replicator"):
        (folder / f"{name.replace(' ', '-')}.1").write_text(page(name, context))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
