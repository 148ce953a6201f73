"""Random worlds of images and what refers to them: at no moment is a tag visible before its referrers can be found.

Graphs of images and referrers of referrers, sites with and without the API, cosign's older tags, lists of others at the
destination, rules that choose platforms, faults at both ends, runs that are cancelled. What refers to an index that is rewritten,
or to a platform that is left out, stays behind. Once the faults have ended, one run brings everything there, what
only the destination has is still there, and the next run finds nothing to do.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as replace_struct

from replicator.demo.images import AMD64, ARM64, BuiltImage, image, index, load
from replicator.errors import Corrupt, Denied, Rejected, SiteError, Throttled, Unavailable
from replicator.model.companion import fallback_tag, is_companion, legacy_tags
from replicator.model.descriptor import Platform
from replicator.model.digest import Digest, digest_of
from replicator.model.manifest import parse_manifest
from replicator.model.rewriting import rewritten
from replicator.policy.platforms import PlatformMode, Platforms
from replicator.policy.rule import Rule
from tests.engine.world import World, rule, world
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemorySite, Method, Operation
from tests.fakes.referrers import BUNDLE, SPDX, fallback_index, referrer
from tests.fakes.watched import WatchedStore

REPOSITORY = "app"
METHODS: Sequence[Method] = (
    "tags",
    "resolve",
    "read_manifest",
    "referrers",
    "has_blob",
    "open_blob",
    "write_blob",
    "write_manifest",
)
PLATFORMS: Sequence[Platform] = (AMD64, ARM64, Platform("s390x", "linux"))
AT_SOURCE: Sequence[type[SiteError]] = (Unavailable, Throttled, Corrupt, Rejected)
"""Not that something does not exist, or may not be read: that is an answer."""
AT_DESTINATION: Sequence[type[SiteError]] = (*AT_SOURCE, Denied)
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]

Found = frozenset[tuple[Digest, Digest]]
"""Subjects, each with what refers to it."""


@dataclass(frozen=True)
class Fault:
    at_source: bool
    method: Method
    error: int
    after: int
    times: int


@dataclass(frozen=True)
class Drawn:
    """A world as drawn. `attached`: by number, which manifest each referrer refers to, the earlier referrers included."""

    roots: tuple[int, ...]
    """Of each image, how many platforms; 0 is an image without an index."""
    aliases: int
    attached: tuple[tuple[int, bool], ...]
    long: tuple[int, ...]
    """Which images and referrers have a sha512 digest, by number."""
    legacy: tuple[int, ...]
    platforms: int
    """How many platforms the rule chooses; 0: all."""
    mode: PlatformMode
    foreign: bool
    source_api: bool
    destination_api: bool
    faults: tuple[Fault, ...]
    cancel_after: int | None
    pace: int


_FAULTS = st.builds(
    Fault, st.booleans(), st.sampled_from(METHODS), st.integers(0, 4), st.integers(0, 8), st.integers(1, 6)
)
WORLDS = st.builds(
    Drawn,
    roots=st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
    aliases=st.integers(0, 2),
    attached=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=8).map(tuple),
    long=st.lists(st.integers(0, 11), max_size=4, unique=True).map(tuple),
    legacy=st.lists(st.integers(0, 2), max_size=2, unique=True).map(tuple),
    platforms=st.integers(0, 2),
    mode=st.sampled_from(("sparse", "rewrite")),
    foreign=st.booleans(),
    source_api=st.booleans(),
    destination_api=st.booleans(),
    faults=st.lists(_FAULTS, max_size=5).map(tuple),
    cancel_after=st.none() | st.integers(1, 300),
    pace=st.integers(0, 2**16),
)


class Expectation:
    """What must be found at the destination for each root, and what was ever seen to be missing there."""

    def __init__(self, *, has_api: bool) -> None:
        self._has_api = has_api
        self.roots: dict[Digest, Digest] = {}
        """What tags name at the destination, by what they name at the source."""
        self.stays: set[Digest] = set()
        """Manifests that nobody wants at the destination."""
        self.referrers: dict[Digest, Found] = {}
        self.legacy: dict[Digest, dict[str, Digest]] = {}
        self.missed: list[str] = []

    def watch(self, store: WatchedStore, repository: str) -> None:
        """Looks at every visible tag."""
        self.missed += self.missing(store, repository)

    def missing(self, store: WatchedStore, repository: str) -> list[str]:
        """What visible tags lack now."""
        content = store.repositories[repository]
        missed = []
        for tag, root in content.tags.items():
            if is_companion(tag):
                continue
            missed += [
                f"{tag} before {one} of {subject}"
                for subject, one in self.referrers.get(root, frozenset())
                if one not in content.manifests or one not in self._listed(store, repository, subject)
            ]
            missed += [
                f"{tag} before {name}"
                for name, digest in self.legacy.get(root, {}).items()
                if content.tags.get(name) != digest
            ]
        return missed

    def _listed(self, store: WatchedStore, repository: str, subject: Digest) -> set[Digest]:
        if self._has_api:
            return {one.digest for one in store.referrers(repository, subject)}
        content = store.repositories[repository]
        digest = content.tags.get(fallback_tag(subject))
        return set() if digest is None else {child.digest for child in content.manifests[digest].children}


def _root(number: int, platforms: int, *, is_long: bool) -> BuiltImage:
    """An image, or an index of so many platforms; one of the platforms has a sha512 digest where the root has one."""
    if not platforms:
        return _long(image(f"{number}")) if is_long else image(f"{number}")
    children = [image(f"{number}/{child}", platform=PLATFORMS[child]) for child in range(platforms)]
    return _long(index([_long(children[0]), *children[1:]])) if is_long else index(children)


def _long(built: BuiltImage) -> BuiltImage:
    """The same under its sha512 digest."""
    manifest = built.manifest
    digest = digest_of(manifest.body, "sha512")
    return replace(built, manifest=parse_manifest(manifest.body, manifest.media_type, digest))


def _rule(drawn: Drawn) -> Rule:
    if not drawn.platforms:
        return rule()
    return replace_struct(
        rule(), platforms=Platforms(tuple(PLATFORMS[: drawn.platforms]), drawn.mode, "copy")
    )


def _at_destination(root: BuiltImage, chosen: Platforms | None) -> tuple[Digest, set[Digest]]:
    """What a root is called there, and which manifests of it are there under the digests of the source."""
    whole = {each.digest for each in root.walk()}
    if chosen is None:
        return root.digest, whole
    cut = chosen.cut(root.manifest)
    there = whole - {child.digest for child in cut.left_out}
    if chosen.rewrites and cut.left_out:
        return rewritten(cut, {})[root.digest].digest, there - {root.digest}
    return root.digest, there


def _fill(w: World, drawn: Drawn) -> tuple[Expectation, Found]:
    """Puts everything into the source. Returns what is expected, and what only the destination has."""
    expected = Expectation(has_api=drawn.destination_api)
    roots = [
        _root(number, platforms, is_long=number in drawn.long) for number, platforms in enumerate(drawn.roots)
    ]
    tagged = [*roots, *(roots[number % len(roots)] for number in range(drawn.aliases))]
    for number, built in enumerate(tagged):
        w.put(REPOSITORY, f"v{number}", built)
    below: dict[Digest, set[Digest]] = {}
    for root in roots:
        called, there = _at_destination(root, _rule(drawn).platforms)
        expected.roots[root.digest] = called
        for each in root.walk():
            below[each.digest] = {called} if each.digest in there else set()
            if each.digest not in there:
                expected.stays.add(each.digest)
    subjects = [(each, 0) for root in roots for each in root.walk()]
    lists: dict[Digest, list[BuiltImage]] = {}
    for number, (at, is_bundle) in enumerate(drawn.attached):
        subject, depth = subjects[at % len(subjects)]
        one = referrer(subject, BUNDLE if is_bundle else SPDX, seed=f"{number}")
        one = _long(one) if number + len(roots) in drawn.long else one
        load(w.source.store, REPOSITORY, None, one)
        lists.setdefault(subject.digest, []).append(one)
        below[one.digest] = below[subject.digest]
        if not below[one.digest]:
            expected.stays.add(one.digest)
        for called in below[subject.digest]:
            expected.referrers[called] = expected.referrers.get(called, frozenset()) | {
                (subject.digest, one.digest)
            }
        if depth < 2:
            subjects.append((one, depth + 1))
    if not drawn.source_api:
        for subject_digest, entries in lists.items():
            load(w.source.store, REPOSITORY, fallback_tag(subject_digest), fallback_index(*entries))
    for at in drawn.legacy:
        root_digest = roots[at % len(roots)].digest
        name = legacy_tags(root_digest)[at % 3]
        signature = image(f"legacy {at}")
        load(w.source.store, REPOSITORY, name, signature)
        if below[root_digest]:
            expected.legacy.setdefault(root_digest, {})[name] = signature.digest
        else:
            expected.stays.add(signature.digest)
    return expected, _foreign(w, roots[0]) if drawn.foreign else frozenset()


def _foreign(w: World, root: BuiltImage) -> Found:
    """What only the destination has, as a scanner there attaches it."""
    one = referrer(root, "application/vnd.scanner")
    load(w.left.store, REPOSITORY, None, one)
    load(w.left.store, REPOSITORY, fallback_tag(root.digest), fallback_index(one))
    return frozenset({(root.digest, one.digest)})


def _break(site: MemorySite, fault: Fault) -> None:
    errors = AT_SOURCE if fault.at_source else AT_DESTINATION
    error = errors[fault.error % len(errors)]

    def make(operation: Operation) -> SiteError:
        return error(site.name, operation.method, "a drawn fault", repository=operation.repository or None)

    site.fail(fault.method, make, times=fault.times, after=fault.after)


async def _live(drawn: Drawn) -> None:
    chosen = _rule(drawn)
    is_sparse = chosen.platforms is not None and not chosen.platforms.rewrites
    async with world(clock=FakeClock(), refuses_dangling=not is_sparse) as w:
        if is_sparse:
            w.dangling.clear()  # that is what a sparse index is
        w.source.referrers_api, w.left.referrers_api = drawn.source_api, drawn.destination_api
        expected, foreign = _fill(w, drawn)
        store = w.left.store
        assert isinstance(store, WatchedStore)
        store.watchers.append(expected.watch)
        for site in w.sites.values():
            site.turns = partial(random.Random(drawn.pace).randint, 1, 8)
        for fault in drawn.faults:
            _break(w.source if fault.at_source else w.left, fault)
        run = asyncio.create_task(w.sync(chosen))
        if drawn.cancel_after is not None:
            for _ in range(drawn.cancel_after):
                await asyncio.sleep(0)
            run.cancel()
        await asyncio.wait([run])
        assert expected.missed == []
        for site in w.sites.values():
            site._faults.clear()
        done = await w.sync_one(chosen, recheck=True)
        assert (done.outcome, done.failures) == ("ok", [])
        assert expected.missed == []
        images = {
            tag: expected.roots[root]
            for tag, root in w.tags("source")[REPOSITORY].items()
            if not is_companion(tag)
        }
        assert images == {tag: root for tag, root in w.tags()[REPOSITORY].items() if not is_companion(tag)}
        assert expected.missing(store, REPOSITORY) == []
        content = store.repositories[REPOSITORY]
        assert {one for _, one in foreign} <= content.manifests.keys()
        assert not expected.stays & content.manifests.keys()
        again = await w.sync_one(chosen, recheck=True)
        assert again.totals.tags.unchanged == len(images)
        assert not [one for one in w.left.operations if one.method == "delete_tag"]


@settings(max_examples=40, deadline=None, suppress_health_check=QUIET)
@given(drawn=WORLDS)
def test_no_tag_is_visible_before_what_refers_to_its_image(drawn: Drawn) -> None:
    random.seed(0)
    asyncio.run(_live(drawn))


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@settings(max_examples=500, deadline=None, suppress_health_check=QUIET)
@given(drawn=WORLDS)
def test_no_tag_is_visible_before_what_refers_to_its_image_in_many_worlds(drawn: Drawn) -> None:
    random.seed(0)
    asyncio.run(_live(drawn))
