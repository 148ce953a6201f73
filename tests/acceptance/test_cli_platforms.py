"""What other commands make of images of which only some platforms were copied."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replicator.demo.images import AMD64, ARM64, image, index, load
from tests.acceptance.program import Program
from tests.fakes.registry import FakeRegistry

BOTH = index([image("amd64", platform=AMD64), image("arm64", platform=ARM64)])
AMD, ARM = BOTH.children
RULE = """
[[rule]]
name = "amd"
source = "hub"
destinations = ["shelf"]
repositories = ["app"]
platforms = ["linux/amd64"]
platform_mode = "{mode}"
"""


@pytest.fixture
async def program(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Program]:
    program = Program(tmp_path)
    async with FakeRegistry() as hub:
        load(hub.store, "app", "v1", BOTH)
        sites = {"hub": hub.url, "shelf": f"file://{tmp_path}/shelf"}
        program.write_config(sites, RULE.format(mode=request.param))
        ended = await program("sync")
        assert ended.code == 0, ended.stderr
        yield program


@pytest.mark.parametrize("program", ["sparse"], indirect=True)
async def test_a_sparse_index_is_the_sources_and_its_missing_platforms_are_named(program: Program) -> None:
    assert (await program("diff", "hub", "shelf", "app")).code == 0
    inspected = await program("inspect", "shelf/app:v1")
    assert inspected.code == 0, inspected.stderr
    amd, arm = (
        next(line for line in inspected.stdout.splitlines() if each.digest in line) for each in (AMD, ARM)
    )
    assert "absent" in arm
    assert "absent" not in amd
    assert "1 of 2 are absent: a sparse index" in inspected.stdout
    described = (await program("inspect", "shelf/app:v1", "--json")).json
    assert [each["absent"] for each in described["platforms"]] == [False, True]
    found = await program("search", "app", "--fresh")
    assert "differs" not in found.stdout


@pytest.mark.parametrize("program", ["sparse"], indirect=True)
async def test_from_a_sparse_index_only_what_is_there_can_be_copied(program: Program) -> None:
    origin, target = f"file://{program.folder}/shelf//app:v1", f"oci:{program.folder}/other"
    whole = await program("copy", origin, f"{target}:whole")
    assert whole.code == 1
    assert f"no manifest {ARM.digest}" in whole.stderr
    one = await program("copy", "--platform", "linux/amd64", origin, f"{target}:one", "--json")
    assert one.code == 0, one.stderr
    [action] = one.json["rules"][0]["destinations"][0]["actions"]
    assert action["digest"] == AMD.digest


@pytest.mark.parametrize("program", ["rewrite"], indirect=True)
async def test_a_rewritten_index_is_known_to_those_who_know_the_rule(program: Program) -> None:
    assert (await program("diff", "hub", "shelf", "app")).code == 3
    assert (await program("inspect", "shelf/app:v1")).code == 0
    fresh, known = await program("search", "app", "--fresh"), await program("search", "app")
    assert "differs" not in fresh.stdout
    assert known.code == 0
    assert "differs" not in known.stdout
    where = await program("where", "app:v1")
    assert where.code == 0, where.stderr
    assert {line.split()[0] for line in where.stdout.splitlines()} == {"hub/app:v1", "shelf/app:v1"}


@pytest.mark.parametrize("program", ["sparse"], indirect=True)
async def test_an_index_of_which_nothing_is_there_is_an_error(program: Program) -> None:
    digest = AMD.digest.partition(":")[2]
    (program.folder / "shelf" / "app" / "blobs" / "sha256" / digest).unlink()
    inspected = await program("inspect", "shelf/app:v1")
    assert inspected.code == 1
    assert f"no manifest {ARM.digest}" in inspected.stderr


async def test_search_reads_no_index_of_which_no_destination_has_a_copy(tmp_path: Path) -> None:
    program = Program(tmp_path)
    async with FakeRegistry() as hub:
        load(hub.store, "app", "v1", BOTH)
        sites = {"hub": hub.url, "shelf": f"file://{tmp_path}/shelf"}
        program.write_config(sites, RULE.format(mode="rewrite"))
        found = await program("search", "app", "--fresh")
        assert "app:v1" in found.stdout, found.stderr
        assert hub.count("GET", "/manifests/") == 0


@pytest.mark.parametrize(
    ("sparse", "answer"),
    [
        ("yes", "accepted"),
        ("no", 'refused, such images are held; set platform_mode = "rewrite" in rule some, other'),
        (
            "try",
            'not known until the first push; if they are refused, set platform_mode = "rewrite" in rule some, other',
        ),
    ],
)
async def test_check_says_whether_a_registry_takes_sparse_indexes(
    tmp_path: Path, sparse: str, answer: str
) -> None:
    program = Program(tmp_path)
    named = RULE.replace("shelf", "fra")
    rules = [named.replace('"amd"', f'"{name}"').format(mode="sparse") for name in ("some", "other")]
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        load(hub.store, "app", "v1", BOTH)
        program.write_config({"hub": hub.url, "fra": fra.url}, "".join(rules))
        config = tmp_path / "replicator.toml"
        text = config.read_text()
        config.write_text(
            text.replace(f'url = "{fra.url}"', f'url = "{fra.url}"\ncapabilities = {{ sparse = "{sparse}" }}')
        )
        ended = await program("check", "--json")
        assert ended.code == 0, ended.stderr
        findings = {site["site"]: site["findings"] for site in ended.json["sites"]}
        assert findings["fra"]["sparse indexes"] == answer
        assert "sparse indexes" not in findings["hub"]
        config.write_text(config.read_text().replace('platform_mode = "sparse"', 'platform_mode = "rewrite"'))
        rewritten = await program("check")
        assert "sparse indexes" not in rewritten.stdout
