"""Registries that come through Go (`tools.versions`, `make interop`), as processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.distribution import Server, distribution
from tests.fakes.process import free_port, require, running


@contextmanager
def distribution3(folder: Path) -> Iterator[Server]:
    """CNCF distribution 3."""
    with distribution(folder, program="registry") as server:
        yield server


@contextmanager
def olareg(folder: Path) -> Iterator[Server]:
    """olareg, which has the referrers API, on an OCI layout."""
    storage, port = folder / "storage", free_port()
    storage.mkdir()
    switches = ["--api-delete", "--api-blob-delete", "--gc-frequency", "-1s"]
    where = ["--addr", "127.0.0.1", "--port", str(port), "--dir", str(storage)]
    with running([require("olareg"), "serve", *where, *switches], folder / "log") as process:
        process.wait_until_listening(port)
        yield Server(f"http://127.0.0.1:{port}", storage, process)


@contextmanager
def zot(folder: Path) -> Iterator[Server]:
    """Zot without its extensions, on OCI layouts."""
    storage, port, config = folder / "storage", free_port(), folder / "zot.json"
    settings = {
        "distSpecVersion": "1.0.1-dev",
        "storage": {"rootDirectory": str(storage), "gc": False},
        "http": {"address": "127.0.0.1", "port": str(port)},
        "log": {"level": "warn"},
    }
    config.write_text(json.dumps(settings))
    with running([require("zot"), "serve", str(config)], folder / "log") as process:
        process.wait_until_listening(port)
        yield Server(f"http://127.0.0.1:{port}", storage, process)


@contextmanager
def crane(folder: Path) -> Iterator[Server]:
    """go-containerregistry's own registry, with its blobs on disk and the rest in memory.

    Not for the conformance suite: its repositories share all blobs, and it mounts nothing, takes manifests whose
    blobs it lacks, and knows no range without an end.
    """
    storage, port = folder / "storage", free_port()
    storage.mkdir()
    where = ["--address", f"127.0.0.1:{port}", "--disk", str(storage)]
    with running([require("crane"), "registry", "serve", *where], folder / "log") as process:
        process.wait_until_listening(port)
        yield Server(f"http://127.0.0.1:{port}", storage, process)
