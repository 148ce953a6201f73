"""skopeo and podman as witnesses: programs of others that read what we wrote."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.fakes.process import clean_environment, require

PATIENCE_SECONDS: Final = 60


def skopeo_inspect(reference: str) -> Mapping[str, object]:
    """What `skopeo inspect` says of host/repository:tag, over plain HTTP."""
    output = _run(
        [require("skopeo"), "--override-arch=amd64", "inspect", "--tls-verify=false", f"docker://{reference}"]
    )
    answer: Mapping[str, object] = json.loads(output)
    return answer


def skopeo_raw(reference: str) -> bytes:
    """The manifest's exact bytes, as skopeo gets them."""
    return _run([require("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"])


def skopeo_copy_to_layout(reference: str, layout: Path, tag: str) -> None:
    """Copies an image, with all its platforms, into an OCI layout; skopeo verifies every digest on the way."""
    source, target = f"docker://{reference}", f"oci:{layout}:{tag}"
    _run([require("skopeo"), "copy", "--all", "--src-tls-verify=false", source, target])


def podman_pull(reference: str) -> str:
    """Pulls an image into a storage of its own, gone afterwards; returns the image's id."""
    # Not pytest's folder: podman takes 50 characters of `runroot` at most.
    with tempfile.TemporaryDirectory(prefix="podman") as folder:
        storage = [f"--root={folder}/root", f"--runroot={folder}/run", "--storage-driver=vfs"]
        podman = [require("podman"), *storage, f"--tmpdir={folder}/temporary", "--events-backend=none"]
        return (
            _run([*podman, "pull", "--quiet", "--arch=amd64", "--tls-verify=false", reference])
            .decode()
            .strip()
        )


def run_quietly(program: str, *arguments: str, home: Path | None = None) -> bytes:
    """What a program says, if it succeeds. `home` is where it keeps its config."""
    return _run([require(program), *arguments], home)


def _run(command: Sequence[str], home: Path | None = None) -> bytes:
    environ = clean_environment() | ({"HOME": str(home)} if home else {})
    done = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE_SECONDS, env=environ)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr.decode()}"
    return done.stdout
