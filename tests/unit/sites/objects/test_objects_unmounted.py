"""A directory whose file system is not mounted: neither written to as a new one nor read as an empty one."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from replicator.errors import NotFound, Unavailable
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.sites.objects.local import LocalStore
from replicator.sites.objects.settings import LocalSettings


def names_in(path: Path) -> list[str]:
    return [each.name for each in path.iterdir()] if path.exists() else []


async def listed(store: LocalStore) -> list[str]:
    return [info.key async for page in store.list("") for info in page.objects]


OPERATIONS: dict[str, Callable[[LocalStore], Awaitable[object]]] = {
    "stat": lambda store: store.stat("a/b"),
    "get": lambda store: store.get("a/b", 9),
    "put": lambda store: store.put("a/b", b"1"),
    "put if absent": lambda store: store.put("a/b", b"1", if_absent=True),
    "list": listed,
    "delete": lambda store: store.delete("a/b"),
}


def open_store(path: Path, must_exist: bool | None = None) -> LocalStore:  # noqa: FBT001
    return LocalStore(
        LocalSettings("shelf", path, must_exist=must_exist), events=Events(), clock=SystemClock()
    )


@pytest.fixture(params=["empty", "missing", "lost+found"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A mount point without its file system."""
    if request.param != "missing":
        (tmp_path / "root").mkdir()
    if request.param == "lost+found":
        (tmp_path / "root/lost+found").mkdir()
    return tmp_path / "root"


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("by", ["setting", "word"])
async def test_expected_content_that_is_gone_is_a_failure(root: Path, name: str, by: str) -> None:
    store = open_store(root, must_exist=True if by == "setting" else None)
    if by == "word":
        store.expect_content()
    with pytest.raises(Unavailable, match=r"(is empty|does not exist), .*mounted\?.*must_exist = false"):
        await OPERATIONS[name](store)
    await store.aclose()
    assert set(names_in(root)) <= {"lost+found"}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_first_use_needs_no_content(root: Path, name: str) -> None:
    store = open_store(root)
    try:
        await OPERATIONS[name](store)
    except NotFound:
        assert name in {"get", "list"}
    await store.aclose()


async def test_what_need_not_exist_is_written_again(tmp_path: Path) -> None:
    store = open_store(tmp_path / "root", must_exist=False)
    store.expect_content()
    await store.put("a", b"1")
    await store.aclose()
    shutil.rmtree(tmp_path / "root")
    await open_store(tmp_path / "root", must_exist=False).put("a", b"2")


async def test_file_system_that_goes_while_we_work_is_noticed(tmp_path: Path) -> None:
    store = open_store(tmp_path / "root")
    await store.put("a", b"1")
    (tmp_path / "root").rename(tmp_path / "mounted")
    (tmp_path / "root").mkdir()
    for operation in (OPERATIONS["stat"], OPERATIONS["put"], OPERATIONS["list"]):
        with pytest.raises(Unavailable, match="is empty"):
            await operation(store)
    (tmp_path / "root").rmdir()
    (tmp_path / "mounted").rename(tmp_path / "root")  # mounted again
    assert await listed(store) == ["a"]
    await store.aclose()


async def test_directory_that_we_emptied_ourselves_stays_usable(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    await store.put("a/b", b"1")
    await store.delete("a/b")
    assert await listed(store) == []
    await store.put("a/b", b"2")
    await store.aclose()
