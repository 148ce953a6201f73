"""Archives that mean no good, and those that other tools write."""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.sites.archive import tar
from replicator.sites.archive.tar import Extent, header, padding, scan, trailer

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def scanned(data: bytes) -> dict[str, Extent]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return scan(file.fileno())


def entry(name: str, data: bytes = b"", **more: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + data + padding(len(data))


@pytest.mark.parametrize("form", FORMATS)
def test_what_tarfile_writes_is_found_where_it_lies(form: int) -> None:
    files = {"index.json": b"{}", "./blobs/sha256/a": b"x" * 700, "long/" * 40 + "name": b"y"}
    if form == tarfile.USTAR_FORMAT:
        files.pop("long/" * 40 + "name")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    data = buffer.getvalue()
    found = scanned(data)
    assert {name: data[at.offset : at.offset + at.size] for name, at in found.items()} == {
        name.removeprefix("./"): content for name, content in files.items()
    }


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}(/[a-z0-9]{1,150})?", fullmatch=True), st.binary(max_size=1100), max_size=6
    )
)
def test_what_we_write_is_read_by_tarfile_and_by_us(files: dict[str, bytes]) -> None:
    data = b"".join(
        header(name, len(content)) + content + padding(len(content)) for name, content in files.items()
    )
    data += trailer()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {member.name: archive.extractfile(member) for member in archive}
        assert {name: file.read() for name, file in members.items() if file} == files
    assert {name: at.size for name, at in scanned(data).items()} == {
        name: len(content) for name, content in files.items()
    }


def test_a_file_of_many_gigabytes_is_told_by_its_header_alone(tmp_path: Path) -> None:
    size = 20 << 30
    path = tmp_path / "sparse.tar"
    head = header("blobs/sha256/" + "a" * 64, size)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size + 1024)
    with path.open("rb") as file:
        assert scan(file.fileno()) == {"blobs/sha256/" + "a" * 64: Extent(len(head), size)}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "cut short"),
        (b"hello", "cut short"),
        (b"x" * 2048, "not a tar file, or modified: at byte 0"),
        (b"\x1f\x8b" + bytes(2000), "compressed with gzip; decompress it first"),
        (b"\x28\xb5\x2f\xfd" + bytes(2000), "compressed with zstd"),
        (entry("/etc/passwd"), "'/etc/passwd' is a name that leads out"),
        (entry("../up"), "'../up' is a name that leads out"),
        (entry("a/../../up"), "is a name that leads out"),
        (entry("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "'link' is a symbolic link"),
        (entry("link", type=tarfile.LNKTYPE, linkname="x"), "'link' is a hard link"),
        (entry("null", type=tarfile.CHRTYPE), "'null' is a device"),
        (entry("pipe", type=tarfile.FIFOTYPE), "'pipe' is a pipe"),
        (entry("odd", type=b"V"), "is an entry of the type b'V'"),
        (entry("twice", b"1") + entry("twice", b"2"), "'twice' is in it twice"),
        (entry("twice", b"1") + entry("./twice", b"2"), "'twice' is in it twice"),
        (entry("x", b"some", size=10_000), "'x' should have 10000 bytes"),
        (entry("x", type=tarfile.XHDTYPE, size=1 << 40), "a header of 1099511627776 bytes"),
        (entry("x", type=tarfile.GNUTYPE_LONGNAME, size=1 << 30), "a header of 1073741824 bytes"),
        (entry("x", b"11 size=-1\n", type=tarfile.XHDTYPE) + entry("y"), "a header says the size"),
        (entry("x", b"no pax", type=tarfile.XHDTYPE) + entry("y"), "a pax header that cannot be understood"),
        (entry("x", b"15 path=/escape", type=tarfile.XHDTYPE) + entry("y"), "is a name that leads out"),
        (entry("x", b"22 GNU.sparse.major=1\n", type=tarfile.XHDTYPE) + entry("y"), "sparse file"),
        (entry("n" * 90 + "/" + "m" * 5000), "a name of more than 4096 bytes"),
    ],
)  # fmt: skip
def test_what_has_no_business_in_an_archive_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        scanned(data + trailer() if len(data) >= 512 else data)


def test_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MAX_TAR_ENTRIES", 3)
    with pytest.raises(ValueError, match="more than 3 entries"):
        scanned(b"".join(entry(f"file{number}") for number in range(4)) + trailer())


@given(st.binary(max_size=3000))
def test_any_bytes_are_files_or_refused(data: bytes) -> None:
    try:
        found = scanned(data)
    except ValueError:
        return
    assert all(at.offset + at.size <= len(data) for at in found.values())


@given(st.integers(0, 2047), st.integers(1, 255))
def test_an_altered_header_never_names_bytes_beyond_the_file(at: int, change: int) -> None:
    data = bytearray(entry("index.json", b"{}") + entry("blobs/x", b"y" * 300) + trailer())
    data[at % len(data)] ^= change
    try:
        found = scanned(bytes(data))
    except ValueError:
        return
    assert all(0 <= each.offset <= each.offset + each.size <= len(data) for each in found.values())
