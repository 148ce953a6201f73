"""Makes a release. docs/releasing.md describes the process.

`--prepare VERSION` writes the version and the changelog's section, and commits them. Without it, the commit gets a signed
tag, and dist/ all that is published: wheel, source archive, .deb and .rpm, release notes, SBOM, provenance and checksums.
`--rehearse` builds whatever is checked out, without a tag, and says what a release would refuse.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts import package
from scripts.changelog import VERSIONED, released, section, with_version
from scripts.environment import MACHINES

ROOT: Final = Path(__file__).parents[1]
DIST: Final = ROOT / "dist"
LOCKS: Final = ("runtime", "build", "release")


def run(*command: str, **environ: str) -> str:
    """The stdout of a command; raises CalledProcessError."""
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | environ, check=True, stdout=subprocess.PIPE, text=True
    )
    return ended.stdout.strip()


def prepare(release: str) -> None:
    """Writes the version and the changelog's section, and commits both. Raises SystemExit, and then nothing is changed."""
    if not re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?", release):
        raise SystemExit(f"{release} is not a version such as 1.2.0 or 1.2.0rc1")
    if run("git", "status", "--porcelain"):
        raise SystemExit("the working tree is not clean")
    changelog = ROOT / "CHANGELOG.md"
    try:
        texts = {changelog: released(changelog.read_text(), release, f"{datetime.now(UTC):%Y-%m-%d}")}
        for name, pattern in VERSIONED.items():
            texts[ROOT / name] = with_version((ROOT / name).read_text(), pattern, release)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    for file, text in texts.items():
        file.write_text(text)
    run("git", "commit", "--quiet", "--message", f"Release {release}", *map(str, texts))
    print(f"committed {release}; next: .ci/run, then make release")


def tag(release: str, notes: str) -> None:
    """Signs the tag of the release, where the commit does not have it. Raises CalledProcessError."""
    if f"v{release}" not in run("git", "tag", "--points-at", "HEAD").split():
        run(
            "git",
            "tag",
            "--sign",
            f"v{release}",
            "--cleanup=verbatim",
            "-m",
            f"replicator {release}\n\n{notes}\n",
        )


def problems(release: str) -> list[str]:
    """Why this checkout cannot be released; a missing tag is not among it."""
    found = []
    if run("git", "status", "--porcelain"):
        found.append("the working tree is not clean")
    if section((ROOT / "CHANGELOG.md").read_text(), release) is None:
        found.append(f"CHANGELOG.md has no section for {release}: make release version={release}")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if any(".invalid" in url for url in project["urls"].values()):
        found.append("[project.urls] in pyproject.toml has placeholders")
    if not re.search(
        r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", (ROOT / "Containerfile").read_text(), re.MULTILINE
    ):
        found.append("the base image in Containerfile is not pinned by digest: scripts/base-image")
    return found


def unsigned(release: str) -> bool:
    """Whether the release's tag is missing here or has no valid signature."""
    if f"v{release}" not in run("git", "tag", "--points-at", "HEAD").split():
        return True
    command = ("git", "tag", "--verify", f"v{release}")
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode != 0


def build(epoch: str) -> list[Path]:
    """Wheel, source archive and packages, with all times set to the commit's, so that they can be reproduced."""
    DIST.mkdir(exist_ok=True)
    for old in DIST.glob("*"):
        old.unlink()
    wheel = package.build_wheel(DIST, epoch)
    for architecture in MACHINES:
        with tempfile.TemporaryDirectory() as folder:
            package.stage(Path(folder), wheel, architecture=architecture)
            package.pack(Path(folder), DIST, architecture=architecture, epoch=epoch)
    return sorted(DIST.glob("*"))


def sbom(release: str) -> Path:
    """A CycloneDX document of the runtime dependencies, from their lock."""
    file = DIST / f"replicator-{release}.cdx.json"
    run(
        *(str(Path(sys.executable).with_name("cyclonedx-py")), "requirements", "requirements/runtime.lock"),
        *("--pyproject", "pyproject.toml", "--output-reproducible", "--of", "JSON", "-o", str(file)),
    )
    return file


def digest(file: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def provenance(release: str, artifacts: list[Path], commit: str) -> dict[str, Any]:
    """An in-toto statement with SLSA's provenance: what was built, from which commit, with which locked dependencies."""
    source = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    inputs = [{"uri": f"git+{source}@{commit}", "digest": {"gitCommit": commit}}]
    for name in LOCKS:
        file = ROOT / "requirements" / f"{name}.lock"
        inputs.append({"uri": f"file:requirements/{name}.lock", "digest": {"sha256": digest(file)}})
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file.name, "digest": {"sha256": digest(file)}} for file in artifacts],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{source}/blob/{commit}/scripts/release.py",
                "externalParameters": {"version": release, "python": sys.version.split()[0]},
                "resolvedDependencies": inputs,
            },
            "runDetails": {"builder": {"id": f"{source}/blob/{commit}/docs/releasing.md"}},
        },
    }


def publish(release: str) -> None:
    """Fills dist/."""
    commit = run("git", "rev-parse", "HEAD")
    artifacts = [*build(run("git", "log", "-1", "--format=%ct")), sbom(release)]
    notes = DIST / f"replicator-{release}.md"
    notes.write_text((section((ROOT / "CHANGELOG.md").read_text(), release) or "Not released.") + "\n")
    statement = DIST / f"replicator-{release}.provenance.json"
    statement.write_text(json.dumps(provenance(release, artifacts, commit), indent=2) + "\n")
    sums = "".join(f"{digest(file)}  {file.name}\n" for file in [*artifacts, notes, statement])
    (DIST / "SHA256SUMS").write_text(sums)
    print(sums, end="")


def main() -> int:
    """Prepares a release, or makes it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prepare", metavar="VERSION", help="write and commit the version and its changelog")
    parser.add_argument(
        "--rehearse", action="store_true", help="build any commit; only report what a release refuses"
    )
    given = parser.parse_args()
    if given.prepare:
        prepare(given.prepare)
        return 0
    release = package.release()
    refused = problems(release)
    if not refused and not given.rehearse:
        try:
            tag(release, section((ROOT / "CHANGELOG.md").read_text(), release) or "")
        except subprocess.CalledProcessError:
            refused.append(f"git did not sign the tag v{release}: git config user.signingkey")
        else:
            refused += [f"the tag v{release} has no valid signature"] if unsigned(release) else []
    for problem in refused:
        print(f"{'warning' if given.rehearse else 'error'}: {problem}", file=sys.stderr)
    if refused and not given.rehearse:
        return 1
    publish(release)
    return 0


if __name__ == "__main__":
    sys.exit(main())
