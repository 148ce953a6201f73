"""The steps by which a database gets today's tables, in order. A step that has been released never changes.

Agents of two generations of the program share a database while it is being upgraded. So what a generation needs is added
first (expand), and what only older ones need is removed by a later step (contract), when none of them runs any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

CODE: Final = 1
"""The generation of this program: the highest `code` of `STEPS`."""
BESIDE: Final = 1
"""The oldest generation whose agents may run at the same time as this program."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change.

    `code`: the generation that brought it. `oldest`: the oldest generation that can use the database afterwards; a step that
    raises it waits until no older agent is connected.
    """

    name: str
    code: int
    apply: Callable[[Any], object]
    """Called with psycopg's connection, inside a transaction that the caller ends."""
    oldest: int = 1


def script(name: str) -> Callable[[Any], object]:
    """The statements of a file in this folder."""

    def apply(connection: Any) -> object:
        return connection.execute(files(__package__).joinpath(name).read_bytes())

    return apply


STEPS: Final = (
    Step("0001_state", 1, script("0001_state.sql")),
    Step("0002_fleet", 1, script("0002_fleet.sql")),
    Step("0003_procrastinate", 1, script("0003_procrastinate.sql")),
    Step("0004_alone", 1, script("0004_alone.sql")),
)
