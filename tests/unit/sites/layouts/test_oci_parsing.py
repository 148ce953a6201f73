"""Reading `index.json`: every way to write the same JSON reads the same, and what is hostile is bounded."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.demo.images import image
from replicator.events import Events
from replicator.sites.bounds import MAX_INDEX_ENTRIES
from replicator.sites.layouts.oci import parsing
from replicator.sites.layouts.oci.entries import CONTAINERD_NAME, REF_NAME, tag_of
from replicator.sites.layouts.oci.index import Index, empty_index, parse_index
from replicator.sites.layouts.oci.layouts import IndexMemory
from replicator.sites.layouts.oci.site import OciSite
from tests.fakes.layouts import put_image
from tests.fakes.objects import MemoryStore

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=5,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "digest": st.sampled_from([f"sha256:{n:064x}" for n in range(3)]) | JSON,
        "size": st.integers(),
        "annotations": st.dictionaries(
            st.sampled_from([REF_NAME, CONTAINERD_NAME, "é\n"]),
            st.sampled_from(["v1", "v2", "a/b:v3", ""]) | JSON,
        )
        | JSON,
        "x": JSON,
    },
)


@given(
    entries=st.lists(ENTRY, max_size=6),
    other=st.dictionaries(
        st.text().filter(lambda key: key not in {"schemaVersion", "mediaType", "manifests"}), JSON
    ),
    indent=st.sampled_from([None, 0, 3, "\t"]),
    ascii_only=st.booleans(),
)
def test_any_way_to_write_it_reads_the_same(
    entries: list[dict[str, Any]], other: dict[str, Any], indent: int | str | None, *, ascii_only: bool
) -> None:
    top = {"schemaVersion": 2} | other | {"manifests": entries}
    text = json.dumps(top, indent=indent, ensure_ascii=ascii_only)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate
    index = parse_index(data)
    assert list(index.entries()) == entries
    again = parse_index(index.encode(), index)
    assert list(again.entries()) == entries
    assert json.loads(again.encode()) == top
    for tag in {tag for entry in entries if (tag := tag_of(entry)) is not None}:
        assert index.tagged(tag) == [entry for entry in entries if tag_of(entry) == tag][-1]


@given(data=st.binary(max_size=300), insert=st.integers(0, 200))
@settings(max_examples=200)
def test_damaged_bytes_are_a_value_error_or_an_index(data: bytes, insert: int) -> None:
    good = bytearray(three().encode())
    good[insert : insert + len(data) // 2] = data
    try:
        found = parse_index(bytes(good))
    except ValueError:
        return
    assert json.loads(found.encode())["schemaVersion"] == 2


def three() -> Index:
    index = empty_index()
    for seed in "abc":
        index.tag(image(seed).manifest, f"v-{seed}")
    return index


def entries_of(count: int, entry: bytes) -> bytes:
    return b'{"schemaVersion":2,"manifests":[' + b",".join([entry] * count) + b"]}"


@pytest.mark.parametrize(
    ("bomb", "says"),
    [
        (b"\x00" * 4_000_000, "not a JSON object"),
        (b'{"schemaVersion":2,"manifests":[' + b"[" * 4_000_000, "nested|not JSON"),
        (b'{"schemaVersion":2,"manifests":[[' + b"[]," * 1_300_000 + b"[]]]}", "over"),
        (b'{"schemaVersion":2,"x":"' + b"a" * 4_000_000 + b'","manifests":[]}', "over"),
        (entries_of(1_300_000, b"[]"), "not a list of descriptors"),
        (entries_of(MAX_INDEX_ENTRIES + 1, b"{}"), "more than"),
        (b'{"schemaVersion":2,"manifests":[],"manifests":[]}', "twice"),
        (b'{"schemaVersion":' + b"9" * 5_000 + b',"manifests":[]}', "schemaVersion|JSON"),
        (b'{"schemaVersion":2,"manifests":[]} x', "not JSON"),
        (b'{"schemaVersion":2,"manifests":[{"digest":"' + b"\xff" + b'"}]}', "not JSON"),
    ],
)
def test_bomb_is_refused_in_bounded_memory(bomb: bytes, says: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=says):
            parse_index(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 130_000_000


def test_thousands_of_entries_of_one_digest_and_tag_are_read_in_one_pass() -> None:
    entry = b'{"digest":"sha256:%s","annotations":{"%s":"v1"}}' % (b"a" * 64, REF_NAME.encode())
    index = parse_index(entries_of(20_000, entry))
    assert len(index) == 20_000
    assert list(index.tags()) == ["v1"]
    index.untag("v1")
    assert len(index) == 0


async def test_lookup_in_an_unchanged_index_reads_and_parses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    repository = OciSite(store, events=Events()).repository("app")
    await put_image(repository, image("a"), "v1")
    store.calls.clear()
    monkeypatch.setattr("replicator.sites.layouts.oci.indexfile.parse_index", None)
    for _ in range(3):
        await repository.resolve("v1")
    await repository.write_manifest(image("a").manifest, "v2")
    assert (store.calls["get"], store.calls["put"]) == (0, 1)


async def test_lookups_at_once_read_a_changed_index_once() -> None:
    store = MemoryStore()
    await put_image(OciSite(store, events=Events()).repository("app"), image("a"), "v1")
    repository = OciSite(store, events=Events()).repository("app")
    async with asyncio.TaskGroup() as tasks:
        for _ in range(10):
            tasks.create_task(repository.resolve("v1"))
    assert store.calls["get"] == 2 + 1  # the writer looks for a marker, the readers for index and marker


async def test_entries_are_decoded_again_only_where_another_writer_changed_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    reader, writer = (OciSite(store, events=Events()).repository("app") for _ in range(2))
    for number in range(300):
        await writer.write_manifest(image("a").manifest, f"v{number}") if number else await put_image(
            writer, image("a"), "v0"
        )
    await reader.resolve("v0")
    decoded: list[bytes] = []
    real = parsing.root_of

    def decode(raw: bytes) -> parsing.Root:
        decoded.append(raw)
        return real(raw)

    monkeypatch.setattr(parsing, "root_of", decode)
    await writer.write_manifest(image("a").manifest, "new")
    assert (await reader.resolve("new")).digest == image("a").digest
    assert len(decoded) == 1


async def test_only_the_indexes_used_last_stay_in_memory() -> None:
    class File:
        def __init__(self) -> None:
            self.forgotten = 0

        def forget(self) -> None:
            self.forgotten += 1

    memory = IndexMemory(most=100)
    files: list[Any] = [File() for _ in range(4)]
    for file in files[:3]:
        memory.keep(file, 40)
    memory.keep(files[1], 40)
    assert [file.forgotten for file in files] == [1, 0, 0, 0]
    memory.keep(files[3], 1_000)  # the one in use stays, however large
    assert [file.forgotten for file in files] == [1, 1, 1, 0]
