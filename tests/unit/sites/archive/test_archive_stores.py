"""Archives as stores: what is written is what is read, and nothing is there before it is whole."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from replicator.demo.images import image, index
from replicator.errors import Corrupt, NotFound, SiteError, Unavailable, Unsupported
from replicator.events import Events
from replicator.model.digest import digest_of
from replicator.sites.archive.output import FileOutput, Output
from replicator.sites.archive.reader import ArchiveReader
from replicator.sites.archive.site import WrittenArchive
from replicator.sites.archive.writer import ArchiveWriter
from replicator.sites.layouts.oci.site import OciSite
from tests.fakes.layouts import digests, put_image
from tests.fakes.source import BytesSource

ONE = image("one")
MANY = index([image("amd"), image("arm")])


async def written(path: Path, *, have: dict[str, int] | None = None) -> None:
    """Two repositories, one of them with a dot in the part that could be a host."""
    writer = ArchiveWriter("out", FileOutput(path), spool=path.parent, have=have)  # type: ignore[arg-type]
    site = WrittenArchive(writer, events=Events())
    try:
        await put_image(site.repository("my.team/app"), ONE, "v1")
        await put_image(site.repository("my.team/app"), MANY, "multi")
        await put_image(site.repository("other"), ONE, "v1")
        await put_image(site.repository("other"), MANY)
        await writer.finish()
    finally:
        await site.aclose()


async def reader_of(path: Path) -> ArchiveReader:
    return await ArchiveReader.open("in", os.open(path, os.O_RDONLY))


async def test_each_repository_comes_back_with_its_tags_and_roots(tmp_path: Path) -> None:
    await written(tmp_path / "a.tar")
    reader = await reader_of(tmp_path / "a.tar")
    site = OciSite(reader, events=Events())
    assert {name async for page in site.repositories() for name in page} == {"my.team/app", "other"}
    assert await digests(site.repository("my.team/app")) == {"v1": ONE.digest, "multi": MANY.digest}
    assert await digests(site.repository("other")) == {"v1": ONE.digest}
    assert reader.roots("other") == {ONE.digest, MANY.digest}
    assert await site.repository("other").read_manifest("v1") == ONE.manifest
    for digest, data in ONE.blobs.items():
        descriptor = next(blob for blob in ONE.manifest.blobs if blob.digest == digest)
        async with site.repository("other").blob(descriptor).open(5) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == data[5:]
    await reader.verify()
    await site.aclose()


async def test_blobs_of_repositories_are_listed_and_nothing_is_written(tmp_path: Path) -> None:
    await written(tmp_path / "a.tar")
    site = OciSite(await reader_of(tmp_path / "a.tar"), events=Events())
    found = {digest async for _, page in site.blobs() for digest, _ in page}
    assert set(ONE.blobs) | {ONE.digest, MANY.digest} <= found
    with pytest.raises(Unsupported):
        await site.repository("other").write_blob(BytesSource(b"new"))
    with pytest.raises(NotFound):
        await site.repository("absent").resolve("v1")
    await site.aclose()


async def test_nothing_is_there_before_the_end_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"before")
    writer = ArchiveWriter("out", FileOutput(path), spool=tmp_path)
    site = WrittenArchive(writer, events=Events())
    await put_image(site.repository("app"), ONE, "v1")
    assert path.read_bytes() == b"before"
    await site.aclose()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.tar"]  # noqa: PTH208


async def test_two_writers_of_one_archive_are_one_too_many(tmp_path: Path) -> None:
    first = FileOutput(tmp_path / "a.tar")
    with pytest.raises(BlockingIOError):
        FileOutput(tmp_path / "a.tar")
    first.finish()
    first.close()
    FileOutput(tmp_path / "a.tar").close()


async def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".a.tar.part").write_bytes(b"x" * 1_000_000)
    await written(tmp_path / "a.tar")
    assert os.listdir(tmp_path) == ["a.tar"]  # noqa: PTH208
    await (await reader_of(tmp_path / "a.tar")).verify()


async def test_wrong_bytes_never_get_into_the_archive(tmp_path: Path) -> None:
    writer = ArchiveWriter("out", FileOutput(tmp_path / "a.tar"), spool=tmp_path)
    site = WrittenArchive(writer, events=Events())
    wrong = BytesSource(b"wrong", digest=digest_of(b"right"))
    with pytest.raises(SiteError):
        await site.repository("app").write_blob(wrong)
    await put_image(site.repository("app"), ONE, "v1")
    await writer.finish()
    await site.aclose()
    reader = await reader_of(tmp_path / "a.tar")
    assert reader.size_of(digest_of(b"right")) is None
    await reader.verify()
    await reader.aclose()


async def test_a_disk_that_is_full_for_one_blob_spoils_no_other(tmp_path: Path) -> None:
    output = FileOutput(tmp_path / "a.tar")
    writer = ArchiveWriter("out", output, spool=tmp_path)
    site = WrittenArchive(writer, events=Events())
    whole = output._write

    def full(data: bytes) -> None:
        whole(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    output._write = full  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="no space left"):
        await site.repository("app").write_blob(BytesSource(b"data" * 1000))
    output._write = whole  # type: ignore[method-assign]
    await put_image(site.repository("app"), ONE, "v1")
    await writer.finish()
    await site.aclose()
    await (await reader_of(tmp_path / "a.tar")).verify()


async def test_a_pipe_that_broke_is_not_written_to_again() -> None:
    reading, writing = os.pipe()
    writer = ArchiveWriter("out", Output(writing), spool=None)
    site = WrittenArchive(writer, events=Events())

    def leave() -> None:
        os.read(reading, 10)
        os.close(reading)

    drain = threading.Thread(target=leave)
    drain.start()
    with pytest.raises(Unavailable, match="Broken pipe"):
        await site.repository("app").write_blob(BytesSource(b"data" * 100_000))
    drain.join()
    with pytest.raises(Unavailable, match="Broken pipe"):
        await writer.finish()
    os.close(writing)


async def test_what_the_other_side_has_is_left_out_but_manifests(tmp_path: Path) -> None:
    have = {str(digest): len(data) for digest, data in ONE.blobs.items()} | {
        ONE.digest: len(ONE.manifest.body)
    }
    await written(tmp_path / "a.tar", have=have)
    reader = await reader_of(tmp_path / "a.tar")
    assert all(reader.size_of(digest) is None for digest in ONE.blobs)
    assert reader.size_of(ONE.digest) == len(ONE.manifest.body)
    await reader.aclose()


async def test_an_altered_blob_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    await written(path)
    data = path.read_bytes()
    body = ONE.manifest.body
    path.write_bytes(data.replace(body, body.replace(b'"schemaVersion":2', b'"schemaVersion":3'), 1))
    reader = await reader_of(path)
    with pytest.raises(Corrupt, match="it is altered"):
        await reader.verify()
    await reader.aclose()
