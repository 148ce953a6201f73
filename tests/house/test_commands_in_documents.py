"""Documents show commands and options that exist, and `docs/commands.md` names every option."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from replicator.cli.program import cli
from scripts.man_pages import commands

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
    *sorted((ROOT / "systemd").glob("*.service")),
    ROOT / "README.md",
    ROOT / "grafana" / "alerts.yml",
]
COMMANDS = {name.removeprefix("replicator").strip(): context for name, context in commands(cli, "replicator")}
EVERYWHERE = {name for each in cli.params for name in each.opts} | {"--help"}
SHOWN = re.compile(
    rf"\breplicator (?:-c \S+ )?({'|'.join(sorted(filter(None, COMMANDS), reverse=True))})\b([^`|;>#\n]*)"
)
OPTION = re.compile(r"(?<!\S)\[?(--[a-z][a-z-]*)")


def options(command: str) -> set[str]:
    params = [each for each in COMMANDS[command].command.params if isinstance(each, click.Option)]
    return {name for each in params for name in each.opts if name.startswith("--")}


def shown(text: str) -> Iterator[tuple[str, set[str]]]:
    for command, rest in SHOWN.findall(text.replace("\\\n", " ")):
        yield command, set(OPTION.findall(rest))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_a_page_shows_exist(page: Path) -> None:
    unknown = {
        (command, name)
        for command, named in shown(page.read_text())
        for name in named - options(command) - EVERYWHERE
    }
    assert unknown == set()


def test_enough_commands_are_found() -> None:
    assert sum(bool(named) for page in PAGES for _, named in shown(page.read_text())) > 15


@pytest.mark.parametrize("command", sorted(name for name in COMMANDS if name))
def test_the_page_on_commands_names_every_option(command: str) -> None:
    sections = re.split(r"^## ", (ROOT / "docs" / "commands.md").read_text(), flags=re.MULTILINE)
    own = [text for text in sections if re.match(rf"[^\n]*`{command.split(maxsplit=1)[0]}\b", text)]
    everywhere = [text for text in sections if text.startswith("Options everywhere")]
    assert own, f"{command} has no section"
    named = set(re.findall(r"--[a-z][a-z-]*", "".join(own + everywhere)))
    assert options(command) - EVERYWHERE - named == set()
