"""Notifications to systemd (sd_notify(3)): datagrams to `$NOTIFY_SOCKET`; nothing is sent without one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from replicator.ports import Clock

_MICROSECONDS: Final = 1_000_000
AGAIN_SECONDS: Final = 1.0
"""After a check that found the agent unhealthy."""


class Systemd:
    """Notifies the service manager. Never raises: a manager that cannot be reached must not end the service."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        self._status = ""
        usec = environ.get("WATCHDOG_USEC", "")
        mine = environ.get("WATCHDOG_PID", "") in {"", str(os.getpid())}
        self.watchdog_seconds = int(usec) / _MICROSECONDS if usec.isdigit() and mine and int(usec) else None
        """Without a keep-alive for this long, the service is killed; None: no watchdog."""

    def ready(self, status: str) -> None:
        """The service is ready, or has finished reloading."""
        self._status = status
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self) -> None:
        """The service begins to reload; `ready` must follow."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self, status: str) -> None:
        """The service begins to stop."""
        self._status = status
        self._send(f"STOPPING=1\nSTATUS={_line(status)}")

    def status(self, text: str) -> None:
        """One sentence for `systemctl status`; sent only when it changes."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={_line(text)}")

    async def keep_alive(self, health: Callable[[], str | None], clock: Clock) -> None:
        """Sends keep-alives at half the watchdog's interval while `health` returns None.

        After a stall (a blocked loop, a machine that slept) this may wake before the scheduler has had its turn. Then it
        checks again soon: only half an interval is left.
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
