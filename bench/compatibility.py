"""What each program makes of the habits of registries: one repository copied, with one habit at one side.

`make bench only=compatibility`: writes the table of `docs/compatibility.md`.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp.typedefs import Middleware

from bench.compare import Bench
from bench.programs import finished, program
from bench.rows import Row
from replicator.demo.images import image, layer, load
from tests.fakes import habits, places
from tests.fakes.auth import Basic, Bearer
from tests.fakes.registry import Auth, FakeRegistry
from tests.fakes.watched import WatchedStore

NAME: Final = "compatibility"
PAGE: Final = Path(__file__).parent.parent / "docs" / "compatibility.md"
SECONDS: Final = 20.0
TAGS: Final = 5
REPOSITORY: Final = "team/app"
USER, PASSWORD = "mirror", "secret-pw"

Make = Callable[[], Middleware]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A habit of one side, in words, and who may do what there."""

    words: str
    quirks: Sequence[Make] = ()
    at: str = "source"
    auth: Callable[[], Auth] | None = None


def _hidden(user: str, scope: str) -> str:
    return scope if user and "push" in scope else ""


def _head(status: int) -> Behaviour:
    return Behaviour(
        f"HEAD of manifests answers {status}, GET is right", [lambda: habits.heads_answered(status)]
    )


def _n_refused(request_status: int) -> Behaviour:
    return Behaviour(
        f"listings refuse a page size with {request_status}",
        [lambda: habits.answers(lambda request: "n" in request.query, request_status)],
    )


BEHAVIOURS: Final = (
    Behaviour("nothing odd"),
    _head(401),
    _head(403),
    _head(404),
    _head(405),
    _head(500),
    Behaviour("HEAD of manifests answers with a web page", [lambda: habits.heads_answered(200, html=True)]),
    Behaviour("no digest in the answer to HEAD (Artifactory)", [habits.artifactory]),
    Behaviour("pages of two tags, relative Link", [lambda: habits.page_size(2)]),
    Behaviour("pages of two tags, Link names an inner host", [lambda: habits.page_size(2, link="foreign")]),
    _n_refused(400),
    _n_refused(405),
    Behaviour("blobs are redirected to signed URLs", [places.blobs_in_storage]),
    Behaviour("20 requests a second are let through, else 429", [lambda: habits.rate_limit(20)]),
    Behaviour("20 requests a second are let through, else 503", [lambda: habits.rate_limit(20, status=503)]),
    Behaviour("every third connection dies", [lambda: habits.drops_every(3)]),
    Behaviour(
        "unknown repositories answer 401", [lambda: habits.hides_unknown_repositories(401)], "destination"
    ),
    Behaviour(
        "unknown repositories answer 403", [lambda: habits.hides_unknown_repositories(403)], "destination"
    ),
    Behaviour(
        "the token service shows only what exists",
        at="destination",
        auth=lambda: Bearer({USER: PASSWORD}, grant=_hidden),
    ),
    Behaviour("tags are not listed: 403", [lambda: habits.no_tags_list(403)], "destination"),
    Behaviour("tags are not listed: 405", [lambda: habits.no_tags_list(405)], "destination"),
    Behaviour("what was pushed may not be pulled: 412 (Harbor)", [habits.pull_policy], "destination"),
    Behaviour("Basic authentication", at="destination", auth=lambda: Basic({USER: PASSWORD})),
    Behaviour("opaque, outdated upload states", [places.stateful_locations], "destination"),
    Behaviour("uploads go to another host", [places.uploads_in_storage], "destination"),
    Behaviour("no Location, only an upload's id", [places.no_location], "destination"),
    Behaviour("bodies over 100 kB are cut off", [lambda: habits.cuts_large_bodies(100_000)], "destination"),
    Behaviour(
        "20 requests a second are let through, else 429", [lambda: habits.rate_limit(20)], "destination"
    ),
    Behaviour("every third connection dies", [lambda: habits.drops_every(3)], "destination"),
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, and its commands that copy all tags of the repository from a host to a host."""

    name: str
    commands: Callable[[str, str, Path], list[list[str]]]


def _ours(source: str, destination: str, folder: Path) -> list[list[str]]:
    config = (
        f'[agent]\nstate = "sqlite:///{folder}/state.db"\n[site.source]\nurl = "http://{source}"\n'
        f'[site.destination]\nurl = "http://{destination}"\n[[rule]]\nname = "all"\nsource = "source"\n'
        f'destinations = ["destination"]\nrepositories = ["{REPOSITORY}"]\n'
    )
    (folder / "replicator.toml").write_text(config)
    return [["replicator", "-c", str(folder / "replicator.toml"), "sync"]]


def _skopeo(source: str, destination: str, folder: Path) -> list[list[str]]:
    (folder / "skopeo.yml").write_text(
        json.dumps({source: {"tls-verify": False, "images": {REPOSITORY: []}}})
    )
    argv = ["skopeo", "sync", "--dest-tls-verify=false", "--src", "yaml", "--dest", "docker"]
    return [[*argv, str(folder / "skopeo.yml"), f"{destination}/{REPOSITORY.partition('/')[0]}"]]


def _crane(source: str, destination: str, _: Path) -> list[list[str]]:
    return [
        ["crane", "copy", "--insecure", "--all-tags", f"{source}/{REPOSITORY}", f"{destination}/{REPOSITORY}"]
    ]


def _regctl(source: str, destination: str, _: Path) -> list[list[str]]:
    hosts = [word for host in (source, destination) for word in ("--host", f"reg={host},tls=disabled")]
    images = [
        (f"{source}/{REPOSITORY}:v{number}", f"{destination}/{REPOSITORY}:v{number}")
        for number in range(TAGS)
    ]
    return [["regctl", *hosts, "image", "copy", one, other] for one, other in images]


def _regsync(source: str, destination: str, folder: Path) -> list[list[str]]:
    body = {
        "version": 1,
        "creds": [{"registry": host, "tls": "disabled"} for host in (source, destination)],
        "sync": [
            {
                "source": f"{source}/{REPOSITORY}",
                "target": f"{destination}/{REPOSITORY}",
                "type": "repository",
            }
        ],
    }
    (folder / "regsync.yml").write_text(json.dumps(body))
    return [["regsync", "once", "-c", str(folder / "regsync.yml")]]


TOOLS: Final = (
    Tool("replicator", _ours),
    Tool("skopeo", _skopeo),
    Tool("crane", _crane),
    Tool("regctl", _regctl),
    Tool("regsync", _regsync),
)


def _fake(behaviour: Behaviour, at: str) -> FakeRegistry:
    mine = behaviour if behaviour.at == at else Behaviour("")
    store = WatchedStore(refuses_dangling=False)
    return FakeRegistry(
        *[make() for make in mine.quirks], store=store, auth=mine.auth() if mine.auth else None
    )


async def copied(tool: Tool, behaviour: Behaviour, folder: Path) -> int:
    """How many of the tags are right at the destination when the program has ended."""
    async with _fake(behaviour, "source") as source, _fake(behaviour, "destination") as destination:
        for number in range(TAGS):
            built = image(f"image {number}", [layer(f"layer {number}", 150_000)])
            load(source.store, REPOSITORY, f"v{number}", built)
        hosts = source.url.removeprefix("http://"), destination.url.removeprefix("http://")
        _login(folder, hosts)
        for argv in tool.commands(*hosts, folder):
            await finished(argv, folder, SECONDS)
        content = destination.store.repositories.get(REPOSITORY)
        wanted = source.store.repositories[REPOSITORY].tags
        return (
            0 if content is None else sum(content.tags.get(tag) == digest for tag, digest in wanted.items())
        )


def _login(folder: Path, hosts: Sequence[str]) -> None:
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    docker = folder / ".docker"
    docker.mkdir()
    (docker / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth} for host in hosts}}))


def page(tools: Sequence[str], results: Sequence[tuple[Behaviour, Sequence[int]]]) -> str:
    """The table as Markdown."""
    head = f"| behaviour | at | {' | '.join(tools)} |\n|---|---|{'---|' * len(tools)}\n"
    lines = [
        f"| {behaviour.words} | {behaviour.at} | {' | '.join('yes' if n == TAGS else f'{n} of {TAGS}' for n in counts)} |\n"
        for behaviour, counts in results
    ]
    return (
        "# Compatibility\n\n"
        "What each program can copy from or to a registry with one unusual behavior, of those that are found in practice. `yes`:\n"
        f"all {TAGS} tags of a repository arrived with their digests; otherwise the number that did.\n\n"
        "Measured by `make bench only=compatibility`, with the programs on that machine and the fake registries of `tests/fakes`.\n"
        "The conformance suite (`tests/conformance/test_combinations.py`) tests all pairs of behaviors.\n\n"
        + head
        + "".join(lines)
    )


async def compatibility(bench: Bench) -> list[Row]:
    """Every behaviour with every program that is there; writes the page. There are no figures to compare."""
    tools = [tool for tool in TOOLS if shutil.which(program(tool.name))]
    results = []
    for behaviour in BEHAVIOURS:
        counts = []
        for tool in tools:
            with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
                counts.append(await copied(tool, behaviour, Path(folder)))
        bench.tell(
            f"{behaviour.words} ({behaviour.at}): {dict(zip([t.name for t in tools], counts, strict=True))}"
        )
        results.append((behaviour, counts))
    PAGE.write_text(page([tool.name for tool in tools], results))
    return []
