"""The README and the list of documents name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from replicator.cli.program import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def test_the_readme_lists_every_command() -> None:
    table = README.partition("| command | does |")[2].partition("\n\n")[0]
    listed = {
        name.split()[0]
        for row in table.splitlines()
        for name in re.findall("`([^`]+)`", "".join(row.split("|")[1:2]))
    }
    assert listed == set(cli.list_commands(click.Context(cli)))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_targets_of_make_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"(?:^\$ |`)make ([a-z-]+)", text, re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert named
    assert named - targets == set()


def test_the_list_of_documents_has_every_page() -> None:
    listed = set(re.findall(r"\]\(([a-z-]+\.md)\)", (ROOT / "docs" / "README.md").read_text()))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages - listed == set()


def test_every_set_of_tools_has_a_program() -> None:
    versions = (ROOT / "tools.versions").read_text().splitlines()
    sets = {line.split()[0] for line in versions if line and not line.startswith("#")} | {"link"}
    named = {
        name
        for line in re.findall(r"scripts/tools ([a-z ]+)$", MAKEFILE, re.MULTILINE)
        for name in line.split()
    }
    assert named
    assert named - sets == set()
