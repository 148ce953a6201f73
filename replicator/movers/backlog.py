"""What the other side of a connection has not taken yet."""

from __future__ import annotations

import array
import fcntl
import termios


def backlog(descriptor: int) -> int:
    """How many bytes the system keeps for a socket because the other side has not taken them (Linux's SIOCOUTQ).

    0 where that cannot be told: the socket is closed, or not one of TCP.
    """
    count = array.array("i", [0])
    try:
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, count)
    except (OSError, ValueError):
        return 0
    return count[0]
