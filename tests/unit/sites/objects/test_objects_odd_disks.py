"""Directories on file systems that refuse what is not needed: squashed NFS, exFAT, SMB, FUSE."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replicator.demo.images import image, index
from replicator.errors import Denied, Rejected, Unavailable
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.sites.archive.output import FileOutput
from replicator.sites.layouts.settings import Layout, LayoutSettings
from replicator.sites.objects.local import LocalStore
from replicator.sites.objects.settings import LocalSettings
from replicator.sites.open import open_site
from tests.fakes.layouts import names, put_image

Patch = pytest.MonkeyPatch


def refusing(number: int) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


def no_folder_sync(patch: Patch, number: int) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        real(fd)

    patch.setattr(os, "fsync", fsync)


def no_rename_over(patch: Patch, number: int) -> None:
    real = os.rename

    def rename(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        try:
            os.stat(new, dir_fd=dst_dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return real(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        raise OSError(number, os.strerror(number))

    patch.setattr(os, "rename", rename)


def nothing_at_all(patch: Patch, number: int) -> None:
    for name in ("fchown", "fchmod", "utime", "link", "copy_file_range"):
        patch.setattr(os, name, refusing(number))
    patch.setattr(fcntl, "ioctl", refusing(number))
    patch.setattr(os, "geteuid", lambda: 0)


def no_case(patch: Patch) -> None:
    """Upper and lower case are one, and what is there keeps the name it was made with: exFAT, SMB, macOS."""

    def found(name: str, folder: int | None) -> str:
        if folder is None or not isinstance(name, str):
            return name
        names = os.listdir(folder)  # noqa: PTH208 - of a descriptor
        return next((one for one in names if one.casefold() == name.casefold()), name)

    for call in ("open", "stat", "mkdir", "unlink", "rmdir"):
        real = getattr(os, call)

        def blind(
            name: str, *rest: Any, real: Callable[..., Any] = real, dir_fd: int | None = None, **more: Any
        ) -> Any:
            return real(found(name, dir_fd), *rest, dir_fd=dir_fd, **more)

        patch.setattr(os, call, blind)
    for call in ("rename", "link"):
        real = getattr(os, call)

        def blind_pair(
            old: str,
            new: str,
            *,
            src_dir_fd: int,
            dst_dir_fd: int,
            real: Callable[..., Any] = real,
            **more: Any,
        ) -> Any:
            fds = {"src_dir_fd": src_dir_fd, "dst_dir_fd": dst_dir_fd}
            return real(old, found(new, dst_dir_fd), **fds, **more)

        patch.setattr(os, call, blind_pair)


DISKS: dict[str, Callable[[Patch], None]] = {
    "squashed NFS": lambda patch: nothing_at_all(patch, errno.EPERM),
    "exFAT": lambda patch: nothing_at_all(patch, errno.EOPNOTSUPP),
    "FUSE": lambda patch: nothing_at_all(patch, errno.ENOSYS),
    "SMB": lambda patch: no_folder_sync(patch, errno.EINVAL),
    "no rename over": lambda patch: no_rename_over(patch, errno.EEXIST),
    "rename over denied": lambda patch: no_rename_over(patch, errno.EACCES),
    "no case": no_case,
    "no flock": lambda patch: patch.setattr(fcntl, "flock", refusing(errno.ENOLCK)),
    "unknown size": lambda patch: patch.setattr(
        "shutil.disk_usage", lambda _: type("Usage", (), {"total": 0, "free": 0})
    ),
}


def left_in(root: Path) -> list[Path]:
    return [path for path in root.glob(".replicator/**/*") if path.is_file()]


@pytest.mark.parametrize("layout", ["oci", "distribution"])
@pytest.mark.parametrize("disk", DISKS)
async def test_images_are_written_whole(
    tmp_path: Path, monkeypatch: Patch, disk: str, layout: Layout
) -> None:
    DISKS[disk](monkeypatch)
    settings = LayoutSettings(LocalSettings("shelf", tmp_path), layout)
    for version in ("a", "b"):  # the second is written over the first, by another process
        site = open_site(settings, events=Events(), clock=SystemClock())
        for repository in ("team/app", "other"):
            built = index([image(version), image("c")])
            await put_image(site.repository(repository), built, "v1")
            assert (await site.repository(repository).resolve("v1")).digest == built.digest
            assert await names(site.repository(repository)) == ["v1"]
        check = await site.check(push="team/app")
        assert not check.problems
        assert dict(check.findings)["conditional writes"].startswith("no" if disk == "no flock" else "yes")
        await site.aclose()
    assert disk == "no flock" or not left_in(tmp_path)


@pytest.mark.parametrize("layout", ["oci", "distribution"])
async def test_tags_that_differ_in_case_alone_are_kept_apart_or_refused_by_name(
    tmp_path: Path, monkeypatch: Patch, layout: Layout
) -> None:
    no_case(monkeypatch)
    site = open_site(
        LayoutSettings(LocalSettings("shelf", tmp_path), layout), events=Events(), clock=SystemClock()
    )
    repository, first, other = site.repository("app"), image("first"), image("other")
    await put_image(repository, first, "v1")
    if layout == "distribution":  # each tag is a folder there
        with pytest.raises(Rejected, match="V1 is there already as v1, and this file system does not tell"):
            await put_image(repository, other, "V1")
        assert await names(repository) == ["v1"]
    else:
        await put_image(repository, other, "V1")
        assert (await repository.resolve("V1")).digest == other.digest
    assert (await repository.resolve("v1")).digest == first.digest
    await put_image(repository, other, "v1")
    assert (await repository.resolve("v1")).digest == other.digest
    await site.aclose()


@pytest.mark.parametrize("disk", ["squashed NFS", "SMB", "no flock"])
def test_archives_are_written_whole(tmp_path: Path, monkeypatch: Patch, disk: str) -> None:
    DISKS[disk](monkeypatch)
    output = FileOutput(tmp_path / "images.tar")
    output.append(b"head", b"content", b"tail")
    output.finish()
    output.close()
    assert (tmp_path / "images.tar").read_bytes() == b"headcontenttail"


async def test_what_a_file_system_says_of_the_write_itself_is_a_failure(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    store = LocalStore(LocalSettings("shelf", tmp_path), events=Events(), clock=SystemClock())
    await store.put("a", b"before")
    for number, error in ((errno.EIO, Unavailable), (errno.EPERM, Denied)):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refusing(number))
            with pytest.raises(error):
                await store.put("a", b"after")
    with monkeypatch.context() as patch:
        no_folder_sync(patch, errno.EIO)
        with pytest.raises(Unavailable):
            await store.put("a", b"after")
    await store.aclose()


async def test_where_nothing_is_renamed_over_the_old_file_comes_back_if_the_new_one_fails(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    store = LocalStore(LocalSettings("shelf", tmp_path), events=Events(), clock=SystemClock())
    await store.put("a", b"before")
    real, calls = os.rename, []

    def rename(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        calls.append(new)
        if new == "a" and len(calls) < 4:
            raise OSError(errno.EEXIST if len(calls) == 1 else errno.EIO, "no")
        real(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(Unavailable):
        await store.put("a", b"after")
    assert (tmp_path / "a").read_bytes() == b"before"
    await store.aclose()
