"""Files, globs, directories and what cannot be read; names expanded and merged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from replicator.lists.files import MAX_BYTES, read_files
from replicator.lists.findings import FileLine, Findings, Mention, Remark
from replicator.lists.reading import Reading
from replicator.lists.references import merge


def read(*names: str, base: Path) -> Findings:
    return read_files(names, base, Reading())


def texts(found: Findings) -> list[str]:
    return [mention.text for mention in found.mentions]


def test_files_globs_and_directories(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a:1\n")
    charts = tmp_path / "charts"
    (charts / "deep").mkdir(parents=True)
    (charts / "deep" / "c.yaml").write_text("- c:1\n")
    (charts / "b.yaml").write_text("- b:1\n")
    (charts / "README.md").write_text("not a list")
    (charts / ".hidden.txt").write_text("hidden:1\n")
    assert texts(read("a.txt", "charts", base=tmp_path)) == ["a:1", "b:1", "c:1"]
    assert texts(read("charts/*.yaml", base=tmp_path)) == ["b:1"]
    assert texts(read("charts/**/*.yaml", base=tmp_path)) == ["b:1", "c:1"]
    assert texts(read(str(tmp_path / "*.txt"), base=Path("/"))) == ["a:1"]


def test_a_directory_that_links_to_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a:1\n")
    (tmp_path / "again").symlink_to(".")
    assert texts(read(".", base=tmp_path)) == ["a:1"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("missing.txt", None, "cannot be read: No such file or directory"),
        ("*.none", None, "matches no file"),
        ("https://example.com/list.txt", None, "lists are not downloaded"),
        ("empty.txt", b"", "names no image"),
        ("binary.txt", b"\x00\x01", "NUL character"),
        ("latin.txt", b"a:1\ncaf\xe9\n", "line 2: not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_named_and_the_rest_goes_on(
    tmp_path: Path, name: str, content: bytes | None, why: str
) -> None:
    (tmp_path / "good.txt").write_text("good:1\n")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    found = read(name, "good.txt", base=tmp_path)
    assert texts(found) == ["good:1"]
    assert [(problem.place.file, why in problem.text) for problem in found.problems] == [(name, True)]


def test_a_fifo_does_not_hold_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in str(read("fifo", base=tmp_path).problems[0])


def test_a_file_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "larger than" in str(read("huge.txt", base=tmp_path).problems[0])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_as_windows_writes_it(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "list.txt").write_bytes("a:1\r\nb:2\r\n".encode(encoding))
    assert texts(read("list.txt", base=tmp_path)) == ["a:1", "b:2"]


def test_compose_finds_its_env_and_the_files_it_names(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# here\nexport TAG='7'\nOTHER=x # why\n")
    (tmp_path / "base.yaml").write_text("services: {base: {image: 'base:${TAG}'}}\n")
    (tmp_path / "compose.yaml").write_text(
        "include: [more.yaml]\nservices:\n  a: {extends: {file: base.yaml, service: base}}\n"
    )
    (tmp_path / "more.yaml").write_text("include: [compose.yaml]\nservices: {m: {image: 'more:1'}}\n")
    found = read("compose.yaml", base=tmp_path)
    assert texts(found)[:2] == ["base:7", "more:1"]
    assert [str(each.place) for each in found.mentions[:2]] == ["base.yaml:1", "more.yaml:2"]
    assert ["circle" in str(problem) for problem in found.problems] == [True]


def test_compose_files_in_other_directories_are_named_from_where_the_user_is(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    (folder / "parts").mkdir(parents=True)
    (folder / "compose.yaml").write_text("include: [parts/db.yaml]\nservices: {w: {image: w:1}}\n")
    (folder / "parts/db.yaml").write_text("services:\n  d: {extends: {file: base.yaml, service: b}}\n")
    (folder / "parts/base.yaml").write_text("services:\n  b:\n    image: db:1\n")
    found = read("shop/compose.yaml", base=tmp_path)
    assert [(each.text, str(each.place)) for each in found.mentions] == [
        ("w:1", "shop/compose.yaml:2"),
        ("db:1", "shop/parts/base.yaml:3"),
    ]
    assert not found.problems


def test_of_a_file_that_is_no_list_the_first_problems_are_told_in_order() -> None:
    mentions = [Mention(f"BAD{number}:1", FileLine("f", number)) for number in range(1, 251)]
    _, problems = merge(
        Findings(mentions, [Remark(FileLine("f", 300), "late"), Remark(FileLine("g", 1), "other")])
    )
    told = [problem.place.line for problem in problems if problem.place.file == "f"]
    assert told == [*range(1, 101), 0]
    assert "f: 151 more lines cannot be read; is this a list of images?" in map(str, problems)
    assert FileLine("g", 1) in [problem.place for problem in problems]


def test_names_are_expanded_as_docker_does_and_merged_with_every_place() -> None:
    digest = "sha256:" + "a" * 64
    mentions = [
        Mention(text, FileLine("l", number))
        for number, text in enumerate(
            ["nginx", "docker.io/library/nginx:latest", f"q.io/a:1@{digest}", "docker://q.io/b:1", "UPPER:1"],
            1,
        )
    ]
    images, problems = merge(Findings(mentions))
    assert [(str(image.reference), [place.line for place in image.places]) for image in images] == [
        ("docker.io/library/nginx:latest", [1, 2]),
        (f"q.io/a:1@{digest}", [3]),
        ("q.io/b:1", [4]),
    ]
    assert [problem.place for problem in problems] == [FileLine("l", 5)]
