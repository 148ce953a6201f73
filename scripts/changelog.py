"""What a release changes in the repository's own files: the version where it is written, and the changelog. Pure."""

from __future__ import annotations

import re
from typing import Final

UNRELEASED: Final = "## [Unreleased]\n"
# Where the version is written, beside the changelog, with what finds it.
VERSIONED: Final = {
    "replicator/__init__.py": r'(?<=__version__ = ")[^"]+(?=")',
    "deploy/kubernetes/overlays/agent/kustomization.yaml": r"(?<=newTag: )\S+",
    "deploy/kubernetes/overlays/sync/kustomization.yaml": r"(?<=newTag: )\S+",
}


def released(changelog: str, version: str, date: str) -> str:
    """The changelog with what is unreleased under the version and its date (YYYY-MM-DD).

    Raises:
        ValueError: nothing is unreleased, or the version has a section already.
    """
    if section(changelog, version) is not None:
        raise ValueError(f"CHANGELOG.md has a section for {version} already")
    if not section(changelog, "Unreleased"):
        raise ValueError("CHANGELOG.md has nothing under [Unreleased]")
    return changelog.replace(UNRELEASED, f"{UNRELEASED}\n## [{version}] - {date}\n", 1)


def section(changelog: str, version: str) -> str | None:
    """What the changelog says of a version, without its heading; None where it has no such section."""
    found = re.search(
        rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    return found[1].strip() if found else None


def with_version(text: str, pattern: str, version: str) -> str:
    """A file's text with another version. Raises ValueError where the pattern is not found exactly once."""
    changed, count = re.subn(pattern, version, text)
    if count != 1:
        raise ValueError(f"{count} versions instead of one: {pattern}")
    return changed
