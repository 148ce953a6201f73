"""The files of a list: names, globs, directories and standard input, read within bounds."""

from __future__ import annotations

import glob
import itertools
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from replicator.lists.compose import Opened, OpenFile
from replicator.lists.document import DocumentError, documents
from replicator.lists.findings import FileLine, Findings, Remark
from replicator.lists.formats import read_text
from replicator.lists.reading import Reading

MAX_BYTES: Final = 32 * 1024 * 1024
"""Of one file. The longest list known, all images of all Rancher releases, has 300 kB; a rendered chart a few MB."""
MAX_FILES: Final = 10_000
STDIN: Final = "-"
_SUFFIXES: Final = frozenset({".txt", ".list", ".yaml", ".yml", ".json", ".dockerfile", ".containerfile"})
_NAMES: Final = ("dockerfile", "containerfile")


class ListError(ValueError):
    """A list cannot be read; names it and says why."""


def read_files(names: Sequence[str], base: Path, reading: Reading) -> Findings:
    """What the lists mention. A file that cannot be read is a problem; the others are read all the same.

    Args:
        names: files, globs (`*`, `?`, `[...]`, `**`), directories (their lists, not hidden ones), `-` for stdin.
        base: what relative names start from.
        reading: how they are read. `.env` beside a Compose file is read below `reading.variables`.
    """
    found = Findings()
    for name in names:
        if name == STDIN:
            found.add([_read(STDIN, "<stdin>", reading, None)])
            continue
        if "://" in name:
            found.problems.append(
                Remark(
                    FileLine(name, 0),
                    "is a URL; lists are not downloaded: fetch it, check its checksum, name the file",
                )
            )
            continue
        try:
            files = list(_files(name, base))
        except ListError as error:
            found.problems.append(Remark(FileLine(name, 0), str(error)))
            continue
        for file in files:
            found.add([_read(str(file), _shown(file, base), *_beside(file, base, reading))])
    return found


def _files(name: str, base: Path) -> Iterator[Path]:
    path = base / name
    if path.is_dir():
        yield from _in_directory(path)
        return
    if path.exists() or not glob.has_magic(name):
        yield path
        return
    plain = list(itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    matches = Path(*plain).glob("/".join(path.parts[len(plain) :]))
    files = sorted(each for each in itertools.islice(matches, 2 * MAX_FILES) if not each.is_dir())
    if not files:
        raise ListError("matches no file")
    if len(files) > MAX_FILES:
        raise ListError(f"matches more than {MAX_FILES} files")
    yield from files


def _in_directory(directory: Path) -> Iterator[Path]:
    """The lists below a directory, by their names; links to directories are not followed."""
    count = 0
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith(".") or not (
                path.suffix.lower() in _SUFFIXES or name.lower().startswith(_NAMES)
            ):
                continue
            count += 1
            if count > MAX_FILES:
                raise ListError(f"has more than {MAX_FILES} lists")
            yield path
    if not count:
        raise ListError("is a directory without lists (.txt, .list, .yaml, .yml, .json, Dockerfile)")


def _read(name: str, shown: str, reading: Reading, open_file: OpenFile | None) -> Findings:
    try:
        text = _text(name)
    except ListError as error:
        return Findings(problems=[Remark(FileLine(shown, 0), str(error))])
    found = read_text(text, shown, reading, open_file)
    if not (found.mentions or found.problems or found.notes):
        found.problems.append(Remark(FileLine(shown, 0), "names no image"))
    return found


def _text(name: str) -> str:
    """The text of a file or (`-`) of stdin. Raises `ListError`."""
    try:
        data = sys.stdin.buffer.read(MAX_BYTES + 1) if name == STDIN else _bytes(Path(name))
    except OSError as error:
        raise ListError(f"cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise ListError(f"is larger than {MAX_BYTES // 1024 // 1024} MiB")
    return _decoded(data)


def _bytes(path: Path) -> bytes:
    # Not blocking: a FIFO without a writer would hold the run for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ListError("is not a regular file")
        return file.read(MAX_BYTES + 1)


def _decoded(data: bytes) -> str:
    """UTF-8 with or without a byte order mark; UTF-16 with one, as Windows editors and PowerShell's `>` write it."""
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ListError(f"line {line}: not UTF-8 text") from error
    if "\0" in text:
        raise ListError(
            f"line {text.count(chr(10), 0, text.index(chr(0))) + 1}: NUL character; not a text file"
        )
    return text


def _beside(file: Path, base: Path, reading: Reading) -> tuple[Reading, OpenFile]:
    """How this file is read: Compose files find `.env` and other files in their own directory."""
    variables = _dotenv(file.parent / ".env") | dict(reading.variables)
    return replace(reading, variables=variables), _opener(file.parent, base)


def _opener(folder: Path, base: Path) -> OpenFile:
    """Opens what a Compose file in this directory names."""

    def open_file(name: str) -> Opened:
        path = Path(os.path.normpath(folder / name))
        try:
            document = next(iter(documents(_text(str(path)))), None)
        except DocumentError as error:
            raise ValueError(f"{name}:{error.line}: not valid YAML: {error}") from error
        except ListError as error:
            raise ValueError(f"{name} {error}") from error
        return Opened(document, _shown(path, base), _opener(path.parent, base))

    return open_file


def _dotenv(path: Path) -> dict[str, str]:
    try:
        text = _text(str(path))
    except ListError:
        return {}  # most have none; a variable that is missing is named where it is used
    return parse_dotenv(text)


def parse_dotenv(text: str) -> dict[str, str]:
    """`NAME=value` lines as Compose reads them: comments, `export`, quotes."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        else:
            value = value.partition(" #")[0].strip()
        found[name.strip()] = value
    return found


def _shown(file: Path, base: Path) -> str:
    return str(file.relative_to(base)) if file.is_relative_to(base) else str(file)
