"""Optional powers of sites, repositories and blobs: protocols that are discovered by `isinstance`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from abc import ABCMeta as _ProtocolMeta
else:
    _ProtocolMeta = type(Protocol)

_KNOWN: Final[dict[tuple[type, type], bool]] = {}


class Power(_ProtocolMeta):
    """The metaclass of a protocol that a class has or has not: each class is looked at once.

    Python 3.11 looks for every member each time, which takes 3 to 16 microseconds, and a small image asks 15 times.
    """

    def __instancecheck__(self, instance: object) -> bool:
        """Whether objects of this class have the power."""
        key = (self, type(instance))
        known = _KNOWN.get(key)
        if known is None:
            known = _KNOWN[key] = super().__instancecheck__(instance)
        return known
