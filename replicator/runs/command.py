"""Runs commands of the config: argument list, no shell, JSON on stdin, a time limit."""

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
"""Variables that a command gets, besides those that begin with `_PREFIXES`.

An allow list, because our environment also has AWS_SECRET_ACCESS_KEY, DOCKER_AUTH_CONFIG, proxy logins and secrets of the
config. NOTIFY_SOCKET is only for this process.
"""
_PREFIXES: Final = ("LC_", "XDG_")


async def run_command(
    argv: Sequence[str], data: bytes, seconds: float, *, env: Mapping[str, str] = MappingProxyType({})
) -> str | None:
    """Runs the command to its end. None if it succeeded, else what went wrong, in one line.

    If it takes longer than `seconds`, or the caller is cancelled, it is killed with its whole process group. It need
    not read stdin; stdout is discarded, and the end of stderr is kept for the message. Processes that it leaves in the
    background are not waited for. Of our environment it gets only the variables of the allow list, and `env`.
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
    """The variables of an environment that a command may have."""
    return {
        name: value for name, value in environ.items() if name in _PASSED_ON or name.startswith(_PREFIXES)
    }


def _tell(transport: asyncio.SubprocessTransport, data: bytes) -> None:
    # Not an isinstance: uvloop's transports are of classes of its own.
    stdin = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
    stdin.write(data)
    stdin.close()  # once all is written, or nobody reads


class _Process(asyncio.SubprocessProtocol):
    """Not asyncio's own streams: those count a process as running while a grandchild has its stderr."""

    def __init__(self) -> None:
        self.exited = asyncio.Event()
        self.silent = asyncio.Event()
        """All ends of its stderr are closed."""
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
