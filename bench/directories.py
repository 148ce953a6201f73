"""A registry into a directory of OCI layouts, and such a directory into a registry: ours and the peers that can."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import corpus as images
from bench import measure, servers
from bench.compare import Bench
from bench.corpus import SMALL_SET, Corpus
from bench.measure import Command, CommandFailed, Usage
from bench.peers import OURS, find, registry_table, replicate
from bench.rows import Row
from bench.servers import Endpoint
from replicator.model.digest import Digest, encoded
from replicator.model.mediatypes import OCI_MANIFEST

REPEAT = 5
REACH = {"to-directory": 0.9, "from-directory": 0.8}
WIDTH = 10
TAG = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class Copy:
    """What is copied between a registry and a directory that has a folder for each repository."""

    registry: Endpoint
    directory: Path
    tags: Mapping[str, Sequence[str]]
    folder: Path
    """The program's own."""

    def each(self, command: Callable[[str, str], Sequence[str]]) -> list[Command]:
        """A shell for each repository, which runs the command for one tag after the other."""
        commands = []
        for repository, tags in self.tags.items():
            lines = [shlex.join(command(repository, tag)) for tag in tags]
            lines[-1] = f"exec {lines[-1]}"  # so that not the shell's memory is measured
            commands.append(Command(["sh", "-ec", "\n".join(lines)], self.environment))
        return commands

    @property
    def environment(self) -> dict[str, str]:
        """HOME has no credentials."""
        return {"HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder)}

    def layout(self, repository: str) -> Path:
        """The folder of a repository's layout."""
        return self.directory / repository

    def reference(self, repository: str, tag: str) -> str:
        """An image in the registry."""
        return f"{self.registry.host}/{repository}:{tag}"


Commands = Callable[[Copy], list[Command]]
Turn = Callable[[str, Path], Awaitable[Usage]]


def ours(copy: Copy, *, out: bool) -> list[Command]:
    """One run of one rule."""
    registry, directory = registry_table(copy.registry), [f'url = "file://{copy.directory}"']
    source, destination = (registry, directory) if out else (directory, registry)
    return [replicate(copy.folder, {"source": source, "to": destination}, sorted(copy.tags))]


def skopeo(copy: Copy, *, out: bool) -> list[Command]:
    """`copy --all` of one image after the other: its `sync` knows no OCI layouts."""
    insecure = "--src-tls-verify=false" if out else "--dest-tls-verify=false"
    call = [find("skopeo"), "copy", "--all", "--preserve-digests", insecure]

    def command(repository: str, tag: str) -> list[str]:
        pair = f"docker://{copy.reference(repository, tag)}", f"oci:{copy.layout(repository)}:{tag}"
        return [*call, *(pair if out else pair[::-1])]

    return copy.each(command)


def regctl(copy: Copy, *, out: bool) -> list[Command]:
    """`image copy` of one image after the other."""
    host = f"reg={copy.registry.host},tls=disabled,reqConcurrent=64"
    call = [find("regctl"), "image", "copy", "--host", host]

    def command(repository: str, tag: str) -> list[str]:
        pair = copy.reference(repository, tag), f"ocidir://{copy.layout(repository)}:{tag}"
        return [*call, *(pair if out else pair[::-1])]

    return copy.each(command)


def regsync(copy: Copy, *, out: bool) -> list[Command]:
    """`once` over all repositories: one process, images in parallel (JSON is YAML)."""
    pairs = [(f"{copy.registry.host}/{name}", f"ocidir://{copy.layout(name)}") for name in copy.tags]
    body = {
        "version": 1,
        "creds": [{"registry": copy.registry.host, "tls": "disabled", "reqConcurrent": 64}],
        "defaults": {"parallel": 32, "ratelimit": {"min": 0}},
        "sync": [
            dict(zip(("source", "target"), pair if out else pair[::-1], strict=True), type="repository")
            for pair in pairs
        ],
    }
    config = copy.folder / "regsync.yml"
    config.write_text(json.dumps(body))
    return [Command([find("regsync"), "-v", "warn", "once", "-c", str(config)], copy.environment)]


def crane(copy: Copy) -> list[Command]:
    """`pull --format=oci` of a repository's images at once. Its `push` takes one image of a layout, or all as one index."""
    call = [find("crane"), "pull", "--format=oci", "--annotate-ref", "--insecure"]
    return [
        Command(
            [*call, *(copy.reference(repository, tag) for tag in tags), str(copy.layout(repository))],
            copy.environment,
        )
        for repository, tags in copy.tags.items()
    ]


OUT: dict[str, Commands] = {
    OURS: lambda copy: ours(copy, out=True),
    "regsync": lambda copy: regsync(copy, out=True),
    "regctl": lambda copy: regctl(copy, out=True),
    "crane": crane,
    "skopeo": lambda copy: skopeo(copy, out=True),
}
IN: dict[str, Commands] = {
    OURS: lambda copy: ours(copy, out=False),
    "regsync": lambda copy: regsync(copy, out=False),
    "regctl": lambda copy: regctl(copy, out=False),
    "skopeo": lambda copy: skopeo(copy, out=False),
}


async def to_directory(bench: Bench) -> list[Row]:
    """A registry into an empty directory."""
    folder = bench.folder / "to-directory"
    held = await asyncio.to_thread(images.fill, folder / "storage", SMALL_SET)

    async def turn(name: str, home: Path) -> Usage:
        copy = Copy(source, home / "layouts", _tags(held), home)
        for repository in held.images:  # neither skopeo nor crane makes the folders above a layout
            copy.layout(repository).parent.mkdir(parents=True, exist_ok=True)
        usage = await _run(OUT[name](copy), home)
        _complain(await asyncio.to_thread(lacks, copy.directory, held))
        return usage

    async with servers.registry(folder / "source", folder / "storage") as source:
        rows = await _compare(bench, folder, OUT, held, turn)
    shutil.rmtree(folder)
    return rows


async def from_directory(bench: Bench) -> list[Row]:
    """A directory of OCI layouts into an empty registry."""
    folder = bench.folder / "from-directory"
    held = await asyncio.to_thread(fill, folder / "layouts")

    async def turn(name: str, home: Path) -> Usage:
        async with servers.fresh(home / "to") as destination:
            copy = Copy(destination, folder / "layouts", _tags(held), home)
            usage = await _run(IN[name](copy), home)
            _complain(await asyncio.to_thread(images.shortcomings, destination.storage, held))
        return usage

    rows = await _compare(bench, folder, IN, held, turn)
    shutil.rmtree(folder)
    return rows


async def _compare(
    bench: Bench, folder: Path, programs: Mapping[str, Commands], held: Corpus, turn: Turn
) -> list[Row]:
    """All that take part, in rotating order. One that fails has a row that says so."""
    asked = {one.name for one in bench.programs}
    # regctl is regsync's sister, of the same build
    names = [name for name in programs if (name if name != "regctl" else "regsync") in asked]
    runs: dict[str, list[Usage]] = {name: [] for name in names}
    failures: dict[str, str] = {}
    for number in range(bench.repeat or REPEAT):
        shift = number % len(names)
        for name in (one for one in [*names[shift:], *names[:shift]] if one not in failures):
            home = folder / f"{name}-{number}"
            home.mkdir()
            try:
                usage = await turn(name, home)
            except CommandFailed as error:
                failures[name] = str(error)
                bench.tell(f"  {name} failed: {error}")
            else:
                runs[name].append(usage)
                bench.tell(
                    f"  {name}: {usage.seconds:.2f} s, CPU {usage.cpu_seconds:.2f} s (load {os.getloadavg()[0]:.1f})"
                )
            await asyncio.to_thread(shutil.rmtree, home)
    return [
        Row(folder.name, name, runs[name], REACH[folder.name], held.unique_bytes, failure=failures.get(name))
        for name in names
    ]


async def _run(commands: Sequence[Command], home: Path) -> Usage:
    await asyncio.to_thread(os.sync)  # what earlier runs wrote is not written back during this one
    return await measure.run(commands, home / "run", WIDTH)


def _tags(held: Corpus) -> dict[str, list[str]]:
    return {repository: sorted(tags) for repository, tags in held.images.items()}


def _complain(lacking: Sequence[str]) -> None:
    if lacking:
        raise CommandFailed(f"{len(lacking)} things are not as at the source, first: {lacking[0]}")


def fill(directory: Path) -> Corpus:
    """Writes the images into an empty directory, a layout for each repository."""
    corpus = Corpus({}, {})
    entries: dict[str, list[dict[str, object]]] = {}
    for repository, tag, built in images.build(SMALL_SET):
        blobs = directory / repository / "blobs/sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        for digest, data in built.blobs.items():
            corpus.blobs[digest] = len(data)
            (blobs / encoded(digest)).write_bytes(data)
        (blobs / encoded(built.digest)).write_bytes(built.manifest.body)
        corpus.images.setdefault(repository, {})[tag] = built.digest
        entries.setdefault(repository, []).append(
            {
                "mediaType": OCI_MANIFEST,
                "digest": built.digest,
                "size": len(built.manifest.body),
                "annotations": {TAG: tag},
            }
        )
    for repository, manifests in entries.items():
        (directory / repository / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        index = {"schemaVersion": 2, "manifests": manifests}
        (directory / repository / "index.json").write_text(json.dumps(index))
    return corpus


def lacks(directory: Path, held: Corpus) -> list[str]:
    """What a directory's layouts lack of the corpus: tags, manifests, and the blobs those name; empty if nothing."""
    found = []
    for repository, tags in held.images.items():
        layout = directory / repository
        for tag, digest in tags.items():
            body = _blob(layout, digest)
            if digest not in _tagged(layout, tag) or not body.exists():
                found.append(f"{repository}:{tag} is not {digest}")
                continue
            manifest = json.loads(body.read_bytes())
            for blob in [manifest["config"], *manifest["layers"]]:
                path = _blob(layout, Digest(blob["digest"]))
                if not path.exists() or path.stat().st_size != blob["size"]:
                    found.append(f"{repository} has {blob['digest']} not in its size")
    return found


def _tagged(layout: Path, tag: str) -> set[str]:
    """What the index says a tag is. crane has the whole reference for a name."""
    if not (layout / "index.json").exists():
        return set()
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    return {
        one["digest"] for one in entries if one.get("annotations", {}).get(TAG, "").rpartition(":")[2] == tag
    }


def _blob(layout: Path, digest: Digest) -> Path:
    return layout / "blobs/sha256" / encoded(digest)
