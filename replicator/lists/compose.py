"""Compose files: the images of their services, variables replaced, `extends` followed.

Source: Compose specification ("services", "extends", "include", "profiles", "interpolation").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from replicator.lists import document as yaml
from replicator.lists.document import Node, Text, at, items
from replicator.lists.findings import FileLine, Findings, Mention, Remark
from replicator.lists.interpolation import interpolate

MAX_EXTENDS: Final = 16


@dataclass(frozen=True, slots=True)
class ComposeContext:
    """What a Compose file needs beside itself.

    `variables`: the environment with the project's `.env` below it. `open_file`: another file, by the name that this one
    gives it; raises ValueError where it cannot be read. `profiles`: services of other profiles are skipped; None takes all.
    """

    variables: Mapping[str, str]
    open_file: OpenFile
    profiles: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """Another Compose file. `file`: its name, for places. `open_file`: the files that it names, from where it is."""

    document: Node
    file: str
    open_file: OpenFile


OpenFile = Callable[[str], Opened]


def is_compose(document: Node) -> bool:
    """Whether the document has services."""
    return isinstance(at(document, "services"), yaml.Mapping)


def read_compose(
    document: Node, file: str, context: ComposeContext, including: tuple[str, ...] = ()
) -> Findings:
    """The images of the services. `including`: the files that led here by `include`, so that a circle ends."""
    reader = _Reader(file, context, including)
    for name, service in yaml.mapping(at(document, "services")).items():
        reader.service(name, service, document)
    for path in _included(document):
        reader.include(path)
    return reader.found


class _Reader:
    def __init__(self, file: str, context: ComposeContext, including: tuple[str, ...]) -> None:
        self.found = Findings()
        self._file = file
        self._context = context
        self._including = including

    def service(self, name: str, service: Node, document: Node) -> None:
        """One service of this file."""
        place = FileLine(self._file, name.line if isinstance(name, Text) else 0)
        profiles = {text for text in items(at(service, "profiles")) if isinstance(text, Text)}
        if self._context.profiles is not None and profiles and not profiles & self._context.profiles:
            self.found.notes.append(
                Remark(place, f"service {name} skipped: profiles {', '.join(sorted(profiles))}")
            )
            return
        try:
            image, file = self._image(service, document)
        except ValueError as error:
            self.found.problems.append(Remark(place, f"service {name}: {error}"))
            return
        if image is None:
            what = "is only built" if at(service, "build") is not None else "has neither image nor build"
            self.found.notes.append(Remark(place, f"service {name} skipped: it {what}"))
            return
        self._mention(image, FileLine(file, image.line))

    def _mention(self, image: Text, where: FileLine) -> None:
        try:
            self.found.mentions.append(Mention(interpolate(image, self._context.variables), where))
        except ValueError as error:
            self.found.problems.append(Remark(where, f"{image}: {error}"))

    def _image(self, service: Node, document: Node) -> tuple[Text | None, str]:
        """The service's own image, else that of the service that it extends, and the file that names it."""
        name, open_file = self._file, self._context.open_file
        for _ in range(MAX_EXTENDS):
            image = at(service, "image")
            if isinstance(image, Text):
                return image, name
            extends = at(service, "extends")
            if extends is None:
                return None, name
            other = str((extends if isinstance(extends, Text) else at(extends, "service")) or "")
            file = at(extends, "file")
            if isinstance(file, Text):
                opened = open_file(interpolate(file, self._context.variables))
                document, name, open_file = opened.document, opened.file, opened.open_file
            service = at(document, "services", other)
            if service is None:
                raise ValueError(f"extends {other}, which is not found{f' in {file}' if file else ''}")
        raise ValueError(f"extends more than {MAX_EXTENDS} others in a row")

    def include(self, path: Text) -> None:
        """A file that this one includes is read as if it were named itself."""
        try:
            opened = self._opened_once(path)
        except ValueError as error:
            self.found.problems.append(Remark(FileLine(self._file, path.line), f"include {path}: {error}"))
            return
        inside = replace(self._context, open_file=opened.open_file)
        self.found.add([read_compose(opened.document, opened.file, inside, (*self._including, opened.file))])

    def _opened_once(self, path: Text) -> Opened:
        opened = self._context.open_file(interpolate(path, self._context.variables))
        if opened.file in self._including or len(self._including) >= MAX_EXTENDS:
            raise ValueError("files include each other in a circle")
        return opened


def _included(document: Node) -> list[Text]:
    paths: list[Text] = []
    for entry in items(at(document, "include")):
        path = entry if isinstance(entry, Text) else at(entry, "path")
        paths += [text for text in (items(path) or [path]) if isinstance(text, Text)]
    return paths
