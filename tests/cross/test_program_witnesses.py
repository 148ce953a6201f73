"""What `replicator sync` and `copy` leave in real registries is what skopeo and podman find there."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from replicator.demo.images import ARM64, BuiltImage, image, index, layer
from tests.acceptance.program import Program
from tests.acceptance.walker import Images, fill
from tests.cross.test_layout_witnesses import skopeo
from tests.cross.witness import podman_pull, skopeo_copy_to_layout
from tests.fakes.content import docker_image, docker_list
from tests.fakes.distribution import PASSWORD, USER, Server

SHARED = layer("shared by the program's", 70_000)
IMAGE = image("program", [SHARED, layer("program/own")])
ARM = image("program on arm", [SHARED], platform=ARM64)
DOCKER = docker_image("program")
IMAGES: dict[str, BuiltImage] = {
    "v1": IMAGE,
    "multi": index([IMAGE, ARM]),
    "docker": DOCKER,
    "docker-list": docker_list(DOCKER, docker_image("another")),
}
SERVERS = ["docker_registry", "htpasswd_registry", "token_registry", "tls_registry"]


def images(repository: str) -> Images:
    """The images, in a repository."""
    return {(repository, tag): built for tag, built in IMAGES.items()}


def site(name: str, server: Server) -> str:
    """The server as a site of a config, its password in a file."""
    lines = [f"[site.{name}]", f'url = "{server.url}"']
    if server.login is not None:
        lines += [f'username = "{server.login[0]}"', 'password = { file = "password" }']
    if server.ca is not None:
        lines.append(f'tls = {{ ca = "{server.ca}" }}')
    return "\n".join(lines) + "\n"


def reached(server: Server, folder: Path, prefix: str = "") -> Sequence[str]:
    """How skopeo is told to reach the server."""
    options = []
    if server.login is not None:
        options.append(f"--{prefix}creds={':'.join(server.login)}")
    if server.ca is None:
        return [*options, f"--{prefix}tls-verify=false"]
    certificates = folder / "certificates"
    certificates.mkdir(exist_ok=True)
    (certificates / "ca.crt").write_bytes(server.ca.read_bytes())
    return [*options, f"--{prefix}cert-dir={certificates}"]


def found(server: Server, repository: str, folder: Path) -> dict[str, bytes]:
    """The manifests by tag as skopeo has them; it reads and verifies what the lists name, all the rest among it."""
    at = f"docker://{server.host}/{repository}"
    tags = json.loads(skopeo("list-tags", *reached(server, folder), at))["Tags"]
    lists = [tag for tag in tags if IMAGES[tag].children and len(tags) > 1]
    for tag in lists or tags:
        into = folder / "read" / repository / tag
        into.mkdir(parents=True)
        skopeo("copy", "--all", *reached(server, folder, "src-"), f"{at}:{tag}", f"dir:{into}")
    return {tag: skopeo("inspect", "--raw", *reached(server, folder), f"{at}:{tag}") for tag in tags}


def bodies(tags: Sequence[str] = tuple(IMAGES)) -> dict[str, bytes]:
    """What must be found."""
    return {tag: IMAGES[tag].manifest.body for tag in tags}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "password").write_text(PASSWORD)
    return Program(tmp_path)


async def sync(program: Program, hub: Server, fra: Server, repository: str, prefix: str) -> None:
    program.write_config(
        {},
        site("hub", hub)
        + site("fra", fra)
        + f'[[rule]]\nname = "all"\nsource = "hub"\ndestinations = ["fra"]\n'
        f'repositories = ["{repository}"]\nrename = {{ prefix = "{prefix}/" }}\n',
    )
    ended = await program("sync", "--json")
    assert ended.code == 0, ended.stderr
    assert ended.json["totals"]["tags"]["copied"] == len(IMAGES)
    again = await program("sync", "--json")
    assert again.json["totals"]["tags"]["unchanged"] == len(IMAGES)
    assert PASSWORD not in ended.stdout + ended.stderr


@pytest.mark.parametrize("server", SERVERS)
async def test_skopeo_finds_what_sync_brought_to_a_registry(
    server: str, docker_registry: Server, program: Program, request: pytest.FixtureRequest
) -> None:
    fra: Server = request.getfixturevalue(server)
    await fill(docker_registry.settings(), images("program/sync"))
    await sync(program, docker_registry, fra, "program/sync", "brought")
    assert found(fra, "brought/program/sync", program.folder) == bodies()


@pytest.mark.parametrize("server", SERVERS[1:])
async def test_skopeo_finds_what_sync_brought_from_a_registry(
    server: str, own_docker_registry: Server, program: Program, request: pytest.FixtureRequest
) -> None:
    hub: Server = request.getfixturevalue(server)
    await fill(hub.settings(), images("program/sync"))
    await sync(program, hub, own_docker_registry, "program/sync", server.replace("_", "-"))
    assert found(own_docker_registry, f"{server.replace('_', '-')}/program/sync", program.folder) == bodies()


async def test_layout_by_skopeo_and_pull_by_podman(docker_registry: Server, program: Program) -> None:
    await fill(docker_registry.settings(), images("program/pulled"))
    await sync(program, docker_registry, docker_registry, "program/pulled", "here")
    at = f"{docker_registry.host}/here/program/pulled"
    for tag in ("v1", "multi"):
        skopeo_copy_to_layout(f"{at}:{tag}", program.folder / "layout", tag)
    copied = json.loads((program.folder / "layout" / "index.json").read_bytes())["manifests"]
    assert {entry["digest"] for entry in copied} == {IMAGES["v1"].digest, IMAGES["multi"].digest}
    for tag, built in {"v1": IMAGE, "multi": IMAGE, "docker": DOCKER}.items():
        config = built.manifest.config
        assert config is not None
        assert podman_pull(f"{at}:{tag}") == config.digest.partition(":")[2]


@pytest.mark.parametrize("server", SERVERS)
async def test_skopeo_finds_what_copy_brought(
    server: str, docker_registry: Server, program: Program, request: pytest.FixtureRequest
) -> None:
    fra: Server = request.getfixturevalue(server)
    await fill(docker_registry.settings(), images("program/copy"))
    (program.folder / ".docker").mkdir()
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    logins = {"auths": {fra.host: {"auth": auth}}} if fra.login else {}
    (program.folder / ".docker" / "config.json").write_text(json.dumps(logins))
    insecure = ["--insecure"] if fra.ca else []
    source = f"{docker_registry.host}/program/copy"
    target = f"{fra.host}/copied/{server.replace('_', '-')}"

    one = await program("copy", f"{source}:docker-list", f"{target}/one", *insecure)
    assert one.code == 0, one.stderr
    assert found(fra, f"copied/{server.replace('_', '-')}/one", program.folder) == bodies(["docker-list"])

    child = await program(
        "copy", f"{source}:multi", f"{target}/child", "--platform", "linux/arm64", *insecure
    )
    assert child.code == 0, child.stderr
    name = f"copied/{server.replace('_', '-')}/child"
    assert found(fra, name, program.folder) == {"multi": ARM.manifest.body}

    every = await program("copy", "--all-tags", source, f"{target}/every", *insecure)
    assert every.code == 0, every.stderr
    assert found(fra, f"copied/{server.replace('_', '-')}/every", program.folder) == bodies()
