"""One look at a rule's source: repositories, tags, and what the selected ones name now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import aclosing
from typing import Final

from replicator.engine.content.source import SourceContent
from replicator.engine.context import Context
from replicator.engine.faults import faults
from replicator.engine.observe.believed import believed_tags, settled_tags
from replicator.engine.observe.count import ScanCount
from replicator.engine.observe.created import creation_times
from replicator.engine.observe.names import SourceNames
from replicator.engine.observe.resolving import resolve_tags
from replicator.engine.observe.room import Room
from replicator.engine.observe.subjects import News, Subjects
from replicator.engine.observe.tags import Listing, list_tags
from replicator.engine.observe.wanted import Batcher, UnresolvedTag, WantedTag, WantedTags
from replicator.engine.result import FilterCount
from replicator.errors import Advice, NotFound, Rejected, SiteError
from replicator.model.companion import hidden_tags, is_companion, with_states
from replicator.model.digest import Digest
from replicator.policy.mapping import target_repository, target_tag
from replicator.policy.rule import ImageSet, Rule, TagSelection
from replicator.policy.selection import (
    Selected,
    certain_repositories,
    exact_tags,
    judges_each_alone,
    needs_created,
    select,
)
from replicator.ports import ComparesTags, Repository

REPOSITORIES_AT_ONCE: Final = 32
"""Listed side by side: on a far link each takes a round trip, in which the tags of others are asked for."""
TAGS_AT_ONCE: Final = 512
"""Tags of all repositories asked for side by side: other requests to the source, as for an event, queue behind no more."""


class SourceScan:
    """Looks at a rule's source and tells what it finds, piece by piece.

    Args:
        rule: whose source.
        context: the run.
        content: reads manifests and configs where creation times are asked for.
        on_batch: told each batch; must not wait.
        on_failure: told each failure (the rest goes on).
        on_warning: told what a person should know.
    """

    def __init__(
        self,
        rule: Rule,
        context: Context,
        content: SourceContent,
        *,
        on_batch: Callable[[WantedTags], None],
        on_failure: Callable[[SiteError], None],
        on_warning: Callable[[str], None],
    ) -> None:
        self._rule = rule
        self._context = context
        self._content = content
        self._on_batch = on_batch
        self._on_failure = on_failure
        self._on_warning = on_warning
        self._breaker = context.breaker(rule.source)
        self._scope = context.request.scope
        self._named = frozenset(certain_repositories(rule.repositories))
        self._repositories = 0
        self._count = ScanCount(rule.name, rule.source, context.events)
        self._names = SourceNames(rule, context, self._count, on_failure=self._failed)
        self._selected = 0
        self.complete = True
        self.filters: list[FilterCount] = []
        self._images: ImageSet | None = None
        self._notices: set[str] = set()
        self._news = News(rule, context, content)
        self._room = Room()
        self._resolves = asyncio.Semaphore(TAGS_AT_ONCE)

    async def run(self) -> None:
        """Scans everything. `complete` tells afterwards whether nothing broke."""
        turn = asyncio.Lock()
        with self._count:
            await self._read_lists()
            async with aclosing(self._names.find(self._images)) as names:

                async def work() -> None:
                    while True:
                        async with turn:
                            name = await anext(names, None)
                        if name is None:
                            return
                        self._count.scan(is_listed=await self._guarded(name))

                async with asyncio.TaskGroup() as tasks:
                    for _ in range(REPOSITORIES_AT_ONCE):
                        tasks.create_task(work())
        if self._scope is not None:
            self.complete = False
        elif self.complete:
            self._warn_of_nothing()

    @property
    def repositories(self) -> frozenset[str] | None:
        """Those that the rule selects, in whatever shard; None where they could not be listed completely."""
        return self._names.all

    @property
    def listed_at(self) -> float | None:
        """When the source was asked for them, epoch seconds; None: by this scan."""
        return self._names.listed_at

    async def _read_lists(self) -> None:
        """Takes the images from the rule's lists, where it has any; each problem of theirs is a failure."""
        if self._rule.images is None:
            return
        self._images = await asyncio.to_thread(self._rule.images.read)
        for problem in self._images.problems:
            self._failed(Rejected(self._rule.source, "read image list", problem))

    def _tags_of(self, repository: str) -> tuple[TagSelection, ...]:
        """The tables that select tags of a repository."""
        if self._images is None:
            return self._rule.tags
        return (self._images.repositories[repository],)

    def _warn_of_nothing(self) -> None:
        if self._images is not None:
            return  # the site may have nothing of the lists
        shard = self._context.request.shard
        if shard is not None:
            if self.repositories == frozenset() and not shard.index:  # told once, not by each shard
                self._on_warning(f"rule {self._rule.name}: no repository of {self._rule.source} matches")
            return
        if not self._repositories:
            self._on_warning(f"rule {self._rule.name}: no repository of {self._rule.source} matches")
        elif not self._selected:
            self._on_warning(f"rule {self._rule.name}: no tag matches (repositories: {self._repositories})")

    def _failed(self, error: SiteError) -> None:
        self.complete = False
        self._breaker.failed(error)
        self._on_failure(error)

    async def _guarded(self, name: str) -> bool:
        """Scans one repository; returns whether it could be listed as a whole."""
        try:
            target = self._target(name)
            self._breaker.check("list tags", name)
            with faults(self._rule.source, "look at repository", name):
                is_listed = await self._look_at(name, target)
            self._breaker.succeeded()
        except SiteError as error:
            self._failed(error)
            return False
        return is_listed

    def _target(self, name: str) -> str:
        try:
            return target_repository(self._rule, name)
        except ValueError as error:
            raise Rejected(self._rule.source, "rename repository", str(error), repository=name) from error

    async def _look_at(self, name: str, target: str) -> bool:
        repository = self._content.repository(name)
        clock = self._context.clock
        asked = (clock.monotonic(), clock.now())
        subjects = await self._news.named(repository)
        listing = await self._list(repository, subjects)
        await self._room.come(len(listing.tags))
        try:
            return await self._take(repository, target, asked, listing, subjects)
        finally:
            self._room.go(len(listing.tags))

    async def _take(
        self,
        repository: Repository,
        target: str,
        asked: tuple[float, float],
        listing: Listing,
        subjects: Subjects,
    ) -> bool:
        """Selects and resolves the tags of a repository that was listed."""
        name = repository.name
        companions = {tag: listing.digests.get(tag) for tag in listing.tags if is_companion(tag)}
        shown = with_states(companions, listing.attached)
        if listing.complete:
            subjects = self._news.shown(name, shown, subjects)
        tags = [tag for tag in listing.tags if tag not in companions] if companions else listing.tags
        known_companions = hidden_tags(listing.attached) | shown if listing.complete else None
        batcher = Batcher(name, target, asked, self._on_batch, known_companions)
        tables = self._tags_of(name)
        if listing.error is not None:
            if not judges_each_alone(tables):
                raise listing.error  # which tags are the latest, or whether they are enough, only all of them tell
            self._failed(listing.error)
        if listing.notice:
            self._tell_notice(listing.notice)
        known = self._told(name, listing)
        dating = needs_created(tables, tags)
        undated = dating - known.keys()
        await resolve_tags(
            self._breaker, repository, undated, known.__setitem__, self._undated, turns=self._resolves
        )
        created = await self._creation_times(repository, known, dating) if dating else None
        if self._context.request.listener.selecting is not None:
            self._context.request.listener.selecting(self._rule.name, name, tags, created)
        selected = select(tables, tags, created, self._context.clock.now())
        self._tell_selection(name, selected)
        if self._scope is not None:
            for tag in frozenset(listing.tags).difference(selected.tags, subjects.answers):
                batcher.add_other(tag, known.get(tag))
            for tag, digest in subjects.answers.items():
                batcher.add_other(tag, digest, is_absent=digest is None)
        await self._want(repository, selected, known, batcher, listing, subjects)
        present = frozenset(listing.tags) if listing.complete else None
        batcher.close(is_complete=listing.error is None and not batcher.is_cut, present=present)
        return listing.error is None

    def _tell_notice(self, notice: str) -> None:
        if notice not in self._notices:
            self._notices.add(notice)
            self._on_warning(f"rule {self._rule.name}: {notice}")

    def _told(self, name: str, listing: Listing) -> dict[str, Digest]:
        """What the listing says that tags name, as far as it is believed.

        A tag that an event announced is asked for: a listing that lags would hide what the event was about.
        """
        known = dict(listing.digests)
        if listing.is_hint and self._scope is not None:
            for tag in self._scope.repositories.get(name) or ():
                known.pop(tag, None)
        return known

    async def _list(self, repository: Repository, subjects: Subjects) -> Listing:
        tables = self._tags_of(repository.name)
        exact = exact_tags(tables)
        named = self._scope.repositories.get(repository.name) if self._scope else None
        if exact is not None:
            is_open = named is None or bool(subjects.tags)
            wanted = exact if is_open else tuple(tag for tag in exact if tag in (named or ()))
            # An event may come before its tag; what a person lists must be there.
            strict = self._scope is None or (
                self._images is not None and not self._context.request.unattended
            )
            return Listing(wanted, complete=False, strict=strict)
        if named is not None and judges_each_alone(tables) and not subjects.tags:
            return Listing(named - subjects.answers.keys(), complete=False)
        try:
            return await list_tags(repository, self._context.state, record=not self._context.request.dry)
        except NotFound as error:
            # distribution's catalog has repositories whose last tag is gone, and then answers 404 NAME_UNKNOWN. A 404
            # in other words may be a proxy's that leads astray, and "no tags" would be more than we know.
            if repository.name in self._named or error.doubtful:
                raise
            return Listing(())

    def _tell_selection(self, name: str, selected: Selected) -> None:
        self._repositories += 1
        count = len(selected.tags) + len(selected.pins)
        self._selected += count
        self.filters += [FilterCount(name, what, removed, left) for what, removed, left in selected.filters]
        rule = self._rule.name
        if not count and name in self._named and self._scope is None:
            self._on_warning(f"rule {rule}: no tag of {name} matches")
        if selected.left_out_non_versions:
            self._on_warning(
                f"rule {rule}: {name}: tags left out because they are not versions: {selected.left_out_non_versions}"
            )
        if selected.undated:
            self._on_warning(
                f"rule {rule}: {name}: tags left out because their age is unknown: {len(selected.undated)}"
            )
        for problem in selected.short:
            self._failed(Rejected(self._rule.source, "select tags", problem, repository=name))

    async def _creation_times(
        self, repository: Repository, known: Mapping[str, Digest], tags: Collection[str]
    ) -> dict[str, float]:
        digests = {tag: known[tag] for tag in tags if tag in known}
        times = await creation_times(
            self._context.state,
            self._content,
            repository,
            digests.values(),
            self._rule.mirrors,
            record=not self._context.request.dry,
        )
        return {tag: times[digest] for tag, digest in digests.items() if digest in times}

    async def _want(
        self,
        repository: Repository,
        selected: Selected,
        known: Mapping[str, Digest],
        batcher: Batcher,
        listing: Listing,
        subjects: Subjects,
    ) -> None:
        def add(tag: str | None, target: str | None, digest: Digest | None) -> None:
            is_news = subjects.has(digest) or (digest is None and bool(subjects.answers))
            batcher.add(WantedTag(tag, target, digest, archived=tag in listing.archived, news=is_news))

        for pin in selected.pins:
            named = self._target_tag(repository.name, pin.tag) if pin.tag else None
            if named is not None or pin.tag is None:
                add(pin.tag, named, pin.digest)
        targets = {tag: named for tag in selected.tags if (named := self._target_tag(repository.name, tag))}
        subjects = await self._news.with_images(subjects, repository.name, batcher.target, targets, known)
        targets = await self._narrowed(batcher, targets, known, listing, subjects)
        state, is_narrow = self._context.state, self._scope is not None
        settled = await settled_tags(state, self._rule, batcher.target, targets, is_narrow=is_narrow)
        # `why` names tags that nobody has listed: the source is asked whether an immutable one is still there.
        is_listed = listing.complete or not (is_narrow and self._context.request.dry)
        believed: Mapping[str, Digest] = {}
        told_all = not listing.is_hint and targets.keys() <= listing.digests.keys()
        if not told_all and (listing.is_hint or isinstance(repository, ComparesTags)):
            # Makes asking cheaper, or shows that nothing has changed.
            believed = await believed_tags(state, self._rule, batcher.target, targets, is_narrow=is_narrow)

        def resolved(tag: str, digest: Digest) -> None:
            add(tag, targets[tag], None if tag in settled else digest)

        ask = []
        for tag, named in targets.items():
            if tag in settled and is_listed:
                add(tag, named, None)
            elif tag in known and (not listing.is_hint or believed.get(tag) == known[tag]):
                resolved(tag, known[tag])
            else:
                ask.append(tag)

        def unresolved(tag: str, error: SiteError) -> None:
            place = None if self._images is None else self._images.places.get((repository.name, tag))
            error = error if place is None else error.about(place)
            self._unresolved(batcher, UnresolvedTag(tag, targets[tag], error), strict=listing.strict)

        before = believed if isinstance(repository, ComparesTags) else {}
        await resolve_tags(
            self._breaker, repository, ask, resolved, unresolved, turns=self._resolves, before=before
        )

    async def _narrowed(
        self,
        batcher: Batcher,
        targets: dict[str, str],
        known: Mapping[str, Digest],
        listing: Listing,
        subjects: Subjects,
    ) -> dict[str, str]:
        """The tags that an event concerns, of all that are selected: those it named, and those of its subjects."""
        is_event = self._scope is not None and bool(subjects.tags)
        if not is_event or not judges_each_alone(self._tags_of(batcher.repository)):
            return targets
        told = {} if listing.is_hint else known
        return await self._news.narrowed(batcher.target, targets, told, subjects)

    def _unresolved(self, batcher: Batcher, tag: UnresolvedTag, *, strict: bool) -> None:
        error = tag.error
        if isinstance(error, NotFound) and not strict:
            # Gone since it was listed; Docker Hub also lists tags that it no longer serves.
            batcher.add_other(tag.tag, None, is_absent=True)
            if self._scope is None:  # an event may come before its tag, and after it is gone
                self._on_warning(f"{error.site}: {error.repository}: tag {tag.tag} is listed but not there")
        elif error.advice is Advice.STOP_SITE:
            self._failed(error)  # says nothing about this tag
            batcher.is_cut = True
        else:
            self._breaker.failed(error)
            batcher.add_unresolved(tag)

    def _undated(self, tag: str, error: SiteError) -> None:
        """A tag that the filters need to date could not be resolved: it is left out, and the scan is not complete."""
        if isinstance(error, NotFound):
            self._on_warning(f"{error.site}: {error.repository}: tag {tag} is listed but not there")
        else:
            self._failed(error)

    def _target_tag(self, repository: str, tag: str) -> str | None:
        try:
            return target_tag(self._rule, tag)
        except ValueError as error:
            self._failed(Rejected(self._rule.source, "rename tag", str(error), repository=repository))
            return None
