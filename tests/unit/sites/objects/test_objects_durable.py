"""What was written survives a power cut: the file is on the disk before it has its name, its folder before we say so."""

from __future__ import annotations

import fcntl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from replicator.demo.images import image, index
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.sites.archive.output import FileOutput
from replicator.sites.layouts.settings import Layout, LayoutSettings
from replicator.sites.objects.local import LocalStore
from replicator.sites.objects.settings import LocalSettings
from replicator.sites.open import open_site
from tests.fakes.disk import watched_disk
from tests.fakes.layouts import put_image

BIG = bytes(3 << 20)


async def upload(store: LocalStore) -> None:
    async with store.upload("c/d/blob", len(BIG)) as target:
        await target.write(BIG)
        await target.commit()


async def if_match(store: LocalStore) -> None:
    _, version = await store.get("a/b", 100)
    assert await store.put("a/b", b"newer", if_match=version)


OPERATIONS: dict[str, Callable[[LocalStore], Awaitable[object]]] = {
    "put": lambda store: store.put("new/folder/x", b"x"),
    "put over": lambda store: store.put("a/b", b"x"),
    "put if absent": lambda store: store.put("c/x", b"x", if_absent=True),
    "put if match": if_match,
    "upload": upload,
    "link": lambda store: store.link("a/b", "e/f"),
    "copy": lambda store: store.copy(store, "a/b", "e/g"),
    "delete": lambda store: store.delete("a/b"),
}


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_each_change_of_a_directory_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, links: bool
) -> None:
    store = LocalStore(LocalSettings("shelf", tmp_path), events=Events(), clock=SystemClock())
    await store.put("a/b", b"content")
    await store.put("a/stays", b"")
    if not links:
        _without_links(monkeypatch)
    with watched_disk(tmp_path, monkeypatch) as disk:
        await OPERATIONS[name](store)
        assert (disk.placed_early, disk.volatile()) == ([], [])
        assert disk.syncs
    await store.aclose()


@pytest.mark.parametrize("layout", ["oci", "distribution"])
async def test_a_whole_image_is_durable_when_its_tag_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    settings = LayoutSettings(LocalSettings("shelf", tmp_path), layout)
    site = open_site(settings, events=Events(), clock=SystemClock())
    with watched_disk(tmp_path, monkeypatch) as disk:
        await put_image(site.repository("team/app"), index([image("a"), image("b")]), "v1")
        assert (disk.placed_early, disk.volatile()) == ([], [])
    await site.aclose()


def test_an_archive_is_durable_when_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched_disk(tmp_path, monkeypatch) as disk:
        output = FileOutput(tmp_path / "images.tar")
        output.append(b"head", BIG, b"tail")
        output.finish()
        assert (disk.placed_early, disk.volatile()) == ([], [])
        output.close()


def _without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    monkeypatch.setattr("os.copy_file_range", refuse)
    monkeypatch.setattr(fcntl, "ioctl", refuse)
