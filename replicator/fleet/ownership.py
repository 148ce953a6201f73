"""What an agent may work on: claims that hold while its session stands, and are confirmed before each write."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from replicator.errors import OwnershipLostError, StateError
from replicator.fleet.session import Session
from replicator.model.digest import Digest

_IS_MINE: Final = "SELECT 1 FROM procrastinate_jobs WHERE id = %s AND status = 'doing'"


class Claim:
    """One job's ownership of what it works on; a `ports.fleet.Ownership`.

    Args:
        session: whose locks it has.
        names: the locks.
        job: the job's number in the queue. One that is taken over gets another number.
    """

    def __init__(self, session: Session, names: Sequence[str], job: int) -> None:
        self.session = session
        self.names = tuple(names)
        self.job = job
        self.generation = session.generation
        self.own: frozenset[str] = frozenset()
        self.is_lost = False
        self.on_lost: Callable[[], None] = _nothing
        """Called once, when it turns out that another agent may have the work now."""

    async def confirm(self) -> None:
        """Returns if the work is still this job's, by the word of the database. Raises OwnershipLostError."""
        for _ in range(3):
            if self.is_lost:
                break
            try:
                if await self.session.alive() == self.generation and not self.is_lost:
                    return
                await self.session.wait()
            except StateError:
                with contextlib.suppress(StateError):
                    await self.session.wait()
        self.lose()
        raise OwnershipLostError("the work was taken over by another agent, or the database is away for long")

    def lose(self) -> None:
        """Another may have it now."""
        if not self.is_lost:
            self.is_lost = True
            self.on_lost()


class Claims:
    """All claims of this agent.

    A session's own lock can be taken twice; so this counts, and does not give what the agent has already.
    """

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._claims: set[Claim] = set()

    async def take(
        self, session: Session, names: Sequence[str], job: int, *, shared: Sequence[str] = ()
    ) -> Claim | None:
        """Claims all of the names for a job, or (None) nothing, if another has one of them. Raises StateError.

        `shared`: names that other jobs of this agent may have at the same time, but none of another agent's.
        """
        if not self._held.isdisjoint(names):
            return None
        self._held.update(names)
        claim = Claim(session, (*names, *shared), job)
        claim.own = frozenset(names)
        try:
            if await _lock_all(session, claim.names):
                self._claims.add(claim)
                return claim
            return None
        finally:
            if claim not in self._claims:
                self._held.difference_update(names)

    async def give_back(self, claim: Claim) -> None:
        """Frees what a claim has."""
        if claim in self._claims:
            self._claims.discard(claim)
            if claim.generation == claim.session.generation:
                await _unlock_all(claim.session, claim.names)
            self._held.difference_update(claim.own)

    async def retake(self, session: Session) -> None:
        """Takes everything anew with another connection; claims are lost where somebody else has begun the job since."""
        for claim in list(self._claims):
            try:
                locked = await _lock_all(session, claim.names)
                mine = locked and await session.fetch(_IS_MINE, claim.job)
            except StateError:
                return  # away again; the next connection is another try
            if mine and claim in self._claims:  # else the job has ended meanwhile
                claim.generation = session.generation
                continue
            claim.lose()
            if locked:
                await _unlock_all(session, claim.names)  # whoever has the job now waits for them


class BlobClaims:
    """Blobs that this agent transfers now; a `ports.fleet.BlobClaims`. Without the database nobody waits for anybody."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @contextlib.asynccontextmanager
    async def claim(self, destination: str, digest: Digest) -> AsyncIterator[bool]:
        """Claims the transfer of a blob to a destination, if nobody else does it now."""
        name = f"blob {destination} {digest}"
        try:
            held = await self._session.try_lock(name)
        except StateError:
            yield True
            return
        try:
            yield held
        finally:
            if held:
                await asyncio.shield(self._session.unlock(name))


async def _lock_all(session: Session, names: Sequence[str]) -> bool:
    taken: list[str] = []
    try:
        for name in names:
            if not await session.try_lock(name):
                break
            taken.append(name)
        else:
            return True
    except BaseException:
        await asyncio.shield(_unlock_all(session, taken))
        raise
    await _unlock_all(session, taken)
    return False


async def _unlock_all(session: Session, names: Sequence[str]) -> None:
    for name in names:
        await session.unlock(name)


def _nothing() -> None:
    """Nobody wants to know."""
