"""Builds a release into dist/: wheel, source archive, SBOM, provenance and checksums.

Run by `make release`, from the signed tag `vVERSION` of a clean tree. `--rehearse` builds whatever is checked out, and says
what a release would refuse. docs/releasing.md describes the process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
DIST: Final = ROOT / "dist"
LOCKS: Final = ("runtime", "build", "release")


def run(*command: str, **environ: str) -> str:
    """The stdout of a command; raises CalledProcessError."""
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | environ, check=True, stdout=subprocess.PIPE, text=True
    )
    return ended.stdout.strip()


def version() -> str:
    """The version of the package."""
    found = re.search(r'__version__ = "([^"]+)"', (ROOT / "replicator" / "__init__.py").read_text())
    if found is None:
        raise SystemExit("replicator/__init__.py has no __version__")
    return found[1]


def problems(release: str) -> list[str]:
    """Why this checkout cannot be released."""
    found = []
    if run("git", "status", "--porcelain"):
        found.append("the working tree is not clean")
    tag = f"v{release}"
    tags = run("git", "tag", "--points-at", "HEAD").split()
    if tag not in tags:
        found.append(f"HEAD does not have the tag {tag}: git tag --sign {tag}")
    elif subprocess.run(
        ("git", "tag", "--verify", tag), cwd=ROOT, check=False, capture_output=True
    ).returncode:
        found.append(f"the tag {tag} has no valid signature")
    if f"## [{release}]" not in (ROOT / "CHANGELOG.md").read_text():
        found.append(f"CHANGELOG.md has no section for {release}")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if any(".invalid" in url for url in project["urls"].values()):
        found.append("[project.urls] in pyproject.toml has placeholders")
    if not re.search(
        r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", (ROOT / "Containerfile").read_text(), re.MULTILINE
    ):
        found.append("the base image in Containerfile is not pinned by digest: scripts/base-image")
    return found


def build(epoch: str) -> list[Path]:
    """The wheel and the source archive, with all times set to the commit's, so that they can be reproduced."""
    for old in DIST.glob("*"):
        old.unlink()
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(DIST), SOURCE_DATE_EPOCH=epoch)
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


def main() -> int:
    """Builds everything; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build a release into dist/.")
    parser.add_argument(
        "--rehearse", action="store_true", help="build any commit; only report what a release refuses"
    )
    rehearse = parser.parse_args().rehearse
    release = version()
    refused = problems(release)
    for problem in refused:
        print(f"{'warning' if rehearse else 'error'}: {problem}", file=sys.stderr)
    if refused and not rehearse:
        return 1
    commit = run("git", "rev-parse", "HEAD")
    artifacts = [*build(run("git", "log", "-1", "--format=%ct")), sbom(release)]
    statement = DIST / f"replicator-{release}.provenance.json"
    statement.write_text(json.dumps(provenance(release, artifacts, commit), indent=2) + "\n")
    sums = "".join(f"{digest(file)}  {file.name}\n" for file in [*artifacts, statement])
    (DIST / "SHA256SUMS").write_text(sums)
    print(sums, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
