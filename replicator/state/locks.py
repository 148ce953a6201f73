"""Who may run at once: `flock` on files beside the state.

The kernel frees a lock when its process ends, however it ends, so a lock file that lies about means nothing
and none is ever removed (removing one would let two processes lock two files of one name). Nothing here waits, but
for a moment `hold_replacement`.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from replicator.errors import StateError, StateInUse
from replicator.state.paths import PERMIT, make_folder, rule_lock, state_lock
from replicator.state.place import Claim, Place, PostgresPlace


def hold(place: Place, claim: Claim) -> AbstractContextManager[None]:
    """Holds what is claimed of a state's file while the context lasts; `hold_rules` and `hold_state` say what that means.

    Of a database it holds nothing: its locks are those of the connection that `store.open_state` opens.
    """
    if isinstance(place, PostgresPlace):
        return nullcontext()
    return hold_rules(place, claim.rules) if claim.kind == "sync" else hold_state(place)


@contextmanager
def hold_rules(state: Path, rules: Sequence[str]) -> Iterator[None]:
    """Holds the rules for one `sync`, and the state against an agent, while the context lasts.

    The state's lock is shared (other rules may be run by others; an agent takes it exclusively), each rule's
    is exclusive. All or none are held.

    Raises:
        StateInUse: an agent has the state, or another process runs one of the rules; names its pid.
        StateError: a lock file cannot be made or locked.
    """
    make_folder(state)
    with ExitStack() as held:
        file = _open(held, state_lock(state))
        _lock(
            file,
            state_lock(state),
            fcntl.LOCK_SH,
            f"state {state} is in use",
            "if that is an agent, ask it: sync --remote URL",
        )
        for rule in sorted(set(rules)):
            path = rule_lock(state, rule)
            file = _open(held, path)
            _lock(file, path, fcntl.LOCK_EX, f"rule {rule!r} is being run", "wait until it ends")
            _write_pid(file)
        yield


@contextmanager
def hold_state(state: Path) -> Iterator[None]:
    """Holds the whole state, for an agent, while the context lasts: no `sync` and no other agent runs beside it.

    Raises:
        StateInUse: another agent has it (names its pid), or a `sync` is running.
        StateError: the lock file cannot be made or locked.
    """
    make_folder(state)
    path = state_lock(state)
    with ExitStack() as held:
        file = _open(held, path)
        _lock(file, path, fcntl.LOCK_EX, f"state {state} is in use", "one state is for one agent")
        _write_pid(file)
        try:
            yield
        finally:
            _forget_pid(file)


@contextmanager
def hold_replacement(state: Path) -> Iterator[None]:
    """Holds the right to replace a state file of another schema. Waits for whoever does so just now, which takes no time.

    Raises:
        StateError: the lock file cannot be created or locked.
    """
    path = state.with_name(f"{state.name}.replace.lock")
    with ExitStack() as held:
        file = _open(held, path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise StateError(f"lock file {path}: {error.strerror or error}") from error
        yield


def _open(held: ExitStack, path: Path) -> int:
    """Opens the lock file until `held` is left, which gives the lock back as well."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        advice = f"; {PERMIT}" if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS} else ""
        raise StateError(f"lock file {path}: {error.strerror or error}{advice}") from error
    held.callback(os.close, file)
    return file


def _lock(file: int, path: Path, kind: int, what: str, advice: str) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = _read_pid(file)
        holder = "another process" if pid is None else f"process {pid}"
        raise StateInUse(f"{what} by {holder}: {advice}", pid=pid) from error
    except OSError as error:  # a network file system without locks
        raise StateError(f"lock file {path}: {error.strerror or error}") from error


def _write_pid(file: int) -> None:
    """Says who holds the lock. A failure does not matter: the pid is only for a message."""
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    except OSError:  # a full disk
        return


def _forget_pid(file: int) -> None:
    """The lock is about to be given back; who holds it next may not say so (a `sync` holds it with others)."""
    with suppress(OSError):
        os.ftruncate(file, 0)


def _read_pid(file: int) -> int | None:
    try:
        return int(os.pread(file, 32, 0))
    except (OSError, ValueError):
        return None
