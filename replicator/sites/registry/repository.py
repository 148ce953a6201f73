"""One repository of a registry, as `ports.Repository`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final

from replicator.errors import (
    Advice,
    AuthFailed,
    Corrupt,
    Denied,
    Immutable,
    NotFound,
    NotReplicated,
    Rejected,
    SiteError,
    Transient,
    Unavailable,
    Unsupported,
)
from replicator.model.companion import Attached
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, algorithm, is_digest
from replicator.model.manifest import MAX_MANIFEST_BYTES, Manifest
from replicator.model.mediatypes import MANIFEST_ACCEPT
from replicator.ports import BlobOutcome, BlobSource, Listed, ListingRefused
from replicator.sites.bounds import MAX_NUMBER_DIGITS
from replicator.sites.registry.algorithms import learn, try_sha512
from replicator.sites.registry.blobs import blob_exists, open_blob
from replicator.sites.registry.bulk import BulkTags
from replicator.sites.registry.call import Call
from replicator.sites.registry.context import Registry
from replicator.sites.registry.create import writing
from replicator.sites.registry.foreign import open_foreign
from replicator.sites.registry.immutable import says_fixed
from replicator.sites.registry.listing import tag_pages
from replicator.sites.registry.manifests import digest_in, parsed
from replicator.sites.registry.page import web_page
from replicator.sites.registry.putting import put_call, put_manifest, told_digest
from replicator.sites.registry.referrers import list_referrers
from replicator.sites.registry.refusals import no_sha512, unknown_algorithm, why_not
from replicator.sites.registry.schema1 import try_schema1
from replicator.sites.registry.uploads import Upload

_ACCEPT: Final[Mapping[str, str]] = {"Accept": MANIFEST_ACCEPT}
_HEAD_ANSWERS: Final = frozenset(range(200, 600)) - {401, 429}
"""All but what the transport deals with by itself: nothing that a HEAD says is believed unless it is good."""


class RegistryRepository:
    """A repository by name; asks nothing until something is asked of it."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = name
        self._bulk: BulkTags | None = None

    def __repr__(self) -> str:
        return f"<RegistryRepository {self.site}: {self._name}>"

    @property
    def site(self) -> str:
        """The site's name."""
        return self._registry.site

    @property
    def name(self) -> str:
        """The repository's name there."""
        return self._name

    async def tags(self) -> AsyncGenerator[Sequence[str], None]:
        """The tags, a page at a time; see `listing.tag_pages`.

        Raises `Unsupported`, without asking, where it is known that they cannot be listed.
        """
        knowledge = self._registry.knowledge
        if not knowledge.lists_tags(self._name):
            raise self._error(
                Unsupported, "list tags", "the registry does not list the tags of this repository"
            )
        creations, has_tags = self._registry.creations, False
        try:
            async with aclosing(tag_pages(self._registry, self._name)) as pages:
                async for page in pages:
                    has_tags |= bool(page)
                    yield page
            creations.saw(self._name, None if has_tags else "empty")
        except Unsupported:
            knowledge.learn(tags_list=False)
            raise
        except NotFound:
            creations.saw(self._name, "absent")
            raise
        except (Denied, AuthFailed) as error:
            creations.saw(self._name, "absent")
            # Of a repository that does not exist too, at Quay, GHCR, GitLab and Artifactory: `resolve` finds out.
            if error.advice is not Advice.STOP_SITE:
                self._registry.unlisted.add(self._name)
            raise

    @property
    def listing_notice(self) -> str:
        """Why the latest listing in bulk was done tag by tag; "" where it was not, or this registry has no other way."""
        return self._bulk.notice if self._bulk is not None else ""

    @property
    def listing_refused(self) -> ListingRefused | None:
        """See `ports.RefusesListings`."""
        return self._bulk.refused if self._bulk is not None else None

    def recall(self, refusals: Sequence[ListingRefused]) -> None:
        """See `ports.RefusesListings`."""
        self._registry.bulk.refused.recall(refusals)

    @property
    def attached(self) -> Mapping[Digest, Attached]:
        """See `ListsAttached`."""
        return {} if self._bulk is None else self._bulk.attached

    async def listed(self, known: Mapping[str, Listed]) -> AsyncGenerator[Sequence[Listed], None]:  # noqa: ARG002 - a registry's pages are never read in part
        """The tags with what they name, by the way of the registry's vendor; see `bulk`.

        Without such a listing, or where it fails, the rest comes from `tags`, without digests. Raises as `tags` does.
        """
        bulk = self._bulk = BulkTags(self._registry, self._name)
        told: set[str] = set()
        try:
            async with aclosing(bulk.pages()) as pages:
                async for page in pages:
                    told.update(listed.tag for listed in page)
                    yield page
            if bulk.is_whole:
                return
            async with aclosing(self.tags()) as names:
                async for tags in names:
                    bulk.listed_otherwise(tags)
                    yield [Listed(tag, None) for tag in tags if tag not in told]
        finally:
            bulk.close()

    async def resolve(self, reference: str) -> Descriptor:
        """What a tag or digest names now, by HEAD.

        A HEAD is believed only where it is good and carries a digest that can be computed. After any other answer
        (registries and the proxies before them answer HEAD with 401, 403, 404, 405, 412, 5xx or a web page while
        GET is right; old Artifactory sends no digest) the manifest is read and hashed: GET decides.

        Raises `Denied` for a manifest that is there but may not be pulled (Harbor's policies answer 412).
        """
        return await self._described(reference, _ACCEPT)

    async def changed(self, tag: str, known: Digest) -> Descriptor | None:
        """As `resolve`, asking with If-None-Match: distribution answers 304 without reading the manifest."""
        try:
            return await self._described(tag, {**_ACCEPT, "If-None-Match": f'"{known}"'})
        except _Unchanged:
            return None

    async def _described(self, reference: str, headers: Mapping[str, str]) -> Descriptor:
        knowledge = self._registry.knowledge
        tries_head = knowledge.record.head_manifests
        told: Descriptor | SiteError | None = await self._head(reference, headers) if tries_head else None
        if isinstance(told, Descriptor):
            knowledge.head_ended(useful=True)
        else:
            # A HEAD that got no answer at all has had all its retries.
            found = await self._read_instead(reference, told if isinstance(told, Transient) else None)
            if tries_head:
                knowledge.head_ended(useful=False)
            told = found.descriptor
        if self._name in self._registry.unlisted:
            self._registry.unlisted.discard(self._name)
            knowledge.listing_refused(self._name)
        return told

    async def _head(self, reference: str, headers: Mapping[str, str]) -> Descriptor | SiteError | None:
        """What a HEAD tells for certain; else how it failed, or None where it only says too little."""
        call = self._call("resolve", "HEAD", reference, _HEAD_ANSWERS, headers=headers)
        try:
            reply = await self._registry.transport.request(call)
        except SiteError as error:
            if error.advice is Advice.STOP_SITE or error.operation != call.operation:
                raise
            return error
        if reply.status == 304 and "If-None-Match" in headers:
            raise _Unchanged
        told = reply.headers.get("Docker-Content-Digest", "")
        if reply.status != 200 or not is_digest(told):
            return None
        if is_digest(reference) and told != reference:
            if algorithm(Digest(told)) != algorithm(Digest(reference)):
                return None
            raise self._error(Corrupt, "resolve", f"asked for {reference}, got {told}")
        media_type = reply.headers.get("Content-Type", "").partition(";")[0].strip()
        length = reply.headers.get("Content-Length", "")
        # A proxy that answers HEAD with a length of 0 means its own answer, not the manifest.
        is_size = length.isascii() and length.isdigit() and len(length) <= MAX_NUMBER_DIGITS
        size = (int(length) or None) if is_size else None
        return Descriptor(media_type, Digest(told), size)

    async def _read_instead(self, reference: str, unanswered: Transient | None) -> Manifest:
        """The manifest by GET, where HEAD did not tell; tried once where HEAD got no answer in all its retries."""
        try:
            return await self._read(reference, once=unanswered is not None)
        except SiteError as error:
            if isinstance(error, Transient) and unanswered is not None:
                raise unanswered from error
            if error.operation != "read manifest":
                raise
            raise error.during("resolve", self._name) from error

    async def read_manifest(self, reference: str) -> Manifest:
        """The manifest, its bytes verified against the digest asked for, else the one announced."""
        return await self._read(reference)

    async def _read(self, reference: str, *, once: bool = False) -> Manifest:
        operation = "read manifest"
        call = self._call(operation, "GET", reference, frozenset({200}), max_bytes=MAX_MANIFEST_BYTES)
        try:
            reply = await self._registry.transport.request(call, once=once)
        except Rejected as error:
            if error.status == 412:  # Harbor's policies: it is there, and may not be pulled
                raise self._error(Denied, operation, error.cause) from error
            raise
        if (page := web_page(reply.headers, reply.body)) is not None:
            cause = (
                f"expected a manifest, received {page}; is a proxy or a login page in front of the registry?"
            )
            raise self._error(Unavailable, operation, cause, advice=Advice.LATER)
        media_type = reply.headers.get("Content-Type", "")
        told = reply.headers.get("Docker-Content-Digest", "")
        expected = (
            Digest(reference if is_digest(reference) else told)
            if is_digest(told) or is_digest(reference)
            else None
        )
        digest = await digest_in(reply.body, media_type, expected)
        if expected is not None and digest != expected:
            raise self._error(Corrupt, operation, f"asked for {expected}, got bytes of {digest}")
        try:
            manifest = await parsed(reply.body, media_type, digest)
        except ValueError as error:
            if (unknown := unknown_algorithm(reply.body)) is not None:
                cause = f"{reference} names content by {unknown}; sha256 and sha512 are replicated"
                raise self._error(NotReplicated, operation, cause) from error
            raise self._error(Corrupt, operation, f"{reference}: {error}") from error
        if manifest.served_as:
            text = f"served as {manifest.served_as}, but it is {manifest.media_type}; the document decides"
            self._registry.warn(f"{self._name}: {reference}: {text}")
        return manifest

    async def has_blob(self, digest: Digest, size: int | None = None) -> bool:  # noqa: ARG002 - a registry vouches for its blobs
        """Whether this very repository has the blob; see `blobs.blob_exists`."""
        return await blob_exists(self._registry, self._name, digest)

    def blob(self, descriptor: Descriptor) -> BlobSource:
        """The blob, for reading. Not verified: whoever reads hashes."""
        return open_blob(self._registry, self._name, descriptor)

    def blob_at(self, descriptor: Descriptor, url: str) -> BlobSource | None:
        """A layer at a URL that a manifest names; see `foreign.open_foreign`."""
        return open_foreign(self._registry, self._name, descriptor, url)

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """The manifests whose subject is `digest`, each once.

        Raises `Unsupported` for whatever a registry without this API answers: an error, HTML, another JSON.
        """
        return await list_referrers(self._registry, self._name, digest)

    async def write_blob(self, source: BlobSource, *, origin: str | None = None) -> BlobOutcome:
        """Puts a blob into this repository; see `uploads.Upload`."""
        return await Upload(self._registry, self._name, source).run(origin)

    async def write_manifest(self, manifest: Manifest, tag: str | None = None) -> Digest | None:
        """Puts the manifest's exact bytes, with the media type it was served with.

        A tag that is put by name leads to sha256. To another digest it is put as `?tag=` beside that (OCI
        distribution-spec 1.2, "Pushing Manifests with tags"): where the registry knows nothing of it, no tag moves.
        """
        is_odd = algorithm(manifest.digest) != "sha256"
        reference = manifest.digest if is_odd or tag is None else tag
        query = f"?tag={tag}" if is_odd and tag is not None else ""
        call = put_call(self._name, manifest, f"{reference}{query}")
        try:
            reply = await writing(
                self._registry, self._name, partial(put_manifest, self._registry, call, manifest)
            )
        except (AuthFailed, Rejected, Denied, Unsupported) as error:
            if tag is None or not says_fixed(error, self._registry.knowledge.vendor):
                raise
            return await self._unmoved(tag, manifest, error)
        # Its listing may have been refused because the repository was missing.
        self._registry.unlisted.discard(self._name)
        if query and tag not in reply.headers.getall("OCI-Tag", ()):
            learn(self._registry, "untagged")
            raise self._error(Unsupported, call.operation, no_sha512("untagged", manifest.digest))
        return told_digest(reply)

    async def _unmoved(self, tag: str, manifest: Manifest, error: SiteError) -> Digest:
        """After the refusal to put a tag: its digest where it names that already; else `Immutable`, or the refusal itself."""
        try:
            there = (await self.resolve(tag)).digest
        except SiteError:
            raise error from None  # no such tag to move, or not for us
        if there == manifest.digest:
            return there
        self._registry.fixed.add(self._name, tag, self._registry.clock.now())
        cause = f"the tag {tag} is immutable there and names {there}: {error.cause}"
        raise Immutable(self.site, error.operation, cause, repository=self._name) from error

    def refuses_tag(self, tag: str) -> str | None:
        """Why the tag could not be moved, as a refusal of the last day has shown; None where it may."""
        if self._registry.fixed.has(self._name, tag, self._registry.clock.now()):
            return f"the tag {tag} is immutable there: refused within the last day"
        return None

    def refuses(self, manifest: Manifest, *, tagged: bool) -> str | None:
        """Why the registry would not take the manifest, as it has shown before; None where it may."""
        return why_not(self._registry.knowledge.record, self._registry.refused_types, manifest, tagged=tagged)

    async def try_for(self, manifests: Collection[Manifest]) -> None:
        """Finds out whether the registry takes their digests and their format, before any blob is sent."""
        await try_sha512(self._registry, self._name, manifests)
        await try_schema1(self._registry, self._name, manifests)

    async def delete_tag(self, tag: str) -> None:
        """Removes one tag by its name, never by its digest, which other tags may have (docs/quirks.md#delete-by-digest)."""
        operation = "delete tag"
        if not self._registry.knowledge.record.delete_tag:
            cause = (
                "the registry cannot delete a single tag (if it can, set its capability delete_tag = true)"
            )
            raise self._error(Unsupported, operation, cause)
        call = Call(
            operation,
            "DELETE",
            f"/v2/{self._name}/manifests/{tag}",
            repository=self._name,
            actions="pull,push,delete",
            expected=frozenset({200, 202, 204}),
        )
        try:
            await self._registry.transport.request(call)
        except Rejected as error:
            if error.status == 400:  # distribution 2 and Harbor take digests only
                raise self._error(Unsupported, operation, error.cause) from error
            raise

    def _call(
        self,
        operation: str,
        method: str,
        reference: str,
        expected: frozenset[int],
        *,
        headers: Mapping[str, str] = _ACCEPT,
        max_bytes: int = 1 << 20,
    ) -> Call:
        return Call(
            operation,
            method,
            f"/v2/{self._name}/manifests/{reference}",
            repository=self._name,
            headers=headers,
            expected=expected,
            max_bytes=max_bytes,
            verified=is_digest(reference),
        )

    def _error(
        self, kind: type[SiteError], operation: str, cause: str, advice: Advice | None = None
    ) -> SiteError:
        return kind(self.site, operation, cause, repository=self._name, advice=advice)


class _Unchanged(Exception):
    """The tag still names what it did (304)."""
