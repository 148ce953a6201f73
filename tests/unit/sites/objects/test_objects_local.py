"""A directory as an object store: what only a directory has to keep to."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from replicator.demo.images import image
from replicator.errors import Advice, Denied, NotFound, Rejected, Unavailable
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.sites.layouts.distribution.site import DistributionSite
from replicator.sites.layouts.oci.site import OciSite
from replicator.sites.objects.local import LocalStore
from replicator.sites.objects.local import store as store_module
from replicator.sites.objects.local.errormap import disk_error
from replicator.sites.objects.local.tree import Tree
from replicator.sites.objects.local.workspace import Workspace
from replicator.sites.objects.settings import LocalSettings
from tests.fakes.clock import FakeClock
from tests.fakes.layouts import put_image
from tests.fakes.source import BytesSource


def open_store(path: Path, name: str = "shelf") -> LocalStore:
    return LocalStore(LocalSettings(name, path), events=Events(), clock=SystemClock())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    (tmp_path / "root").mkdir(mode=0o755)
    store = open_store(tmp_path / "root")
    yield store
    await store.aclose()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def keys_of(store: LocalStore, prefix: str = "", *, delimiter: bool = False) -> list[str]:
    pages = [page async for page in store.list(prefix, delimiter=delimiter)]
    return [info.key for page in pages for info in page.objects] + [
        f"{name}/" for page in pages for name in page.prefixes
    ]


# --- links --------------------------------------------------------------------------------------------------


async def test_a_link_that_leads_outside_is_refused_and_nothing_there_is_touched(
    store: LocalStore, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (tmp_path / "root/out").symlink_to(outside)
    (tmp_path / "root/up").symlink_to("../outside")
    (tmp_path / "root/file").symlink_to(outside / "secret")
    for key in ["out/secret", "up/secret", "file"]:
        with pytest.raises(Rejected, match="leads out of the root"):
            await store.get(key, 100)
        with pytest.raises(Rejected, match="leads out of the root"):
            await store.stat(key)
    for key in ["out/new", "up/deep/new"]:
        with pytest.raises(Rejected, match="leads out of the root"):
            await store.put(key, b"1")
        with pytest.raises(Rejected, match="leads out of the root"):
            await store.delete(key)
        with pytest.raises(Rejected, match="leads out of the root"):
            await store.link("file", key)
    with pytest.raises(Rejected, match="leads out of the root"):
        await keys_of(store, "out/")
    assert names_in(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


async def test_writing_over_a_link_replaces_the_link_alone(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.write_bytes(b"precious")
    (tmp_path / "root/file").symlink_to(outside)
    await store.put("file", b"ours")
    assert outside.read_bytes() == b"precious"
    assert (tmp_path / "root/file").read_bytes() == b"ours"
    assert not (tmp_path / "root/file").is_symlink()


async def test_a_link_within_the_root_is_followed(store: LocalStore, tmp_path: Path) -> None:
    await store.put("real/x", b"1")
    (tmp_path / "root/alias").symlink_to("real")
    (tmp_path / "root/x").symlink_to(tmp_path / "root/real/x")
    assert (await store.get("alias/x", 1))[0] == b"1"
    assert (await store.get("x", 1))[0] == b"1"
    await store.put("alias/y", b"2")
    assert (tmp_path / "root/real/y").read_bytes() == b"2"
    assert await keys_of(store, delimiter=True) == ["x", "alias/", "real/"]


async def test_links_in_circles_and_to_nowhere_end_in_an_error_of_that_item(
    store: LocalStore, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "loop").symlink_to("loop")
    (root / "nowhere").symlink_to("not-there")
    (root / "above").symlink_to(".")
    (root / "out").symlink_to(tmp_path)
    await store.put("good", b"1")
    assert await keys_of(store) == ["above", "good", "loop", "nowhere", "out"]
    with pytest.raises(Rejected):
        await store.get("loop", 1)
    with pytest.raises(NotFound):
        await store.get("nowhere", 1)


async def test_a_folder_swapped_for_a_link_meanwhile_leads_nowhere(tmp_path: Path) -> None:
    """The walk goes by descriptors: what was opened stays what it was."""
    (tmp_path / "root/a").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    tree = Tree(tmp_path / "root")
    workspace = Workspace(tree)
    with tree.folder(("a",)) as folder:
        (tmp_path / "root/a").rename(tmp_path / "root/b")
        (tmp_path / "root/a").symlink_to(tmp_path / "outside")
        os.close(os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    assert (tmp_path / "root/b/x").exists()
    with workspace.temporary() as file, pytest.raises(OSError, match="leads out"):
        file.place(("a", "y"))
    workspace.close()
    assert list((tmp_path / "outside").iterdir()) == []


async def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to("real")
    store = open_store(tmp_path / "root")
    await store.put("a", b"1")
    await store.aclose()
    assert (tmp_path / "real/a").read_bytes() == b"1"


async def test_a_fifo_or_socket_neither_hangs_nor_is_listed(store: LocalStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "root/fifo")
    assert await keys_of(store) == []
    assert await store.stat("fifo") is None
    with pytest.raises(Rejected):
        await store.get("fifo", 1)


# --- files and folders --------------------------------------------------------------------------------------


async def test_a_file_where_a_folder_should_be_is_named(store: LocalStore) -> None:
    await store.put("a/b", b"1")
    for call in (store.get("a/b/c/d", 1), store.put("a/b/c/d", b"1"), keys_of(store, "a/b/c/")):
        with pytest.raises(Rejected, match=r"a/b is a file where a folder should be"):
            await call


async def test_a_folder_where_a_file_should_be_is_named(store: LocalStore) -> None:
    await store.put("a/b", b"1")
    for call in (
        store.get("a", 1),
        store.put("a", b"1"),
        store.link("a/b", "a"),
        store.copy(store, "a", "c"),
    ):
        with pytest.raises(Rejected, match=r"a is a folder where a file should be"):
            await call
    assert (await store.get("a/b", 1))[0] == b"1"


async def test_new_files_and_folders_take_the_root_s_owner_and_mode(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    root = tmp_path / "root"
    root.mkdir()
    os.chown(root, 4711, 4712)
    root.chmod(0o2770)
    store = open_store(root)
    await store.put("a/b/small", b"1")
    await store.put("a/b/first", b"1", if_absent=True)
    async with store.upload("a/c/large", 1) as target:
        await target.write(b"1")
        await target.commit()
    await store.link("a/c/large", "d/linked")
    await store.copy(store, "a/c/large", "e/copied")
    for path in root.rglob("*"):
        facts = path.lstat()
        wanted = 0o2770 if path.is_dir() else 0o660
        assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (4711, 4712, wanted), path
    await store.aclose()


async def test_a_missing_root_is_no_empty_one_and_is_made_by_the_first_write(tmp_path: Path) -> None:
    store = open_store(tmp_path / "not/yet")
    assert await store.stat("a") is None
    await store.delete("a")
    await store.sweep(lambda _: True)
    with pytest.raises(NotFound):
        await keys_of(store)
    assert not (tmp_path / "not").exists()
    await store.put("a", b"1")
    assert await keys_of(store) == ["a"]
    await store.aclose()


async def test_a_link_shares_the_inode_and_a_copy_does_not(store: LocalStore, tmp_path: Path) -> None:
    await store.put("x", b"1")
    await store.link("x", "linked")
    await store.copy(store, "x", "copied")
    inodes = {name: (tmp_path / "root" / name).stat().st_ino for name in ("x", "linked", "copied")}
    assert inodes["x"] == inodes["linked"] != inodes["copied"]


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108 - the one other file system that every Linux has
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


async def test_another_file_system_is_another_store(store: LocalStore, other_file_system: Path) -> None:
    other = open_store(other_file_system)
    await store.put("x", b"1")
    assert not await other.copy(store, "x", "x")
    await other.aclose()
    assert names_in(other_file_system) == []


async def test_what_does_not_fit_is_said_before_it_is_sent(store: LocalStore, tmp_path: Path) -> None:
    async def send() -> None:
        async with store.upload("big", 1 << 60) as target:
            await target.write(b"x" * (1 << 20))

    with pytest.raises(Unavailable, match="no space left") as raised:
        await send()
    assert raised.value.advice is Advice.LATER
    assert await keys_of(store) == []


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the kernel refuse as a full disk does, in a process of its own."""
    program = """
import asyncio, resource, signal, sys
from pathlib import Path
from replicator.errors import Unavailable
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.sites.objects.local import LocalStore
from replicator.sites.objects.settings import LocalSettings
async def main():
    store = LocalStore(LocalSettings("shelf", Path(sys.argv[1])), events=Events(), clock=SystemClock())
    await store.put("a", b"old")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    for call in (store.put("a", b"x" * 200_000), store.put("b", b"x" * 200_000, if_absent=True)):
        try:
            await call
        except Unavailable as error:
            print(error.cause)
    await store.aclose()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.splitlines() == ["a file of this size is not allowed here"] * 2, done.stderr
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names_in(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.ENOSPC, Unavailable, Advice.LATER),
        (errno.EDQUOT, Unavailable, Advice.LATER),
        (errno.EIO, Unavailable, Advice.LATER),
        (errno.EMFILE, Unavailable, Advice.RETRY),
        (errno.ESTALE, Unavailable, Advice.RETRY),
        (errno.EACCES, Denied, Advice.GIVE_UP),
        (errno.EROFS, Denied, Advice.GIVE_UP),
        (errno.ENOENT, NotFound, Advice.LATER),
        (errno.ENAMETOOLONG, Rejected, Advice.GIVE_UP),
    ],
)
def test_an_error_of_the_system_is_told_in_our_words(
    number: int, kind: type[Exception], advice: Advice
) -> None:
    error = disk_error("shelf", "write object a/b", OSError(number, os.strerror(number)))
    assert type(error) is kind
    assert error.advice is advice
    assert str(error).startswith("shelf: write object a/b: ")


# --- what dead processes leave ------------------------------------------------------------------------------

_LEAVES = """
import sys, os
from pathlib import Path
from replicator.sites.objects.local.tree import Tree
from replicator.sites.objects.local.workspace import Workspace
workspace = Workspace(Tree(Path(sys.argv[1])))
file = workspace.open()
file.write(b"half")
with workspace.locked(sys.argv[2]):
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(9)
"""


def start_writer(root: Path, key: str) -> subprocess.Popen[str]:
    """A process in the middle of writing, holding the key's lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LEAVES, root, key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def own_files(root: Path) -> list[Path]:
    return [path for path in (root / ".replicator").rglob("*") if path.is_file()]


async def test_a_sweep_removes_what_dead_processes_left_and_nothing_else(
    store: LocalStore, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    with start_writer(root, "a") as alive, start_writer(root, "b") as dead:
        try:
            dead.kill()
            dead.wait()
            assert len(own_files(root)) == 4
            await store.sweep(lambda _: True)
            assert len(own_files(root)) == 2
            assert any(path.parent.name.startswith(f"{alive.pid}-") for path in own_files(root))
        finally:
            alive.kill()
    await store.sweep(lambda _: True)
    assert not (root / ".replicator").exists()
    assert await keys_of(store) == []


async def test_the_lock_of_another_process_is_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    clock = FakeClock()
    store = LocalStore(LocalSettings("shelf", tmp_path), events=Events(), clock=clock)
    version = await store.put("index.json", b"1")
    with start_writer(tmp_path, "index.json") as other:
        try:
            assert await store.put("other.json", b"1", if_absent=True)
            with pytest.raises(Unavailable, match="keeps it locked"):
                await store.put("index.json", b"2", if_match=version)
        finally:
            other.kill()
            other.wait()
        assert await store.put("index.json", b"2", if_match=version)
    await store.sweep(lambda _: True)
    await store.aclose()
    assert names_in(tmp_path) == ["index.json", "other.json"]


async def test_killed_in_the_middle_of_writing_the_old_content_stays(
    store: LocalStore, tmp_path: Path
) -> None:
    await store.put("a", b"old")
    with start_writer(tmp_path / "root", "a") as process:
        process.kill()
    assert (await store.get("a", 9))[0] == b"old"
    assert await keys_of(store) == ["a"]


def test_several_processes_lose_no_line(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.sites.objects.local import LocalStore
from replicator.sites.objects.settings import LocalSettings
async def main():
    store = LocalStore(LocalSettings("shelf", Path(sys.argv[1])), events=Events(), clock=SystemClock())
    for number in range(20):
        while True:
            data, version = await store.get("index", 10_000)
            if await store.put("index", data + f"{sys.argv[2]}-{number} ".encode(), if_match=version):
                break
    await store.aclose()
asyncio.run(main())
"""
    (tmp_path / "index").touch()
    processes = [subprocess.Popen([sys.executable, "-c", program, tmp_path, str(n)]) for n in range(3)]
    for process in processes:
        assert process.wait(50) == 0
    lines = (tmp_path / "index").read_text().split()
    assert sorted(lines) == sorted(f"{n}-{number}" for n in range(3) for number in range(20))
    assert names_in(tmp_path) == ["index"]


async def test_a_folder_that_is_pruned_meanwhile_is_made_again(store: LocalStore) -> None:
    async def churn(number: int) -> None:
        for _ in range(15):
            await store.put(f"a/b/{number}", b"1")
            await store.delete(f"a/b/{number}")

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(churn(number))
    assert await keys_of(store, delimiter=True) == []


def test_a_lock_of_a_removed_folder_is_not_taken_for_ours(tmp_path: Path) -> None:
    workspace = Workspace(Tree(tmp_path))
    with workspace.temporary():
        (folder,) = (tmp_path / ".replicator/tmp").iterdir()
        fd = os.open(folder, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(fd)
    folder.rmdir()  # somebody tidies up by hand
    with workspace.temporary() as file:
        file.write(b"1")
        assert file.place(("a",))
    workspace.close()
    assert names_in(tmp_path) == ["a"]


# --- what it costs ------------------------------------------------------------------------------------------


class CountedThreads(ThreadPoolExecutor):
    """Counts how often anything was given to a thread."""

    trips = 0
    store: LocalStore

    def submit(self, call: Callable[..., object], /, *args: object, **options: object) -> Future[object]:  # type: ignore[override]
        self.trips += 1
        return super().submit(call, *args, **options)


@pytest.fixture
async def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CountedThreads]:
    """The threads of `counted.store`, a directory."""
    made: list[CountedThreads] = []

    def pool(workers: int, thread_name_prefix: str) -> CountedThreads:
        made.append(CountedThreads(workers, thread_name_prefix))
        return made[-1]

    monkeypatch.setattr(store_module, "ThreadPoolExecutor", pool)
    store = open_store(tmp_path / "counted")
    (threads,) = made
    threads.store = store
    yield threads
    await store.aclose()


async def test_a_small_upload_costs_one_trip_to_a_thread(counted: CountedThreads, tmp_path: Path) -> None:
    async with counted.store.upload("a/blob", 5) as upload:
        await upload.write(b"12345")
        await upload.commit()
    assert counted.trips == 1
    assert (tmp_path / "counted/a/blob").read_bytes() == b"12345"


@pytest.mark.parametrize("layout", [OciSite, DistributionSite])
async def test_a_manifest_costs_as_many_trips_whatever_it_names(
    counted: CountedThreads, layout: type[OciSite | DistributionSite]
) -> None:
    repository = layout(counted.store, events=Events()).repository("app")
    await put_image(repository, image("first"), "first")
    trips = []
    for layers in (1, 9):
        built = image(f"of {layers}", layers)
        for digest, data in built.blobs.items():
            await repository.write_blob(BytesSource(data, digest=digest))
        before = counted.trips
        await repository.write_manifest(built.manifest, f"of-{layers}")
        trips.append(counted.trips - before)
    assert trips[0] == trips[1]


async def test_a_link_among_several_is_followed_or_refused_as_alone(
    store: LocalStore, tmp_path: Path
) -> None:
    await store.put("a/b", b"12345")
    (tmp_path / "root/a/link").symlink_to("b")
    (tmp_path / "root/a/nowhere").symlink_to("none")
    (tmp_path / "root/folder").symlink_to("a")
    keys = ["a/b", "a/link", "a/nowhere", "folder/b"]
    found = await store.stat_all(keys)
    assert list(found) == [await store.stat(key) for key in keys]
    assert [one and one.size for one in found] == [5, 5, None, 5]
    (tmp_path / "root/a/out").symlink_to(tmp_path)
    with pytest.raises(Rejected, match="leads out of the root"):
        await store.stat_all(["a/b", "a/out"])
