"""Signatures, on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.demo.images import image
from tests.acceptance.program import Program
from tests.acceptance.walker import fill
from tests.fakes.distribution import Server
from tests.fakes.signing import PROVENANCE, Signer, att_tag, legacy, payload, sig_tag

KEY, OTHER = Signer.ecdsa(), Signer.ecdsa()
APP = image("to be trusted")
PREFIX = APP.digest.replace(":", "-")


@pytest.fixture
async def program(own_docker_registry: Server, tmp_path: Path) -> Program:
    images = {
        ("team/app", "v1"): APP,
        ("team/app", f"{PREFIX}.sig"): sig_tag(
            legacy(OTHER, payload(APP.digest)),
            legacy(KEY, payload(APP.digest, "registry.example.com/team/app")),
        ),
        ("team/app", f"{PREFIX}.att"): att_tag(b"not an envelope"),
    }
    await fill(own_docker_registry.settings(), images)
    (tmp_path / "key.pub").write_bytes(KEY.pem)
    program = Program(tmp_path)
    trust = '[[rule.trust]]\nname = "release"\nkeys = ["key.pub"]\nidentity = "repository"\n'
    program.write_config(
        {"hub": own_docker_registry.url, "shelf": f"file://{tmp_path}/shelf"},
        '[[rule]]\nname = "app"\nsource = "hub"\ndestinations = ["shelf"]\nrepositories = ["team/*"]\n'
        + trust,
    )
    return program


async def test_each_signature_is_explained(program: Program, tmp_path: Path) -> None:
    told = await program("verify-signature", "--rule", "app", "hub/team/app:v1")
    assert told.code == 0, told.stderr
    assert "policy    release: a signature by key.pub (ECDSA P-256), for this repository" in told.stdout
    assert f"  counts  tag {PREFIX}.sig layer 2: signed by key.pub (ECDSA P-256 with SHA-256)" in told.stdout
    assert f"  void    tag {PREFIX}.sig layer 1: not signed by key.pub" in told.stdout
    assert f"  void    tag {PREFIX}.att: the envelope is not valid JSON" in told.stdout
    assert told.stdout.endswith("\ntrusted\n")


async def test_an_untrusted_image_is_exit_code_3_with_the_reason(program: Program, tmp_path: Path) -> None:
    (tmp_path / "other.pub").write_bytes(Signer.ecdsa().pem)
    told = await program(
        "verify-signature", "--json", "--key", str(tmp_path / "other.pub"), "hub/team/app:v1"
    )
    assert told.code == 3, told.stderr
    assert told.json["trusted"] is False
    assert "no valid signature" in told.json["reason"]
    assert {finding["counts"] for finding in told.json["findings"]} == {False}
    assert len(told.json["findings"]) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["hub/team/app:v1"], 2, "give either --key FILE"),
        (["--rule", "app", "--attestation", PROVENANCE, "hub/team/app:v1"], 2, "give either --key FILE"),
        (["--rule", "none", "hub/team/app:v1"], 2, "unknown rule; the config has app"),
        (["--key", "missing.pub", "hub/team/app:v1"], 2, "missing.pub: cannot be read: No such file"),
        (["--rule", "app", "hub/team/app:v9"], 1, "v9"),
    ],
)
async def test_mistakes_are_named(program: Program, arguments: list[str], code: int, says: str) -> None:
    told = await program("verify-signature", *arguments)
    assert told.code == code
    assert says in told.stderr


async def test_what_is_demanded_of_a_rule_decides_what_sync_copies(program: Program, tmp_path: Path) -> None:
    ended = await program("sync", "--json")
    assert ended.json["totals"]["tags"]["copied"] == 1, ended.stdout
    (tmp_path / "key.pub").write_bytes(Signer.ecdsa().pem)
    explained = await program("plan", "--json")
    assert explained.json["rules"][0]["destinations"][0]["actions"] == []  # what is there stays


async def test_why_says_that_a_tag_is_held_for_trust(program: Program, tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_bytes(Signer.ecdsa().pem)
    ended = await program("sync", "--json")
    tags = [each["tag"] for each in ended.json["rules"][0]["destinations"][0]["actions"]]
    assert ended.json["totals"]["tags"]["held"] == len(tags) > 0
    for tag in tags:
        why = await program("why", f"hub/team/app:{tag}")
        assert why.code == 3
        assert "x held: not trusted: " in why.stdout


async def test_a_rule_of_image_lists_is_named_as_in_the_config(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "replicator.toml"
    config = path.read_text()
    host = config.partition('url = "http://')[2].partition('"')[0]
    (tmp_path / "images.txt").write_text(f"{host}/team/app:v1\n")
    listed = (
        '[[rule]]\nname = "listed"\ndestinations = ["fra"]\nimages = { files = ["images.txt"] }\n'
        '[[rule.trust]]\nname = "release"\nkeys = ["key.pub"]\n'
    )
    sites, _, _ = config.partition("[[rule]]")
    path.write_text(f'{sites}[site.fra]\nurl = "https://fra.example.com"\n{listed}')
    told = await program("verify-signature", "--rule", "listed", "hub/team/app:v1")
    assert told.code == 0, told.stderr
    exported = await program("export", "--rule", "listed", "out.tar")
    assert exported.code == 0, exported.stderr
    printed = await program("config", "pull-policy", "--json", "listed")
    assert printed.code == 0, printed.stderr
    files = printed.json["files"]
    assert list(files["policy.json"]["transports"]["docker"]) == ["fra.example.com/team/app"]
    globs = files["imagevalidatingpolicy/replicator-listed.yaml"]["spec"]["matchImageReferences"]
    assert {"glob": "fra.example.com/team/app:*"} in globs
    unknown = await program("config", "pull-policy", "other")
    assert unknown.code == 2
    assert "other: unknown rule; the config has listed@hub" in unknown.stderr
    (tmp_path / "images.txt").write_text("")
    empty = await program("config", "pull-policy", "listed")
    assert empty.code == 2
    assert "its image lists have no image of any of its sources" in empty.stderr
