"""`replicator images`, as a user runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replicator.demo.images import image, load
from tests.acceptance.program import Program
from tests.fakes.registry import FakeRegistry


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


async def test_images_with_file_and_line_and_problems_on_stderr(program: Program) -> None:
    (program.folder / "list.txt").write_text("nginx\nquay.io/a/b:1\nnot an image\nquay.io/a/b:1\n")
    ended = await program("images", "list.txt")
    assert ended.code == 1
    assert [line.split() for line in ended.stdout.splitlines()] == [
        ["docker.io/library/nginx:latest", "list.txt:1"],
        ["quay.io/a/b:1", "list.txt:2,", "list.txt:4"],
    ]
    assert ended.stderr.splitlines() == [
        "error: list.txt:3: one image a line is expected, not 3 words: 'not an image'"
    ]


async def test_with_a_config_hosts_are_sites(program: Program) -> None:
    program.write_config({"hub": "https://registry-1.docker.io", "k8s": "https://registry.k8s.io"}, "")
    (program.folder / "list.txt").write_text("nginx:1\nregistry.k8s.io/pause:3.10\nquay.io/a/b:1\n")
    ended = await program("images", "list.txt", "--json")
    assert ended.code == 1
    assert [(image["reference"], image["sites"]) for image in ended.json["images"]] == [
        ("docker.io/library/nginx:1", ["hub"]),
        ("registry.k8s.io/pause:3.10", ["k8s"]),
        ("quay.io/a/b:1", []),
    ]
    assert ended.json["problems"] == [
        {"file": "list.txt", "line": 3, "text": "quay.io/a/b:1: no site has the host quay.io"}
    ]


async def test_a_list_from_stdin(program: Program) -> None:
    (program.folder / "list.txt").write_text("a/b:1\n")
    shell = ("/bin/sh", "-c", 'exec "$@" <list.txt', "sh")
    ended = await program("images", "-", prefix=shell)
    assert (ended.code, ended.stdout.split()) == (0, ["docker.io/a/b:1", "<stdin>:1"])


async def test_a_path_that_is_wrong_is_a_usage_error(program: Program) -> None:
    ended = await program("images", "x", "--image-path", "{.spec[}")
    assert ended.code == 2
    assert "JSONPath" in ended.stderr


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        for name in ("rancher/shell", "rancher/agent", "other/app"):
            for tag in ("v1", "v2"):
                load(registry.store, name, tag, image(f"{name} {tag}"))
        yield registry


@pytest.fixture
async def fra() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


def held(registry: FakeRegistry) -> set[str]:
    names = registry.store.repositories
    return {f"{name}:{tag}" for name in names for tag in registry.store.content(name).tags}


async def test_a_rule_takes_its_images_from_lists_that_are_read_for_each_run(
    program: Program, hub: FakeRegistry, fra: FakeRegistry
) -> None:
    host = hub.url.partition("://")[2]
    lists = program.folder / "images.txt"
    lists.write_text(f"{host}/rancher/shell:v1\n{host}/rancher/gone:v1\nelsewhere.example/a:1\nbad image\n")
    rules = '[[rule]]\nname = "rancher"\ndestinations = ["fra"]\nimages = { files = ["images.txt"] }\n'
    program.write_config({"hub": hub.url, "fra": fra.url}, rules)
    ended = await program("sync", "--json")
    assert ended.code == 1
    assert held(fra) == {"rancher/shell:v1"}
    assert not [each for each in hub.requests if "_catalog" in each.path or "tags/list" in each.path]
    (rule,) = [each for each in ended.json["rules"] if each["rule"] == "rancher@hub"]
    causes = [failure["cause"] for failure in rule["destinations"][0]["failures"]]
    assert any("images.txt:3" in cause and "elsewhere.example" in cause for cause in causes)
    assert any("images.txt:4" in cause for cause in causes)
    assert any("images.txt:2: tag v1: 404" in cause for cause in causes)  # rancher/gone
    lists.write_text(f"{host}/rancher/shell:v1\n{host}/rancher/agent:v2\n")
    again = await program("sync", "--rule", "rancher")
    assert again.code == 0, again.stderr
    assert held(fra) == {"rancher/shell:v1", "rancher/agent:v2"}


async def test_a_digest_in_a_list_is_pinned_under_its_tag(
    program: Program, hub: FakeRegistry, fra: FakeRegistry
) -> None:
    host = hub.url.partition("://")[2]
    older = image("rancher/shell v1")
    load(hub.store, "rancher/shell", "v1", image("moved on"))
    (program.folder / "images.txt").write_text(f"{host}/rancher/shell:v1@{older.digest}\n")
    rules = (
        '[[rule]]\nname = "r"\nsource = "hub"\ndestinations = ["fra"]\nimages = { files = ["images.txt"] }\n'
    )
    program.write_config({"hub": hub.url, "fra": fra.url}, rules)
    assert (await program("sync")).code == 0
    assert fra.store.content("rancher/shell").tags["v1"] == older.digest


async def test_images_option_narrows_a_run_and_leaves_what_is_believed_of_the_rest(
    program: Program, hub: FakeRegistry, fra: FakeRegistry
) -> None:
    host = hub.url.partition("://")[2]
    rules = (
        '[[rule]]\nname = "r"\nsource = "hub"\ndestinations = ["fra"]\nrepositories = ["rancher/*"]\n'
        'tags = { include = ["v1"] }\nrename = { prefix = "m/" }\n'
    )
    program.write_config({"hub": hub.url, "fra": fra.url}, rules)
    (program.folder / "list.txt").write_text(f"{host}/other/app:v2\nquay.io/a/b:1\n")
    planned = await program("plan", "--images", "list.txt")
    assert planned.code == 1
    assert "other/app" in planned.stdout
    assert "quay.io" in planned.stderr
    assert not held(fra)
    ended = await program("sync", "--images", "list.txt")
    assert ended.code == 1  # quay.io is nobody's source
    assert held(fra) == {"m/other/app:v2"}
    assert (await program("sync")).code == 0
    assert held(fra) == {"m/other/app:v2", "m/rancher/shell:v1", "m/rancher/agent:v1"}
    exported = await program("export", "--rule", "r", "--images", "list.txt", "out.tar", "--json")
    assert exported.json["totals"]["tags"]["copied"] == 1


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ('repositories = ["a"]\nimages = { files = ["x"] }', "cannot be combined with repositories"),
        ('tags = { include = ["a"] }\nimages = { files = ["x"] }', "the lists name the tags"),
        ("", "is required, unless images names lists"),
        ('images = { files = ["https://example.com/x"] }', "is not a file, glob or directory"),
        ('images = { files = ["x"], paths = ["{.a[}"] }', "JSONPath"),
    ],
)
async def test_a_rule_with_contradictions_says_what_would_be_right(
    program: Program, more: str, problem: str
) -> None:
    rules = f'[[rule]]\nname = "r"\nsource = "hub"\ndestinations = ["fra"]\n{more}\n'
    program.write_config({"hub": "https://hub.example", "fra": "https://fra.example"}, rules)
    ended = await program("config", "show")
    assert ended.code == 2
    assert problem in ended.stderr
