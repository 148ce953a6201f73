"""What the packages are made of exists, and their versions sort as the project's do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

from scripts.package import package_version

ROOT = Path(__file__).parents[2]
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "packaging" / "nfpm.yaml").read_text())


def test_every_file_of_the_packages_exists() -> None:
    sources = [each["src"] for each in CONFIG["contents"] if "src" in each and each.get("type") != "symlink"]
    ours = [source for source in sources if not source.startswith("${STAGE}")]
    assert [source for source in ours if not list(ROOT.glob(source))] == []
    for kind in CONFIG["overrides"].values():
        assert all((ROOT / script).is_file() for script in kind["scripts"].values())


def test_packages_have_all_units() -> None:
    sources = [each.get("src", "") for each in CONFIG["contents"] if each["dst"].startswith("/usr/lib/")]
    drop_ins = {"systemd/credentials.conf", "systemd/directories.conf"}  # templates, beside the documentation
    assert {f"systemd/{file.name}" for file in (ROOT / "systemd").iterdir()} - drop_ins == set(sources)


def test_config_as_installed_has_only_comments() -> None:
    lines = (ROOT / "packaging" / "config.toml").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


@pytest.mark.parametrize(
    ("python", "package"),
    [("1.2.0", "1.2.0"), ("1.2.0rc1", "1.2.0~rc1"), ("1.2.0.dev3", "1.2.0~dev3"), ("1.2.0b2", "1.2.0~b2")],
)
def test_version_in_the_words_of_dpkg(python: str, package: str) -> None:
    assert package_version(python) == package
    assert Version(package.replace("~", "")) == Version(python)
    assert re.fullmatch(r"[0-9][A-Za-z0-9.~]*", package)
