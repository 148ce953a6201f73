"""`replicator images`, as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.program import Program


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
