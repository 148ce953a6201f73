"""What a release writes, commits and signs, in a repository made for that."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from replicator import __version__
from scripts import release
from scripts.changelog import UNRELEASED, VERSIONED, released, section, with_version
from tests.fakes.process import require

ROOT = Path(__file__).parents[2]
CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- New.\n\n## [0.9.0] - 2026-01-02\n\n- Old.\n"


def test_changelog_of_a_release() -> None:
    text = released(CHANGELOG, "1.0.0", "2026-03-04")
    assert section(text, "Unreleased") == ""
    assert section(text, "1.0.0") == "### Added\n\n- New."
    assert section(text, "0.9.0") == "- Old."
    assert "## [1.0.0] - 2026-03-04\n" in text
    assert section(text, "1.0") is None


@pytest.mark.parametrize(
    ("text", "version", "problem"),
    [
        (CHANGELOG, "0.9.0", "has a section for 0.9.0 already"),
        (CHANGELOG.replace("### Added\n\n- New.\n", ""), "1.0.0", "has nothing under"),
    ],
)
def test_release_without_changes_or_made_before_is_refused(text: str, version: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        released(text, version, "2026-03-04")


def test_version_is_written_where_it_is_looked_for() -> None:
    assert UNRELEASED in (ROOT / "CHANGELOG.md").read_text()
    for name, pattern in VERSIONED.items():
        text = (ROOT / name).read_text()
        assert re.findall(pattern, text) == [__version__]
        assert with_version(text, pattern, __version__) == text


class Repository:
    """A repository with the files that a release changes or checks, and a key to sign its tags."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        for name in (*VERSIONED, ".gitignore", "CHANGELOG.md", "Containerfile", "pyproject.toml"):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.folder / name)
        shutil.copytree(ROOT / "scripts", self.folder / "scripts")
        key = folder / "key"
        subprocess.run((require("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key), check=True)
        (folder / "signers").write_text(f"us@example.com {key.with_suffix('.pub').read_text()}")
        home = folder / "home"
        home.mkdir()
        (home / ".gitconfig").write_text(
            f"[user]\nname = us\nemail = us@example.com\nsigningkey = {key}.pub\n"
            f'[gpg]\nformat = ssh\n[gpg "ssh"]\nallowedSignersFile = {folder / "signers"}\n'
        )
        self._environ = {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "All")

    def git(self, *arguments: str) -> str:
        return self._run("git", *arguments, check=True).stdout.strip()

    def release(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(sys.executable, "-m", "scripts.release", *arguments)

    def _run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self._environ, capture_output=True, text=True, check=check
        )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_preparing_commits_version_and_changelog(repository: Repository) -> None:
    prepared = repository.release("--prepare", "7.0.0")
    assert prepared.returncode == 0, prepared.stderr
    assert repository.git("log", "-1", "--format=%s") == "Release 7.0.0"
    assert repository.git("status", "--porcelain", "--untracked-files=no") == ""
    for name, pattern in VERSIONED.items():
        assert re.findall(pattern, (repository.folder / name).read_text()) == ["7.0.0"]
    assert section((repository.folder / "CHANGELOG.md").read_text(), "7.0.0")
    again = repository.release("--prepare", "7.0.0")
    assert again.returncode == 1
    assert "has a section for 7.0.0 already" in again.stderr


@pytest.mark.parametrize("version", ["7", "v7.0.0", "7.0.0-1"])
def test_odd_versions_are_refused(repository: Repository, version: str) -> None:
    refused = repository.release("--prepare", version)
    assert refused.returncode == 1
    assert "is not a version such as" in refused.stderr
    assert repository.git("log", "-1", "--format=%s") == "All"


def test_release_is_refused_with_all_reasons_before_anything_is_tagged(repository: Repository) -> None:
    (repository.folder / "CHANGELOG.md").write_text(CHANGELOG)
    refused = repository.release()
    assert refused.returncode == 1
    assert "the working tree is not clean" in refused.stderr
    assert f"CHANGELOG.md has no section for {__version__}" in refused.stderr
    assert "[project.urls] in pyproject.toml has placeholders" in refused.stderr
    assert repository.git("tag") == ""


def test_tag_is_signed_and_has_the_notes(repository: Repository) -> None:
    assert repository.release("--prepare", "7.0.0").returncode == 0
    code = "from scripts.release import tag, unsigned; assert unsigned('7.0.0'); tag('7.0.0', '# All new'); print(unsigned('7.0.0'))"
    tagged = repository._run(sys.executable, "-c", code)
    assert tagged.stdout == "False\n", tagged.stderr
    assert "# All new" in repository.git("for-each-ref", "--format=%(contents)", "refs/tags/v7.0.0")


def test_checksums_and_provenance_cover_all_that_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, bill = tmp_path / "replicator.deb", tmp_path / "replicator.cdx.json"
    built.write_bytes(b"package")
    bill.write_bytes(b"{}")
    monkeypatch.setattr(release, "DIST", tmp_path)
    monkeypatch.setattr(release, "build", lambda _epoch: [built])
    monkeypatch.setattr(release, "sbom", lambda _release: bill)
    release.publish("7.0.0")
    sums = dict(line.split("  ")[::-1] for line in (tmp_path / "SHA256SUMS").read_text().splitlines())
    published = [path for path in tmp_path.iterdir() if path.name != "SHA256SUMS"]
    assert sums == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in published}
    statement = json.loads((tmp_path / "replicator-7.0.0.provenance.json").read_text())
    assert {each["name"]: each["digest"]["sha256"] for each in statement["subject"]} == {
        path.name: sums[path.name] for path in (built, bill)
    }
    inputs = [each["uri"] for each in statement["predicate"]["buildDefinition"]["resolvedDependencies"]]
    assert "file:requirements/runtime.lock" in inputs
    assert inputs[0].startswith("git+")
