"""A command of somebody else's: argument list, no shell, JSON on stdin, a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, cast

from replicator.scrub import scrub

_KEPT_BYTES: Final = 2_000
_GRACE_SECONDS: Final = 0.5
_PASSED_ON: Final = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "TMPDIR", "LANG", "LANGUAGE", "HOSTNAME"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
        *(
            "STATE_DIRECTORY",
            "CACHE_DIRECTORY",
            "RUNTIME_DIRECTORY",
            "LOGS_DIRECTORY",
            "CONFIGURATION_DIRECTORY",
        ),
        *("INVOCATION_ID", "SYSTEMD_EXEC_PID"),
    }
)
"""Variables that a command gets, with those that begin with `_PREFIXES`.

An allow list: AWS_SECRET_ACCESS_KEY, DOCKER_AUTH_CONFIG, a proxy's login and the secrets of the config are in our
environment as well, and NOTIFY_SOCKET is between the service manager and this process alone.
"""
_PREFIXES: Final = ("LC_", "XDG_")


async def run_command(
    argv: Sequence[str], data: bytes, seconds: float, *, env: Mapping[str, str] = MappingProxyType({})
) -> str | None:
    """Runs the command to its end; None where it succeeded, else what went wrong, in one line.

    One that takes longer than `seconds`, and one whose caller is cancelled, is killed with its whole process group.
    It need not read its stdin; its stdout goes nowhere, and of its stderr the end is kept for the message. What it
    leaves running in the background is not waited for. Of our environment it gets the
    harmless part only, and `env`.
    """
    try:
        transport, process = await asyncio.get_running_loop().subprocess_exec(
            _Process,
            *argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=clean_environment(os.environ) | dict(env),
            start_new_session=True,
        )
    except OSError as error:
        return f"{argv[0]} cannot be run: {error.strerror or error}"
    try:
        async with asyncio.timeout(seconds):
            _tell(transport, data)
            await process.exited.wait()
    except TimeoutError:
        return f"{argv[0]} took longer than {seconds:g} s and was killed"
    finally:
        if transport.get_returncode() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
            await process.exited.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                await process.silent.wait()
        transport.close()
    code = transport.get_returncode()
    if code == 0:
        return None
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with {code}"
    words = scrub(process.told.decode(errors="replace"), _KEPT_BYTES)
    return f"{argv[0]} {how}{f': {words}' if words else ''}"


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that a command of somebody else's may have."""
    return {
        name: value for name, value in environ.items() if name in _PASSED_ON or name.startswith(_PREFIXES)
    }


def _tell(transport: asyncio.SubprocessTransport, data: bytes) -> None:
    # Not an isinstance: uvloop's transports are of classes of its own.
    stdin = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
    stdin.write(data)
    stdin.close()  # once all is written, or nobody reads


class _Process(asyncio.SubprocessProtocol):
    """Told by the loop. Not asyncio's own streams: those count a process as running while a grandchild has its stderr."""

    def __init__(self) -> None:
        self.exited = asyncio.Event()
        self.silent = asyncio.Event()
        """Nobody has its stderr any more."""
        self.told = bytearray()

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002  # asyncio's signature
        """Keeps the end of stderr, the one pipe that is read."""
        self.told += data
        del self.told[:-_KEPT_BYTES]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """A pipe was closed."""
        if fd == 2:
            self.silent.set()

    def process_exited(self) -> None:
        """The process itself has ended."""
        self.exited.set()
