"""Dockerfiles and Containerfiles: what `FROM`, `COPY --from` and `RUN --mount` pull.

Source: Dockerfile reference. Only global `ARG`s (before the first `FROM`) count in `FROM`, as there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from replicator.lists.findings import FileLine, Findings, Mention, Remark
from replicator.lists.interpolation import interpolate

_ESCAPE: Final = re.compile(r"#\s*escape\s*=\s*(\S)\s*$", re.IGNORECASE)
_SYNTAX: Final = re.compile(r"#\s*syntax\s*=\s*(\S+)\s*$", re.IGNORECASE)
_HEREDOC: Final = re.compile(r"<<-?\s*[\"']?([A-Za-z_][A-Za-z0-9_]*)[\"']?")
_STAGE_NUMBER: Final = re.compile(r"[0-9]+")


_NOT_IMAGES: Final = frozenset({"scratch"})


def read_dockerfile(text: str, file: str, arguments: Mapping[str, str]) -> Findings:
    """The images that a build pulls. Stages, stage numbers and `scratch` are not images.

    Args:
        text: the file.
        file: its name, for places.
        arguments: values that override the defaults of `ARG`, as `--build-arg` does.
    """
    reader = _Reader(file, arguments)
    for number, line in _instructions(text, reader):
        reader.take(number, line)
    return reader.found


class _Reader:
    def __init__(self, file: str, arguments: Mapping[str, str]) -> None:
        self.found = Findings()
        self._file = file
        self._given = arguments
        self._arguments: dict[str, str] = {}
        self._stages: set[str] = set()
        self._has_from = False

    def directive(self, number: int, syntax: str) -> None:
        """`# syntax=`: BuildKit pulls this image before it builds."""
        self.found.notes.append(
            Remark(
                FileLine(self._file, number),
                f"BuildKit pulls {syntax} for `# syntax=`; add it to a list if it is needed",
            )
        )

    def take(self, number: int, line: str) -> None:
        """One instruction, its continuations joined."""
        keyword, _, rest = line.partition(" ")
        match keyword.upper():
            case "ARG" if not self._has_from:
                self._declare(rest)
            case "FROM":
                self._has_from = True
                self._from(number, rest)
            case "COPY" | "ADD":
                self._sources(number, rest, "--from=")
            case "RUN":
                self._mounts(number, rest)
            case _:
                pass

    def _declare(self, rest: str) -> None:
        for word in rest.split():
            name, equals, default = word.partition("=")
            if name in self._given:
                self._arguments[name] = self._given[name]
            elif equals:
                try:
                    self._arguments[name] = interpolate(default.strip("\"'"), self._arguments)
                except ValueError:
                    self._arguments.pop(name, None)  # whoever uses it is told

    def _from(self, number: int, rest: str) -> None:
        words = [word for word in rest.split() if not word.startswith("--")]
        if not words:
            self._problem(number, "FROM names no image")
            return
        if len(words) >= 3 and words[1].upper() == "AS":
            self._image(number, words[0])
            self._stages.add(words[2].lower())
        else:
            self._image(number, words[0])

    def _sources(self, number: int, rest: str, flag: str) -> None:
        for word in rest.split():
            if not word.startswith("--"):
                return
            if word.startswith(flag):
                self._image(number, word.removeprefix(flag))

    def _mounts(self, number: int, rest: str) -> None:
        for word in rest.split():
            if not word.startswith("--"):
                return
            if word.startswith("--mount="):
                for option in word.removeprefix("--mount=").split(","):
                    if option.startswith("from="):
                        self._image(number, option.removeprefix("from="))

    def _image(self, number: int, text: str) -> None:
        try:
            name = interpolate(text.strip("\"'"), self._arguments)
        except ValueError as error:
            self._problem(number, f"{text}: {error}; give ARG a default")
            return
        if name.lower() in self._stages or name in _NOT_IMAGES or _STAGE_NUMBER.fullmatch(name):
            return
        self.found.mentions.append(Mention(name, FileLine(self._file, number)))

    def _problem(self, number: int, text: str) -> None:
        self.found.problems.append(Remark(FileLine(self._file, number), text))


def _instructions(text: str, reader: _Reader) -> Iterator[tuple[int, str]]:
    """Instructions with the number of their first line: comments out, continuations joined, heredocs skipped."""
    lines = iter(enumerate(text.splitlines(), 1))
    escape = _directives(text, reader)
    parts: list[str] = []
    first = 0
    for number, raw in lines:
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        first = first or number
        if line.endswith(escape):
            parts.append(line[:-1].strip())
            continue
        whole = " ".join([*parts, line])
        yield first, whole
        parts, first = [], 0
        _skip_heredocs(whole, lines)
    if parts:
        yield first, " ".join(parts)


def _directives(text: str, reader: _Reader) -> str:
    """Reads the parser directives at the top. Returns the escape character."""
    escape = "\\"
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line.startswith("#"):
            break
        if found := _ESCAPE.match(line):
            escape = found[1]
        elif found := _SYNTAX.match(line):
            reader.directive(number, found[1])
    return escape


def _skip_heredocs(instruction: str, lines: Iterator[tuple[int, str]]) -> None:
    if instruction[:4].upper() not in {"RUN ", "COPY", "ADD "}:
        return
    for marker in _HEREDOC.findall(instruction):
        for _, inside in lines:
            if inside.strip() == marker:
                break
