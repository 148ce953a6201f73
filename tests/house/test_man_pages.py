"""Man pages come from the commands' own help, one for each, and troff has nothing to say against them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from replicator.cli.program import cli
from scripts.man_pages import escaped, main
from tests.fakes.process import require


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    main(folder)
    return folder


def test_each_command_has_a_page_with_its_options(pages: Path) -> None:
    names = {each.name for each in pages.iterdir()}
    assert {f"replicator-{name}.1" for name in cli.commands or cli.list_commands(None)} <= names  # type: ignore[arg-type]
    assert "replicator-config-import.1" in names
    text = (pages / "replicator-why.1").read_text()
    assert ".SH SYNOPSIS\n.B replicator why\n[OPTIONS] REFERENCE\n" in text
    assert ".B \\-\\-at SITE\nOnly this destination.\n" in text


def test_troff_accepts_them(pages: Path) -> None:
    files = sorted(map(str, pages.iterdir()))
    ended = subprocess.run(
        [require("groff"), "-man", "-ww", "-z", *files], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_troff_would_take_for_a_request_is_text() -> None:
    assert escaped(".so /etc/passwd") == "\\&.so /etc/passwd"
    assert escaped("a\\b-c") == "a\\eb\\-c"
