"""Where the state and its lock files are. Standard library only: locks are taken before SQLAlchemy is imported."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from replicator.errors import StateError

PERMIT: Final = "make the file and its folder writable for the user that replicator runs as, or set agent.state to another path"
"""What to do where the state is read-only."""

_LONGEST_RULE: Final = 120
"""File names end at 255 bytes; the state's own name and the suffixes need the rest."""


def make_folder(state: Path) -> None:
    """Makes the folder the state lies in, for its owner alone. Raises `StateError`."""
    try:
        state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"state {state}: its folder cannot be made: {error.strerror or error}") from error


def make_file(state: Path) -> None:
    """Makes the state's file, empty and for its owner alone, if it does not exist; an existing one stays as it is.

    SQLite would make it readable by everybody; the files beside it (`-wal`, `-shm`) get its mode. Raises nothing:
    SQLite, which opens the file next, says what is wrong.
    """
    with suppress(OSError):
        # O_EXCL: a file that is there is not even opened. Closing it would free the locks that this process has on it.
        os.close(os.open(state, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def state_lock(state: Path) -> Path:
    """The lock file of the whole state."""
    return state.with_name(f"{state.name}.lock")


def rule_lock(state: Path, rule: str) -> Path:
    """The lock file of one rule; two rules never share one."""
    safe = quote(rule, safe="", errors="backslashreplace")
    if len(safe) > _LONGEST_RULE:
        # `=` never comes out of quote(), so no short rule is named like a shortened one.
        safe = f"{safe[:40]}={hashlib.sha256(safe.encode()).hexdigest()}"
    return state.with_name(f"{state.name}.rule.{safe}.lock")
