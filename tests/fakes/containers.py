"""Container images, built and looked into by podman in a store of its own, without a daemon and without running containers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fakes.machine import Machine, memory
from tests.fakes.process import clean_environment, require


class Store:
    """A place for images."""

    def __init__(self, folder: Path) -> None:
        self._command = (require("podman"), f"--root={folder}/root", f"--runroot={folder}/run")
        self._quiet = (f"--tmpdir={folder}/temporary", "--events-backend=none")

    def podman(self, *arguments: str) -> str:
        """Stdout of a command. Fails the test, with what it wrote, where it fails."""
        done = subprocess.run(
            (*self._command, *self._quiet, *arguments),
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"podman {' '.join(arguments)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout.strip()

    def add(self, machine: Machine, name: str) -> None:
        """Makes an image of a machine's files."""
        tar = machine.root.with_suffix(".tar")
        command = ("tar", "--create", f"--file={tar}", f"--directory={machine.root}", ".")
        subprocess.run(command, check=True)
        self.podman("import", str(tar), name)
        tar.unlink()

    def config(self, name: str) -> Any:
        """An image as podman describes it."""
        [described] = msgspec.json.decode(self.podman("image", "inspect", name))
        return described

    def files(self, name: str) -> Machine:
        """The files of a container of that image, which does not run. They are mounted until the store goes away."""
        container = self.podman("create", name, "/bin/true")
        return Machine(Path(self.podman("mount", container)))


@contextmanager
def store() -> Iterator[Store]:
    """A store that leaves neither mounts nor files."""
    # Not pytest's folder: podman takes 50 characters of `runroot` at most.
    with memory() as folder:
        made = Store(folder)
        try:
            yield made
        finally:
            made.podman("umount", "--all", "--force")
            mount = str(folder / "root" / "overlay")
            subprocess.run(("umount", "--lazy", mount), check=False, capture_output=True)
