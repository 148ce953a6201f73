"""Servers as processes of their own: started on a free port, waited for, ended."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import pytest

PATIENCE_SECONDS: Final = 60.0
TURN_SECONDS: Final = 0.02
PORTS_OF_CONNECTIONS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
ROOT: Final = Path(__file__).parents[2]

_REMOVED: Final = re.compile(r"AWS_CA_BUNDLE|(?:https?|no|all|ftp)_proxy|OTEL_.*|REGISTRY_.*", re.IGNORECASE)


class MissingProgram(UserWarning):
    """What tests need is missing, such as a program, so that they were skipped."""


def require(program: str) -> str:
    """The program's path, where it is on the PATH, in `.tools/bin` or in `/usr/sbin`.

    Where it is not, see `lacking`.
    """
    path = shutil.which(program) or shutil.which(program, path=f"{ROOT / '.tools' / 'bin'}:/usr/sbin")
    if path is None:
        lacking(f"{program} is not installed")
    return path


def lacking(what: str) -> NoReturn:
    """Fails the test under REPLICATOR_REQUIRE_SERVERS=1; skips it, with a warning in the summary, without."""
    if os.environ.get("REPLICATOR_REQUIRE_SERVERS") == "1":
        pytest.fail(f"{what}, and REPLICATOR_REQUIRE_SERVERS=1", pytrace=False)
    with warnings.catch_warnings():
        warnings.simplefilter("default", MissingProgram)
        warnings.warn(f"{what}: tests are skipped", MissingProgram, stacklevel=3)
    pytest.skip(what)


def clean_environment() -> dict[str, str]:
    """This process's environment without what would lead a child astray: proxies, certificate bundles."""
    return {name: value for name, value in os.environ.items() if not _REMOVED.fullmatch(name)}


def free_port() -> int:
    """A port that was free a moment ago; for servers that cannot take one by themselves.

    No connection takes it meanwhile, which it might if the system had chosen it; the system does where it leaves few.
    """
    try:
        first_of_connections = int(PORTS_OF_CONNECTIONS.read_text().split()[0])
    except OSError:
        first_of_connections = 0
    ports = range(max(10_000, first_of_connections - 15_000), first_of_connections)
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", secrets.choice(ports) if len(ports) > 1_000 else 0))
            return int(probe.getsockname()[1])


class Process:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Waits until the log has the pattern; fails where the process ends first or takes too long."""
        for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
            match = re.search(pattern, self.log)
            if match is not None:
                return match
            self.turn()
        raise TimeoutError(f"no {pattern!r} within {PATIENCE_SECONDS:.0f} s in:\n{self.log}")

    def turn(self) -> None:
        """Waits a moment; raises if the process ended."""
        try:
            self._process.wait(TURN_SECONDS)
        except subprocess.TimeoutExpired:
            return
        raise ChildProcessError(f"ended with {self._process.returncode}:\n{self.log}")

    def wait_until_listening(self, port: int) -> None:
        """Waits until somebody accepts connections there."""
        for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            self.turn()
        raise TimeoutError(f"nobody listens on {port}:\n{self.log}")


@contextmanager
def running(command: Sequence[str], log: Path, **environment: str) -> Iterator[Process]:
    """Runs a server until the context is left; then it is terminated, and killed if it does not heed that."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=clean_environment() | environment,
        )
    try:
        yield Process(child, log)
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
