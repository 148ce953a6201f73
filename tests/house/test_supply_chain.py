"""What is installed is locked, the locks fit the project, and a release tells what it is made of."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked(name: str) -> dict[str, tuple[Version, int]]:
    """Each package of a lock: its version, and how many hashes it has."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    found: dict[str, tuple[Version, int]] = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text):
        match = re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", entry)
        if match:
            found[canonicalize_name(match[1])] = (Version(match[2]), len(HASH.findall(entry)))
    return found


def wanted(name: str) -> list[Requirement]:
    """What the project asks for in that lock."""
    if name == "runtime":
        project = PROJECT["project"]
        extras = project["optional-dependencies"]
        lines = [*project["dependencies"], *extras["uvloop"], *extras["postgres"]]
    else:
        lines = [line for line in PROJECT["dependency-groups"][name] if isinstance(line, str)]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("name", ["runtime", "build", "release"])
def test_lock_has_what_the_project_asks_for(name: str) -> None:
    packages = locked(name)
    for requirement in wanted(name):
        version, _ = packages.get(canonicalize_name(requirement.name), (None, 0))
        assert version is not None, f"{requirement.name} is not locked: make locks"
        assert version in requirement.specifier, f"{requirement}: {version} is locked: make locks"


@pytest.mark.parametrize("name", ["runtime", "build", "release"])
def test_lock_has_hashes_of_everything(name: str) -> None:
    packages = locked(name)
    assert packages
    assert [package for package, (_, hashes) in packages.items() if not hashes] == []


def test_every_package_in_the_lock_is_asked_for() -> None:
    """The lock says of each package why it is there."""
    text = (ROOT / "requirements" / "runtime.lock").read_text()
    direct = set(
        re.findall(
            r"^([a-z0-9._-]+)==(?:(?!^[a-z0-9._-]+==)[\s\S])*?replicator \(pyproject.toml\)",
            text,
            re.MULTILINE,
        )
    )
    assert direct == {canonicalize_name(requirement.name) for requirement in wanted("runtime")}


def test_build_lock_has_the_build_backend() -> None:
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


def test_container_installs_only_what_is_locked() -> None:
    text = (ROOT / "Containerfile").read_text()
    bases = re.findall(r"^FROM (?:--platform=\S+ )?(\S+)", text, re.MULTILINE)
    assert bases == ["${BASE}", "${BASE}"]
    assert re.search(r"^ARG BASE=\S+:[\w.-]+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    [install] = re.findall(r"pip install (?:[^&\\\n]|\\\n)*", text)
    assert "--require-hashes" in install


def test_environments_of_packages_and_container_have_only_what_is_locked() -> None:
    def words(call: str) -> set[str]:
        return set(re.findall(r'"([^"]+)"', call))

    text = (ROOT / "scripts" / "environment.py").read_text()
    installs = re.findall(r"    pip_install\(([^)]*)\)", text)
    assert len(installs) == 2
    assert all("--require-hashes" in each or {"--no-deps", "--no-index"} <= words(each) for each in installs)


def test_documented_installation_installs_only_what_is_locked() -> None:
    for name in ("README.md", "docs/install.md"):
        text = (ROOT / name).read_text()
        installs = re.findall(r"pip install(?: [^\n&]*)", text)
        assert installs, name
        assert [
            each for each in installs if "--require-hashes" not in each and "--no-deps" not in each
        ] == [], name
