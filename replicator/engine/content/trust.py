"""Whether an image may be copied: asked of its signatures at the source, before anything of it moves."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from replicator.engine.content.referrers import RootListing
from replicator.engine.content.signatures import Candidate, SignatureReader, candidates_in
from replicator.engine.verdicts import Verdicts
from replicator.errors import Unavailable, Untrusted
from replicator.model.digest import Digest
from replicator.trust.policy import TrustPolicy, fingerprint_of
from replicator.trust.verify import Finding, Subject, Trial, Verdict

MAX_SIGNATURES: Final = 100
"""Signatures of one image that are examined."""
SECONDS: Final = 120.0
"""For reading and examining the signatures of one image."""


async def check_trust(
    reader: SignatureReader,
    root: Digest,
    policies: Sequence[TrustPolicy],
    companions: Collection[str] | None,
    known: Verdicts,
) -> RootListing:
    """Returns only if the image is trusted.

    Returns what the source told of its referrers, so that a copy need not ask again.

    Args:
        reader: of the image's repository.
        root: the image.
        policies: all must agree.
        companions: see `WantedTags`.
        known: verdicts that were reached before.

    Raises:
        Untrusted: it is not trusted, and why.
        SiteError: the source could not be asked, so that nothing is known.
    """
    site = reader.content.repository(reader.repository).site
    listing = await reader.listing(root, companions)
    candidates = candidates_in(listing)
    digests = frozenset(one.digest for one in candidates)
    key = (root, reader.repository, fingerprint_of(policies), digests)
    verdict = known.get(key)
    if verdict is None:
        try:
            async with asyncio.timeout(SECONDS):
                verdict, _ = await judge(reader, root, policies, candidates)
        except TimeoutError as error:
            cause = f"examining the signatures of {root} took longer than {SECONDS:.0f} s"
            raise Unavailable(site, "verify signatures", cause, repository=reader.repository) from error
        known.put(key, verdict)
    if not verdict.trusted:
        raise Untrusted(site, "verify signatures", verdict.reason, repository=reader.repository)
    return listing


async def judge(
    reader: SignatureReader,
    root: Digest,
    policies: Sequence[TrustPolicy],
    candidates: Sequence[Candidate],
    *,
    explains: bool = False,
) -> tuple[Verdict, Sequence[Finding]]:
    """The verdict, and what each signature that was examined is worth. Stops when the image is trusted, unless it `explains`.

    Raises:
        SiteError: a signature could not be read.
    """
    body = b""
    if candidates:
        manifest = await reader.content.manifest(reader.repository, root, reader.mirrors, reader.on_read)
        body = manifest.body
    trial = Trial(policies, Subject(root, reader.repository, body), explains=explains)
    found: list[Finding] = []
    for at, candidate in enumerate(candidates):
        left = MAX_SIGNATURES - trial.examined
        if left <= 0:
            trial.leave(len(candidates) - at)
            break
        found += await reader.examine(candidate, root, trial, left)
        if trial.is_over:
            break
    return trial.verdict(), found
