"""What systemd is told (sd_notify(3)): a datagram to `$NOTIFY_SOCKET`; without one, nothing is told."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from replicator.ports import Clock

_MICROSECONDS: Final = 1_000_000
AGAIN_SECONDS: Final = 1.0
"""After a look at which the agent was not well."""


class Systemd:
    """Tells the service manager. Never raises: a manager that cannot be reached must not end the service."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        self._status = ""
        usec = environ.get("WATCHDOG_USEC", "")
        mine = environ.get("WATCHDOG_PID", "") in {"", str(os.getpid())}
        self.watchdog_seconds = int(usec) / _MICROSECONDS if usec.isdigit() and mine and int(usec) else None
        """Without a `watchdog` for so long, the service is killed; None: nobody watches."""

    def ready(self, status: str) -> None:
        """It serves, or has finished reloading."""
        self._status = status
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self) -> None:
        """It begins to reload; `ready` must follow."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self, status: str) -> None:
        """It begins to end."""
        self._status = status
        self._send(f"STOPPING=1\nSTATUS={_line(status)}")

    def status(self, text: str) -> None:
        """One sentence for `systemctl status`; sent when it is another than before."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={_line(text)}")

    async def keep_alive(self, health: Callable[[], str | None], clock: Clock) -> None:
        """Tells that it is alive, twice as often as is asked for, while `health` has nothing to say against it.

        After a stall (a loop that was blocked, a machine that slept) this may wake before what `health` asks about has
        had its turn. So then it looks again soon: half an interval more would be all that is left.
        """
        while self.watchdog_seconds is not None:
            wait = self.watchdog_seconds / 2
            if health() is None:
                self._send("WATCHDOG=1")
            else:
                wait = min(wait, AGAIN_SECONDS)
            await clock.sleep(wait)

    def _send(self, message: str) -> None:
        if not self._path.startswith(("/", "@")):
            return
        address = f"\0{self._path[1:]}" if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), address)
        except OSError:
            return


def _line(text: str) -> str:
    return " ".join(text.split())
