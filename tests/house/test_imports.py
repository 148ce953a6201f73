"""Each third-party library has a fence: the contract that names the packages which may import it."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parents[2]
EVERYWHERE: Final = {"msgspec"}
"""Decodes and describes data in every layer."""


def imported() -> set[str]:
    """The top-level packages of others that the program imports, at the top of modules or inside functions."""
    found: set[str] = set()
    for file in (ROOT / "replicator").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"replicator"}


def test_every_library_has_a_fence() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    fenced = {
        module.partition(".")[0]
        for contract in contracts
        if contract["type"] == "protected"
        for module in contract["protected_modules"]
    }
    assert imported() - EVERYWHERE - fenced == set()
    assert not EVERYWHERE & fenced


def test_architecture_names_files_that_exist() -> None:
    """The page names every package, and modules and names that exist, down to the line that copies a blob."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    for package in (ROOT / "replicator").iterdir():
        if (package / "__init__.py").exists():
            assert f"`{package.name}/`" in text, f"docs/architecture.md does not name {package.name}/"
    known = {str(file.relative_to(ROOT)) for file in ROOT.glob("replicator/**/*.py")}
    known |= {str(file.relative_to(ROOT)) for file in ROOT.glob("tests/**/*.py")}
    for code in text.split("`")[1::2]:
        path, _, name = code.partition(": ")
        if not path.endswith(".py"):
            continue
        files = [file for file in known if f"/{file}".endswith(f"/{path}")]
        assert files, f"docs/architecture.md names {path}, which does not exist"
        last = name.rpartition(".")[2].strip()
        assert any(last in (ROOT / file).read_text() for file in files), f"{path} has no {last}"
    line = "repository.write_blob(delivery, origin=origin)"
    assert line in text
    assert line in (ROOT / "replicator" / "engine" / "transfer" / "blob.py").read_text()
