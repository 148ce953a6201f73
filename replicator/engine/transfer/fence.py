"""What is made sure of right before a tag is written, where another agent of a fleet may have written it meanwhile."""

from __future__ import annotations

import msgspec

from replicator.engine.faults import is_unreadable
from replicator.engine.observe.seen import UNTOLD, Seen
from replicator.errors import NotFound, SiteError, TagMoved
from replicator.model.digest import Digest
from replicator.ports import Ownership, Repository


class Fence(msgspec.Struct, frozen=True):
    """Keeps a run that was overtaken, as a frozen process that wakes up, from setting a tag back.

    `rests_on`: what the tag was taken to name when it was decided what to put there.
    """

    ownership: Ownership
    rests_on: Seen

    async def may_write(self, repository: Repository, tag: str, digest: Digest) -> bool:
        """Asks what the tag names now, then whether the run still owns it. False: it names the digest already.

        Raises:
            OwnershipLostError: the run may write nothing more.
            TagMoved: the run owns it, and it names something that nobody decided to replace.
            SiteError: the destination did not answer.
        """
        present = await self._present(repository, tag)
        is_ours = present.unreadable or present.digest in {self.rests_on.digest, digest}
        await self.ownership.confirm()  # before anything is said of a tag that another agent may have written
        if not is_ours:
            was = self.rests_on.digest or "nothing"
            cause = f"tag {tag} named {was} when it was compared and names {present.digest or 'nothing'} now: it stays"
            raise TagMoved(
                repository.site, "write manifest", cause, repository=repository.name, present=present.digest
            )
        return present.unreadable or present.digest == self.rests_on.digest

    async def _present(self, repository: Repository, tag: str) -> Seen:
        if self.rests_on.unreadable:
            return self.rests_on
        try:
            return Seen((await repository.resolve(tag)).digest)
        except NotFound:
            return Seen(None)
        except SiteError as error:
            if not is_unreadable(error):
                raise
            return UNTOLD
