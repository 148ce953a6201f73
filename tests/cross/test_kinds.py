"""Every kind of content between every pair of places, by `replicator sync`, seen by oras, regctl, skopeo and crane (`make interop`)."""

from __future__ import annotations

import http.server
import random
import re
import secrets
import subprocess
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from replicator.config.load import load as load_config
from replicator.demo.images import BuiltImage
from replicator.errors import SiteError
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.model.schema1 import signed_digest
from replicator.ports import Repository
from replicator.sites.open import open_site
from tests.acceptance.program import Program
from tests.acceptance.stores import ENVIRON, bucket, directory, s3_driver
from tests.fakes.distribution import distribution
from tests.fakes.interop import olareg, zot
from tests.fakes.kinds import KINDS, foreign
from tests.fakes.layouts import put_image
from tests.fakes.process import clean_environment, require
from tests.fakes.s3 import raw_client
from tests.fakes.source import BytesSource

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

DOCS = Path(__file__).parents[2] / "docs" / "content.md"
PLACES = {
    "d2": "docker-registry 2.8",
    "d3": "distribution 3",
    "olareg": "olareg",
    "zot": "zot",
    "bucket": "bucket",
    "directory": "directory",
}
REGISTRIES = ("d2", "d3", "olareg", "zot")
REASONS = (
    "takes sha256 digests",
    "is not a sha256 digest",
    "does not take Docker schema 1",
    "no longer serves images of Docker schema 1",
    "an OCI layout finds everything by the digest of its bytes",
    "does not take manifests of type application/vnd.docker",
)
LEFT_OUT, COPIED, BY_URL = (
    "foreign layers, left out",
    "foreign layers, copied",
    "foreign layers, by URL",
)
DOCKER = {"Docker schema 2", "Docker manifest list", LEFT_OUT, COPIED, BY_URL}
BASE, FAR = (random.Random(seed).randbytes(300_000) for seed in (1, 2))
RULES = """
[[rule]]
name = "{source}"
source = "{source}"
destinations = ["{destination}"]
repositories = [{kinds}]
rename = {{ prefix = "from-{source}/" }}
[[rule]]
name = "{source}-foreign"
source = "{source}"
destinations = ["{destination}"]
repositories = [{foreign}]
foreign_layers = true
rename = {{ prefix = "from-{source}/" }}
"""


def repository_of(kind: str) -> str:
    """Where an image of the kind is at its source."""
    folder = "foreign" if kind in {COPIED, BY_URL} else "kinds"
    return f"{folder}/{re.sub('[^a-z0-9]+', '-', kind.lower()).strip('-')}"


@dataclass(frozen=True)
class World:
    """All places, in one config. `hosts`: where registries can be asked. `has`: what each source could take in."""

    program: Program
    sites: Mapping[str, str]
    hosts: Mapping[str, str]
    images: Mapping[str, BuiltImage]
    has: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def config(self, rules: str = "") -> None:
        self.program.write_config({}, "".join(self.sites.values()) + rules)

    async def fill(self, source: str) -> None:
        """Puts there what the source can have."""
        path = self.program.folder / "replicator.toml"
        settings = load_config(path, ENVIRON | {"HOME": str(self.program.folder)}).sites[source]
        site = open_site(settings, events=Events(), clock=SystemClock())
        try:
            for kind, built in self.images.items():
                # A store has no client that could follow a URL.
                is_lost = kind == BY_URL and source not in REGISTRIES
                if not is_lost and await put(site.repository(repository_of(kind)), kind, built):
                    self.has[source].add(kind)
        finally:
            await site.aclose()

    def seen(self, destination: str, repository: str, folder: Path) -> Mapping[str, bytes]:
        """The bytes of the manifest of `v1` as each program gets them; oras reads and verifies all blobs beside."""
        layout = self.program.folder / f"to-{destination}" / repository
        host = self.hosts.get(destination)
        at = f"{host}/{repository}:v1" if host else f"{layout}:v1"
        oras = ["--plain-http"] if host else ["--oci-layout"]
        ours = ["--from-plain-http"] if host else ["--from-oci-layout"]
        copy = [
            "oras",
            "cp",
            *ours,
            at,
            "--to-oci-layout",
            f"{folder}/{destination}-{repository.replace('/', '-')}:v1",
        ]
        raw = {
            "oras": said("oras", "manifest", "fetch", *oras, at, cwd=folder),
            "oras cp": said("oras", "manifest", "fetch", *oras, at, cwd=folder)
            if said(*copy, cwd=folder)
            else b"",
            "regctl": said(
                "regctl",
                "manifest",
                "get",
                "--format",
                "raw-body",
                at if host else f"ocidir://{at}",
                cwd=folder,
            ),
            "skopeo": said(
                "skopeo",
                "inspect",
                "--raw",
                *(["--tls-verify=false", f"docker://{at}"] if host else [f"oci:{at}"]),
                cwd=folder,
            ),
        }
        return raw | ({"crane": said("crane", "manifest", "--insecure", at, cwd=folder)} if host else {})

    async def sync(self, destination: str) -> Mapping[tuple[str, str], str]:
        """Copies to there from everywhere; what became of each kind, by source and kind, with the reason unless copied."""
        # By name: olareg has no catalog.
        names = [f'"{repository_of(kind)}"' for kind in self.images]
        listed = {
            folder: ", ".join(name for name in names if name.startswith(f'"{folder}/'))
            for folder in ("kinds", "foreign")
        }
        self.config(
            "".join(
                RULES.format(source=source, destination=f"to-{destination}", **listed) for source in PLACES
            )
        )
        ended = await self.program("sync", "--json", environ=ENVIRON)
        kinds = {repository_of(kind): kind for kind in self.images}
        found: dict[tuple[str, str], str] = {}
        for run in ended.json["rules"]:
            for action in run["destinations"][0]["actions"]:
                kind, source = kinds[action["repository"]], run["rule"].removesuffix("-foreign")
                is_copied = action["outcome"] == "copied" and action["digest"] == self.images[kind].digest
                found[source, kind] = "copied" if is_copied else f"{action['outcome']}: {action['reason']}"
        again = await self.program("sync", "--json", "--recheck", environ=ENVIRON)
        assert again.json["totals"]["tags"]["copied"] == 0, again.stdout
        return found


async def put(repository: Repository, kind: str, built: BuiltImage) -> bool:
    """Whether the repository took it."""
    try:
        if kind == COPIED:
            await repository.write_blob(BytesSource(BASE))
        await put_image(repository, built, "v1")
        # A registry that names it otherwise does not have it.
        return (await repository.resolve("v1")).digest == built.digest
    except SiteError:
        return False


@contextmanager
def vendor() -> Iterator[str]:
    """The URL of a layer that no registry has."""

    class Serving(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert "Authorization" not in self.headers
            self.send_response(200)
            self.send_header("Content-Length", str(len(FAR)))
            self.end_headers()
            self.wfile.write(FAR)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Serving) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/base"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
async def made(tmp_path: Path, versitygw_endpoint: str) -> AsyncIterator[World]:
    name = f"bucket-{secrets.token_hex(6)}"
    async with raw_client(versitygw_endpoint) as client:
        await client.create_bucket(Bucket=name)
    folders = {each: tmp_path / each for each in REGISTRIES}
    for folder in folders.values():
        folder.mkdir()
    urls = {"manifests": {"urls": {"allow": ["^http://127"]}}}
    with ExitStack() as stack:
        url = stack.enter_context(vendor())
        servers = {
            "d2": distribution(folders["d2"], validation=urls, compatibility={"schema1": {"enabled": True}}),
            "d3": distribution(folders["d3"], program="registry", validation=urls),
            "olareg": olareg(folders["olareg"]),
            "zot": zot(folders["zot"]),
        }
        reader = {
            "s3": {**s3_driver(versitygw_endpoint, name), "rootdirectory": "/to-all"},
            "redirect": {"disable": True},
        }
        (tmp_path / "reader").mkdir()
        at_bucket = stack.enter_context(distribution(tmp_path / "reader", driver=reader))
        running = {each: stack.enter_context(server) for each, server in servers.items()}
        sites: dict[str, str] = {}
        for prefix in ("", "to-"):
            for each, server in running.items():
                sites[f"{prefix}{each}"] = f'[site.{prefix}{each}]\nurl = "{server.url}"\n'
            at = f"s3://{name}/{prefix}all"
            sites[f"{prefix}bucket"] = bucket(f"{prefix}bucket", versitygw_endpoint, at)
            sites[f"{prefix}directory"] = directory(f"{prefix}directory", tmp_path / f"{prefix}directory")
        images = {kind: build() for kind, build in KINDS.items()}
        images |= {LEFT_OUT: foreign(url, FAR), COPIED: foreign(url, BASE), BY_URL: foreign(url, FAR)}
        hosts = {each: server.host for each, server in running.items()} | {"bucket": at_bucket.host}
        world = World(Program(tmp_path), sites, hosts, images)
        world.config()
        for source in PLACES:
            await world.fill(source)
        yield world


def said(*command: str, cwd: Path) -> bytes:
    """What a program says; b"" where it fails."""
    done = subprocess.run(
        [require(command[0]), *command[1:]],
        capture_output=True,
        check=False,
        timeout=60,
        cwd=cwd,
        env=clean_environment() | {"HOME": str(cwd)},
    )
    return done.stdout if done.returncode == 0 else b""


def is_blind(destination: str, kind: str, witness: str) -> bool:
    """Whether a program cannot read what is there; docs/content.md says so."""
    if kind == "blobs by sha512":
        return witness == "oras cp" and destination in {"d2", "d3"}
    if kind == "Docker schema 1":
        return witness.startswith("oras")
    return witness == "skopeo" and destination == "directory" and kind in DOCKER


def outcome_of(found: Mapping[tuple[str, str], str], kind: str, sources: Sequence[str]) -> str:
    """What became of a kind, from whatever source; AssertionError where sources differ, or a hold has no good reason."""
    outcomes = {source: found.get((source, kind), "not even tried") for source in sources}
    words = {text.partition(":")[0] for text in outcomes.values()}
    assert len(words) == 1, f"{kind}: {outcomes}"
    [word] = words
    assert word in {"copied", "held"}, f"{kind}: {outcomes}"
    for text in outcomes.values():
        assert word == "copied" or any(reason in text for reason in REASONS), text
    return word


def table(rows: Mapping[str, Mapping[str, str]]) -> str:
    """As it is in docs/content.md."""
    lines = [" | ".join(["", "kind", *PLACES.values(), ""]), "|---" * (len(PLACES) + 1) + "|"]
    for kind, row in rows.items():
        lines.append(" | ".join(["", kind, *(row[place] for place in PLACES), ""]))
    return "\n".join(line.strip() for line in lines)


async def test_every_kind_of_content_between_every_pair(made: World) -> None:
    folder = made.program.folder / "witnesses"
    folder.mkdir()
    rows: dict[str, dict[str, str]] = {kind: {} for kind in made.images}
    wrong: list[str] = []
    for number, destination in enumerate(PLACES):
        found = await made.sync(destination)
        if destination in made.hosts:
            said("regctl", "registry", "set", "--tls=disabled", made.hosts[destination], cwd=folder)
        for kind, built in made.images.items():
            sources = [source for source in PLACES if kind in made.has[source]]
            rows[kind][destination] = outcome_of(found, kind, sources)
            if rows[kind][destination] == "copied":
                source = sources[number % len(sources)]
                name = f"from-{source}/{repository_of(kind)}"
                wrong += [
                    f"{destination}: {kind} from {source}: {witness}"
                    for witness, body in made.seen(destination, name, folder).items()
                    if not is_blind(destination, kind, witness)
                    and body != built.manifest.body
                    and (not body or signed_digest(body) != built.digest)
                ]
    seen = table(rows)
    assert not wrong, "\n".join([*wrong, seen])
    assert seen in DOCS.read_text(), seen
