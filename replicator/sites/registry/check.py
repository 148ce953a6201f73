"""What `replicator check` finds at a registry: each step on its own, so that one run shows all that is wrong."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from typing import Final, cast

from replicator.errors import AuthFailed, Denied, NotFound, SiteError, Unsupported
from replicator.model.descriptor import Descriptor
from replicator.ports import SiteCheck
from replicator.sites.findings import MAX_REPOSITORIES, Findings
from replicator.sites.registry.bulk import bulk_answer
from replicator.sites.registry.call import Call, Reply
from replicator.sites.registry.context import Registry
from replicator.sites.registry.create import way_of
from replicator.sites.registry.listing import catalog_pages
from replicator.sites.registry.repository import RegistryRepository
from replicator.sites.registry.sessions import probe_upload
from replicator.sites.registry.vendors.creation import RepositoryCreation

_SKEW_SECONDS: Final = 60.0
"""More than this and tokens, which are dated, may be refused."""
_UNTRIED: Final = "unknown until the first push"


async def check_registry(
    registry: Registry, *, repositories: Sequence[str] = (), push: str | None = None
) -> SiteCheck:
    """Pings, lists, and (only where `push` names a repository) starts and cancels an upload.

    Args:
        registry: what is checked.
        repositories: some that must be readable; the first five are tried.
        push: a repository to push to. None leaves writing untried: asking alone creates a missing one at Quay.
    """
    check = _Check(registry)
    if registry.written_as:
        check.found("url", f"{registry.written_as} is understood as {registry.url}")
    await check.ping()
    if check.problems:
        return check.result()
    for name in repositories[:MAX_REPOSITORIES]:
        await check.pull(name)
    await check.digests()
    listed = await check.catalog()
    await check.referrers(list(dict.fromkeys([*repositories, *listed]))[:MAX_REPOSITORIES])
    check.presets()
    if push is None:
        check.found("push", _UNTRIED)
    else:
        await check.push(push)
    return check.result()


class _Check(Findings):
    """The steps, each of which notes what it found."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry.site)
        self._registry = registry
        self._listed: dict[str, Sequence[str]] = {}

    async def ping(self) -> None:
        """Reachable, a registry, and the credentials are taken."""
        try:
            reply = await self._registry.transport.request(Call("ping", "GET", "/v2/", actions=""))
        except SiteError as error:
            self.failed(
                "reachable" if error.reason in {"unavailable", "unsupported"} else "credentials", error
            )
            return
        self._registry.knowledge.see(reply.headers)
        self.found("reachable", "yes")
        self.found("credentials", await self._credentials())
        self.found("clock", self._skew(reply))

    async def _credentials(self) -> str:
        if owner := await self._registry.transport.owner():
            return f"good: {owner}"
        if not self._registry.has_login:
            return "none set: those of docker or podman, if any"
        return "good" if self._registry.transport.asks_for_credentials else "not tried: none were asked for"

    def _skew(self, reply: Reply) -> str:
        try:
            there = parsedate_to_datetime(reply.headers.get("Date", "")).timestamp()
        except (ValueError, TypeError, OverflowError):
            return "unknown: the registry does not tell the time"
        skew = self._registry.clock.now() - there
        if abs(skew) <= _SKEW_SECONDS:
            return "in step"
        text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the registry's"
        self.problems.append(f"{self._registry.site}: check clock: ours is {text}; tokens may be refused")
        return text

    async def pull(self, name: str) -> None:
        """May list the repository's tags."""
        what = f"pull {name}"
        try:
            tags = await _first_page(RegistryRepository(self._registry, name).tags())
            if tags:
                self._listed.setdefault(name, tags)
        except SiteError as error:
            self.failed(what, self._with_right(error, is_write=False))
            return
        self.found(what, "yes" if tags else "yes, no tags yet")

    async def digests(self) -> None:
        """How many requests it takes to learn what tags name, tried at the first repository that has some."""
        if self._registry.knowledge.vendor is None:
            return
        for name, tags in self._listed.items():
            self.found("digests", await bulk_answer(self._registry, name, tags))
            return

    async def catalog(self) -> Sequence[str]:
        """Whether repositories can be listed, and some of them. A registry without a catalog is not a problem."""
        try:
            names = await _first_page(catalog_pages(self._registry))
        except Unsupported as error:
            self.found("catalog", f"no: {error.cause}")
        except SiteError as error:
            self.failed("catalog", error)
        else:
            self.found("catalog", "yes")
            return names
        return ()

    async def referrers(self, names: Sequence[str]) -> None:
        """Whether referrers can be listed, asked in the first of these repositories that has a tag.

        For a manifest that is there, since Quay wants that. One that cannot be read decides nothing: the next may.
        """
        answer = "unknown: no repository to ask about"
        for name in names:
            repository = RegistryRepository(self._registry, name)
            try:
                await repository.referrers((await _some_manifest(repository)).digest)
            except Unsupported:
                answer = "no"
                break
            except SiteError as error:
                answer = f"unknown: {name}: {error.cause}"
            else:
                answer = "yes"
                break
        self.found("referrers", answer)

    def presets(self) -> None:
        """What is known without trying."""
        knowledge = self._registry.knowledge
        record = knowledge.record
        vendor = knowledge.vendor
        text = (
            f"{vendor.title} ({knowledge.why})"
            if vendor
            else "not recognized, as usual for docker-registry and registry:2; set `kind` if it is another"
        )
        self.found("registry", text)
        certainty = "" if knowledge.is_recognised else ", as far as known"
        self.found("mount", f"{'yes' if record.mount else 'no'}{certainty}")
        if vendor is not None and vendor.creation is not None:
            self.found("create", _creation(self._registry, vendor.creation))
        chunks = f"yes, of {record.chunk_bytes // 1024} KiB" if record.chunk_bytes else "no"
        self.found("chunks", f"{chunks}{certainty}")

    async def push(self, name: str) -> None:
        """Starts an upload and cancels it. A refused cancellation is not a failure."""
        try:
            cancelled = await probe_upload(self._registry, name)
        except SiteError as error:
            way = way_of(self._registry)
            unit = way.unit(self._registry.url.host or "", name) if way is not None else None
            if way is None or unit is None or not way.is_absent(error, name):
                self.failed(f"push {name}", self._with_right(error, is_write=True))
            else:
                self.found(
                    f"push {name}", f"not yet: a run creates the {way.what} {unit} first ({error.cause})"
                )
            return
        self.found(
            f"push {name}", "yes" if cancelled else "yes (the upload that was started could not be cancelled)"
        )

    def _with_right(self, error: SiteError, *, is_write: bool) -> SiteError:
        """The error, if it is a refusal, with the right that is missing; the vendor must be known for that."""
        vendor = self._registry.knowledge.vendor
        right = "" if vendor is None else vendor.write_right if is_write else vendor.read_right
        return error.needing(right) if isinstance(error, AuthFailed | Denied) else error


def _creation(registry: Registry, creation: RepositoryCreation) -> str:
    """Whether a missing repository is created, and by what."""
    if way_of(registry) is not None:
        return f"a missing {creation.what}, by {creation.how}"
    if registry.creations.wanted is None:
        return "no, as the config says"
    lacking = "".join(f" with {key}" for key in sorted(creation.required))
    return f"no; the config has no create{lacking}"


async def _first_page(pages: AsyncIterator[Sequence[str]]) -> Sequence[str]:
    async with aclosing(cast("AsyncGenerator[Sequence[str], None]", pages)) as names:
        async for page in names:
            return page
    return ()


async def _some_manifest(repository: RegistryRepository) -> Descriptor:
    for tag in (await _first_page(repository.tags()))[:1]:
        return await repository.resolve(tag)
    raise NotFound(repository.site, "list referrers", "no tag to ask about", repository=repository.name)
