"""What `oras attach` attached is found by oras, regctl and skopeo wherever the program has copied it."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.demo.images import AMD64, ARM64, BuiltImage, image, index
from replicator.model.companion import fallback_tag
from replicator.model.digest import Digest
from tests.acceptance.program import Program, rule
from tests.acceptance.walker import fill
from tests.cross.witness import skopeo_raw
from tests.fakes.distribution import Server, distribution
from tests.fakes.interop import distribution3, olareg
from tests.fakes.process import clean_environment, require, running
from tests.fakes.referrers import SPDX, referrer

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[2]
REPOSITORY = "platform/app"
CHILD = image("child", platform=AMD64)
INDEX = index([CHILD, image("on arm", platform=ARM64)])
REGISTRIES = {"distribution 2.8": distribution, "distribution 3": distribution3, "olareg": olareg}
ROUTES = (
    ("distribution 2.8", "olareg", "oci directory", "distribution 3"),
    ("olareg", "distribution directory", "distribution 2.8", "olareg"),
    ("distribution 3", "distribution 2.8", "oci directory", "olareg"),
)


@dataclass(frozen=True)
class Place:
    """A site of the program; `host`: where it can be asked as a registry."""

    url: str
    host: str
    layout: Path | None = None


@contextmanager
def place(kind: str, folder: Path) -> Iterator[Place]:
    """An empty registry or directory."""
    folder.mkdir()
    if kind in REGISTRIES:
        with REGISTRIES[kind](folder) as server:
            yield Place(server.url, server.host)
        return
    shelf = folder / "shelf"
    layout = kind.partition(" ")[0]
    command = [sys.executable, "-m", "replicator", "serve", str(shelf), "--layout", layout]
    shelf.mkdir()
    with running(
        [*command, "--listen", "127.0.0.1:0"], folder / "log", PYTHONPATH=str(ROOT), HOME=str(folder)
    ) as process:
        host = process.wait_for(r"url=http://([0-9.:]+)")[1]
        yield Place(f"file://{shelf}", host, shelf / REPOSITORY if layout == "oci" else None)


def run(program: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [require(program), *arguments],
        capture_output=True,
        check=False,
        timeout=60,
        env=clean_environment() | {"HOME": str(cwd)},
        cwd=cwd,
        text=True,
    )
    assert done.returncode == 0, f"{program} {' '.join(arguments)}\n{done.stderr}"
    return done.stdout


def attach(host: str, subject: str, artifact_type: str, folder: Path) -> str:
    """The digest of what oras attached, over the referrers API or the fallback tag as oras finds right."""
    (folder / "document.json").write_text(json.dumps({"about": subject, "type": artifact_type}))
    answer = run(
        "oras",
        "attach",
        "--plain-http",
        "--format",
        "json",
        "--artifact-type",
        artifact_type,
        f"{host}/{REPOSITORY}@{subject}",
        "document.json",
        cwd=folder,
    )
    digest: str = json.loads(answer)["digest"]
    return digest


def oras_finds(reference: str, folder: Path, *switches: str) -> set[str]:
    """All that oras finds below a reference, and below that."""

    def walk(found: list[dict[str, object]]) -> Iterator[str]:
        for one in found:
            yield str(one["digest"])
            below = one.get("referrers")
            yield from walk(below if isinstance(below, list) else [])

    answer = json.loads(run("oras", "discover", *switches, "--format", "json", reference, cwd=folder))
    return set(walk(answer.get("referrers") or []))


def regctl_finds(reference: str, folder: Path) -> set[str]:
    """What regctl lists for a reference."""
    answer = run("regctl", "artifact", "list", "--format", "{{json .Manifest}}", reference, cwd=folder)
    return {one["digest"] for one in json.loads(answer).get("manifests") or []}


def check(there: Place, folder: Path, attached: dict[str, set[str]], below: dict[str, set[str]]) -> None:
    """All that was attached is found, by subject: at once, and with what is `below` it."""
    for subject, expected in attached.items():
        everything = expected.union(*(below.get(digest, set()) for digest in expected))
        reference = f"{there.host}/{REPOSITORY}@{subject}"
        assert oras_finds(reference, folder, "--plain-http") == everything
        run("regctl", "registry", "set", "--tls", "disabled", there.host, cwd=folder)
        assert regctl_finds(reference, folder) == expected
        for digest in everything:
            assert json.loads(skopeo_raw(f"{there.host}/{REPOSITORY}@{digest}"))["subject"]
        if there.layout is not None and subject == INDEX.digest:
            # Children have no entry in index.json, where oras would look. regctl looks for fallback tags in layouts.
            assert oras_finds(f"{there.layout}:v1", folder, "--oci-layout") == everything


@pytest.mark.parametrize("route", ROUTES, ids=" to ".join)
async def test_referrers_are_found_after_each_hop(route: tuple[str, ...], tmp_path: Path) -> None:
    images = {(REPOSITORY, "v1"): INDEX}
    with ExitStack() as stack:
        places = [
            stack.enter_context(place(kind, tmp_path / f"{number}")) for number, kind in enumerate(route)
        ]
        await fill(Server(places[0].url, tmp_path, None).settings(), images)  # type: ignore[arg-type]
        host = places[0].host
        sbom = await asyncio.to_thread(attach, host, INDEX.digest, SPDX, tmp_path)
        other = await asyncio.to_thread(attach, host, INDEX.digest, "application/vnd.example", tmp_path)
        signature = await asyncio.to_thread(attach, host, sbom, "application/vnd.signature", tmp_path)
        of_child = await asyncio.to_thread(attach, host, CHILD.digest, SPDX, tmp_path)
        attached: dict[str, set[str]] = {INDEX.digest: {sbom, other}, CHILD.digest: {of_child}}
        below = {sbom: {signature}}
        for number, (source, target) in enumerate(itertools.pairwise(places)):
            program = Program(tmp_path / f"{number}")
            config = program.write_config(
                {"hub": source.url, "fra": target.url}, rule().replace('"platform/**"', f'"{REPOSITORY}"')
            )
            set_layouts(config, {each.url: kind for each, kind in zip(places, route, strict=True)})
            ended = await program("sync", "--json")
            assert ended.code == 0, ended.stderr
            assert ended.json["totals"]["tags"]["copied"] == 1
            await asyncio.to_thread(check, target, tmp_path, attached, below)
            again = await program("sync", "--json", "--recheck")
            assert again.json["totals"]["bytes"]["written"] == 0, again.stdout


async def test_olareg_lists_all_of_many_that_arrive_at_once(tmp_path: Path) -> None:
    """Its list of a subject's referrers loses entries when manifests are put at the same moment."""
    many = [referrer(INDEX, seed=f"{number}") for number in range(32)]
    with ExitStack() as stack:
        source, target = (stack.enter_context(place("olareg", tmp_path / name)) for name in ("hub", "fra"))
        images: dict[tuple[str, str], BuiltImage] = {(REPOSITORY, "v1"): INDEX}
        images |= {(REPOSITORY, f"r{number}"): each for number, each in enumerate(many)}
        await fill(Server(source.url, tmp_path, None).settings(), images)  # type: ignore[arg-type]
        program = Program(tmp_path)
        of_image = rule(more='[rule.tags]\ninclude = ["v1"]').replace('"platform/**"', f'"{REPOSITORY}"')
        program.write_config({"hub": source.url, "fra": target.url}, of_image)
        ended = await program("sync", "--json")
        assert ended.code == 0, ended.stderr
        found = await asyncio.to_thread(
            oras_finds, f"{target.host}/{REPOSITORY}@{INDEX.digest}", tmp_path, "--plain-http"
        )
        assert found == {each.digest for each in many}
        tags = json.loads(
            await asyncio.to_thread(
                run,
                "skopeo",
                "list-tags",
                "--tls-verify=false",
                f"docker://{target.host}/{REPOSITORY}",
                cwd=tmp_path,
            )
        )["Tags"]
        assert tags == ["v1"], "no fallback tag"


def set_layouts(config: Path, kinds: dict[str, str]) -> None:
    """Adds the layout of each site that is a directory."""
    text = config.read_text()
    for url, kind in kinds.items():
        if kind.endswith("directory"):
            line = f'url = "{url}"'
            text = text.replace(line, f'{line}\nlayout = "{kind.partition(" ")[0]}"')
    config.write_text(text)


# --- writers that race ---

WRITER = """
import asyncio, sys
from replicator.engine.referrers import ReferrersAPIs
from replicator.engine.transfer.referrers import ReferrersLists
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.model.digest import Digest
from replicator.sites.registry.settings import RegistrySettings
from replicator.sites.registry.site import RegistrySite

async def main(url, name, subject, digest):
    clock = SystemClock()
    site = RegistrySite(RegistrySettings("server", url, docker_config=False, proxy=""), events=Events(), clock=clock)
    repository = site.repository(name)
    manifest = await repository.read_manifest(digest)
    lists = ReferrersLists(ReferrersAPIs(clock), clock, lambda text: print(text, file=sys.stderr))
    print("ready", flush=True)
    sys.stdin.readline()
    await lists.ensure(repository, Digest(subject), [manifest])
    await lists.aclose()
    await site.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_six_processes_that_write_one_list_at_once_lose_nothing(docker_registry: Server) -> None:
    """Distribution ignores `If-Match`: of six `cosign sign` at once, one signature is lost."""
    root, name = image("raced"), "raced/app"
    signatures = [referrer(root, seed=f"{number}") for number in range(6)]
    images: dict[tuple[str, str], BuiltImage] = {(name, "v1"): root}
    images |= {(name, f"s{number}"): each for number, each in enumerate(signatures)}
    await fill(docker_registry.settings(), images)
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WRITER,
            docker_registry.url,
            name,
            root.digest,
            each.digest,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=clean_environment() | {"PYTHONPATH": str(ROOT)},
        )
        for each in signatures
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert await writer.stdout.readline() == b"ready\n"
    async with asyncio.TaskGroup() as tasks:
        ended = [tasks.create_task(writer.communicate(b"go\n")) for writer in writers]
    assert [task.result()[1] for task in ended] == [b""] * 6
    listed = json.loads(
        await asyncio.to_thread(
            skopeo_raw, f"{docker_registry.host}/{name}:{fallback_tag(Digest(root.digest))}"
        )
    )
    assert [one["digest"] for one in listed["manifests"]] == sorted(each.digest for each in signatures)
