"""What the agent asks of its state, wherever that is kept."""

from __future__ import annotations

from typing import Protocol

from replicator.ports import State
from replicator.ports.search import ImageIndex
from replicator.state.recall import Notified


class Memory(State, ImageIndex, Protocol):
    """The state of `ports`, its index of images, and what only an agent keeps: paused rules, and what was notified."""

    async def paused(self) -> frozenset[str]:
        """The rules that are paused. Raises StateError."""
        ...

    async def set_paused(self, rule: str, paused: bool) -> None:  # noqa: FBT001  # what is set, not a switch
        """Pauses or resumes a rule; durable on return. Raises StateError."""
        ...

    async def told(self) -> frozenset[Notified]:
        """What receivers of notifications know of. Raises StateError."""
        ...

    async def tell(self, told: Notified) -> None:
        """Notes that a receiver knows of a condition; durable on return. Raises StateError."""
        ...

    async def untell(self, told: Notified) -> None:
        """Notes that a receiver knows of the condition's end; durable on return. Raises StateError."""
        ...
