"""What reading a list yields: images that it mentions, problems, and notes, each with file and line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec


class FileLine(NamedTuple):
    """A line of a file. `line` counts from 1; 0 is the file as a whole."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Mention(NamedTuple):
    """An image as a list writes it, not parsed yet."""

    text: str
    place: FileLine


class Remark(NamedTuple):
    """A problem or a note, one line."""

    place: FileLine
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class Findings(msgspec.Struct):
    """What one or more lists mention, in the order of the lines.

    `problems` are images that cannot be taken, or files that cannot be read: failures of the run.
    `notes` are worth knowing, but not failures: a Compose service that is only built, for example.
    """

    mentions: list[Mention] = msgspec.field(default_factory=list)
    problems: list[Remark] = msgspec.field(default_factory=list)
    notes: list[Remark] = msgspec.field(default_factory=list)

    def add(self, others: Sequence[Findings]) -> None:
        """Appends what other lists yielded."""
        for other in others:
            self.mentions += other.mentions
            self.problems += other.problems
            self.notes += other.notes
