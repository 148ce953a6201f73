"""`why` and `plan` say the same, on random configs and catalogs; and what it says of known cases."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.demo.images import AMD64, ARM64, image, index, load
from replicator.engine.result import ActionResult, RuleResult
from replicator.errors import Unavailable
from replicator.model.companion import fallback_tag
from replicator.model.digest import Digest
from replicator.policy.mapping import target_repository, target_tag
from replicator.policy.pattern import Glob, parse_tag_pattern
from replicator.policy.platforms import Platforms, parse_platform
from replicator.policy.referrers import ReferrerFilter, parse_referrer_pattern
from replicator.policy.rule import ImageSet, Pin, Rename, RepositorySelection, Rule, TagSelection
from replicator.policy.selection import select, select_repository, trace
from replicator.policy.semver import SemverRange
from replicator.ports import Clock, Missing, Pending, Unit
from replicator.ports.search import Holding, ImageFacts, Move, Query
from replicator.runs.why import Agenda, Answer, Asker, Explanation, parse_asked
from replicator.state.memory import MemoryState
from replicator.trust.policy import TrustPolicy
from tests.engine.world import World, rule, world
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemorySite
from tests.fakes.referrers import referrer
from tests.fakes.signing import Signer, bundle, bundle_referrer

REPOSITORIES: Final = ("a/app", "a/db", "b/app")
TAGS: Final = ("v1.0.0", "v1.1.0", "v2.0.0-rc1", "latest")
DESTINATIONS: Final = ("left", "right")
SITES: Final = dict.fromkeys(("source", *DESTINATIONS), "https://elsewhere.example")


KEY: Final = Signer.ecdsa()
RELEASED: Final = TrustPolicy("release", keys=(KEY.key,))
IMAGES: Final = (
    image("0"),
    image("1"),
    index([image("amd64", platform=AMD64), image("arm64", platform=ARM64)]),
    index([image("arm alone", platform=ARM64)]),
)
REFERRERS: Final = {
    1: (bundle_referrer(IMAGES[1], bundle(KEY, IMAGES[1].digest)),),
    2: (bundle_referrer(IMAGES[2], bundle(KEY, IMAGES[2].digest)), referrer(IMAGES[2])),
    3: (referrer(IMAGES[3]),),
}
"""The second and third image are signed, the third and fourth have an SBOM."""


class NothingFound:
    """An index that has seen nothing."""

    async def search(self, _query: Query, _limit: int) -> Sequence[Holding]:
        return []

    async def facts(self, _digests: Sequence[Digest]) -> dict[Digest, ImageFacts]:
        return {}

    async def moves(self, _destination: str, _repository: str, _tag: str) -> Sequence[Move]:
        return []

    async def unindexed(self, _limit: int) -> Sequence[Holding]:
        return []


def asker(w: World, rules: Sequence[Rule]) -> Asker:
    return Asker(rules, rules, w.state, NothingFound(), w.clock.now)


async def why(
    w: World, rules: Sequence[Rule], text: str, *, at: str | None = None, fresh: bool = True
) -> Answer:
    engine = w.engine(rules) if fresh else None
    return await asker(w, rules).answer(parse_asked(text, SITES), at, engine)


async def only_one(w: World, rules: Sequence[Rule], text: str, *, fresh: bool = True) -> Explanation:
    answer = await why(w, rules, text, fresh=fresh)
    assert len(answer.explanations) == 1
    return answer.explanations[0]


# --- the law ---


@dataclass(frozen=True)
class Drawn:
    """Rules, images before the first run, and what happened since at either side."""

    rules: tuple[Rule, ...]
    before: dict[tuple[str, str], int]
    after: dict[tuple[str, str], int | None]
    removed: frozenset[tuple[str, str, str]]
    synced: bool


def _patterns() -> st.SearchStrategy[tuple[str, ...]]:
    return st.sampled_from([("**",), ("a/*",), ("a/app", "b/*"), ("b/app",)])


def _tables() -> st.SearchStrategy[TagSelection]:
    some = st.sampled_from([(), ("v*",), ("latest", "v1.0.0"), ("v1.*",)])
    return st.builds(
        lambda include, exclude, semver, latest, pinned, immutable: TagSelection(
            include=tuple(map(parse_tag_pattern, include)),
            exclude=tuple(map(parse_tag_pattern, exclude)),
            semver=SemverRange.parse(semver) if semver else None,
            latest=latest,
            pins=(Pin(image("1").digest, "v1.0.0"),) if pinned else (),
            immutable=tuple(map(parse_tag_pattern, immutable)),
        ),
        some,
        st.sampled_from([(), ("*-rc*",), ("v1.1.0",)]),
        st.sampled_from([None, None, ">=1.1"]),
        st.sampled_from([None, None, 1, 2]),
        st.sampled_from([False, False, True]),
        st.sampled_from([(), (), ("v*",)]),
    )


def _platforms() -> st.SearchStrategy[Platforms | None]:
    amd64 = (parse_platform("linux/amd64"),)
    return st.sampled_from(
        [
            None,
            None,
            Platforms(amd64),
            Platforms(amd64, "rewrite", "copy"),
            Platforms(amd64, "rewrite", "skip"),
        ]
    )


def _demands() -> st.SearchStrategy[tuple[tuple[TrustPolicy, ...], tuple[str, ...]]]:
    """What a rule demands of images: trust and required referrers."""
    return st.tuples(st.sampled_from([(), (RELEASED,)]), st.sampled_from([(), ("signature",), ("sbom",)]))


def _rule(name: str) -> st.SearchStrategy[Rule]:
    return st.builds(
        lambda patterns, exclude, tables, destinations, rename, tags, demands, platforms: Rule(
            name,
            "source",
            destinations,
            RepositorySelection(tuple(map(Glob.parse, patterns)), (Glob.parse("a/db"),) if exclude else ()),
            tags=tables,
            rename_repository=rename,
            rename_tag=tags,
            platforms=platforms,
            trust=demands[0],
            referrer_filter=ReferrerFilter(require=tuple(map(parse_referrer_pattern, demands[1]))),
        ),
        _patterns(),
        st.booleans(),
        st.lists(_tables(), min_size=1, max_size=2).map(tuple),
        st.sampled_from([("left",), ("left", "right"), ("right",)]),
        st.sampled_from([Rename(), Rename(prefix="m/"), Rename(strip="a/"), Rename(strip="b/")]),
        st.sampled_from([Rename(), Rename(), Rename(prefix="x-"), Rename(strip="v")]),
        _demands(),
        _platforms(),
    )


_CATALOG: Final = st.tuples(st.sampled_from(REPOSITORIES), st.sampled_from(TAGS))
_DRAWN: Final = st.builds(
    Drawn,
    rules=st.one_of(st.tuples(_rule("one")), st.tuples(_rule("one"), _rule("two"))),
    before=st.dictionaries(_CATALOG, st.integers(0, 3), max_size=6),
    after=st.dictionaries(_CATALOG, st.one_of(st.none(), st.integers(0, 3)), max_size=4),
    removed=st.frozensets(
        st.tuples(st.sampled_from(DESTINATIONS), st.sampled_from(REPOSITORIES), st.sampled_from(TAGS)),
        max_size=2,
    ),
    synced=st.booleans(),
)


def _put(w: World, repository: str, tag: str, number: int) -> None:
    w.put(repository, tag, IMAGES[number])
    for one in REFERRERS.get(number, ()):
        load(w.source.store, repository, None, one)


async def _happen(w: World, drawn: Drawn) -> None:
    for (repository, tag), seed in drawn.before.items():
        _put(w, repository, tag, seed)
    if drawn.synced:
        await w.engine(drawn.rules).sync(drawn.rules)
    for (repository, tag), now in drawn.after.items():
        if now is not None:
            _put(w, repository, tag, now)
        elif tag in w.tags("source").get(repository, {}):
            w.source.store.delete_tag(repository, tag)
    for site, repository, tag in drawn.removed:
        if tag in w.tags(site).get(repository, {}):
            w.sites[site].store.delete_tag(repository, tag)


def _selected(w: World, one: Rule) -> dict[tuple[str, str], None]:
    """What the rule takes of the source's catalog, by the law of the documentation rather than by a run."""
    taken: dict[tuple[str, str], None] = {}
    for repository, tags in w.tags("source").items():
        if select_repository(one.repositories, repository):
            found = select(one.tags, tags, None, w.clock.now())
            taken |= dict.fromkeys((repository, tag) for tag in found.tags)
            taken |= dict.fromkeys((repository, pin.tag) for pin in found.pins if pin.tag is not None)
    return taken


def _in_step(w: World, one: Rule, repository: str, tag: str) -> str:
    """What is said of a tag that no run has anything to do for."""
    skips = one.platforms is not None and one.platforms.missing == "skip"
    pinned = {pin.tag: pin.digest for table in one.tags for pin in table.pins}
    lacks = pinned.get(tag, w.tags("source")[repository].get(tag)) == IMAGES[3].digest
    return "not selected" if skips and lacks else "in step"


def _rows(planned: Sequence[RuleResult]) -> dict[tuple[str, str, str, str], ActionResult]:
    return {
        (result.rule, at.destination, row.repository, row.tag or ""): row
        for result in planned
        for at in result.destinations
        for row in at.actions
        if row.action != "keep"
    }


def _contested(w: World, rules: Sequence[Rule]) -> set[tuple[str, str, str]]:
    """Targets whose answer is a matter of turns.

    More than one source tag leads there, or a pin of what the tag does not name. Or rules with other demands: what one holds,
    another may copy later in the same run. Or rules with other platforms place images in the same repository: what is
    remembered of an image there is what the last of them wanted.
    """
    origins: dict[tuple[str, str, str], set[tuple[str, str, Digest | None]]] = {}
    demands: dict[tuple[str, str, str], set[tuple[object, ...]]] = {}
    choices: dict[tuple[str, str], set[Platforms | None]] = {}
    for one in rules:
        for repository, tag in _selected(w, one):
            for destination in one.destinations:
                target = destination, target_repository(one, repository), target_tag(one, tag)
                pinned = [pin.digest for table in one.tags for pin in table.pins if pin.tag == tag]
                for digest in (w.tags("source")[repository].get(tag), *pinned):
                    origins.setdefault(target, set()).add((repository, tag, digest))
                demands.setdefault(target, set()).add((bool(one.trust), one.referrer_filter.require))
                choices.setdefault(target[:2], set()).add(one.platforms)
    pins = any(table.pins for one in rules for table in one.tags)
    return {
        target
        for target, found in origins.items()
        if max(len(found), len(demands[target]), len(choices[target[:2]])) > 1 or (pins and len(rules) > 1)
    }


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(_DRAWN)
async def test_why_agrees_with_plan(drawn: Drawn) -> None:
    """Of every tag of the catalog, by every rule, at every destination."""
    async with world(destinations=DESTINATIONS, clock=FakeClock()) as w:
        await _happen(w, drawn)
        rows = _rows(await w.engine(drawn.rules).plan(drawn.rules))
        contested = _contested(w, drawn.rules)
        for repository, tag in ((name, tag) for name in w.tags("source") for tag in TAGS):
            answer = await why(w, drawn.rules, f"source/{repository}:{tag}")
            explained = {(each.rule, each.destination): each for each in answer.explanations}
            for one in drawn.rules:
                is_selected = (repository, tag) in _selected(w, one)
                for destination in one.destinations:
                    said = explained.get((one.name, destination))
                    if said is None:
                        assert not select_repository(one.repositories, repository)
                        continue
                    if not is_selected:
                        gone = tag not in w.tags("source").get(repository, {})
                        assert said.verdict == "not selected" or (gone and said.verdict == "unknown")
                        continue
                    target = destination, target_repository(one, repository), target_tag(one, tag)
                    row = rows.get((one.name, destination, repository, target[2]))
                    assert (said.target, said.target_tag) == target[1:]
                    if target in contested:
                        settled = _in_step(w, one, repository, tag)
                        assert said.verdict in {"conflict", "behind", "held", settled}
                    elif row is None:
                        assert said.verdict == _in_step(w, one, repository, tag)
                    elif row.outcome == "planned":
                        assert said.verdict == "behind"
                        assert said.digest == row.digest
                    elif row.action == "hold":
                        assert said.verdict in {"held", "conflict"}
                    else:
                        assert said.verdict in {"conflict", "behind", "held"}


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(_DRAWN)
async def test_memory_alone_agrees_with_plan_where_nothing_happened_since_the_run(drawn: Drawn) -> None:
    drawn = dataclasses.replace(drawn, after={}, removed=frozenset(), synced=True)
    async with world(destinations=DESTINATIONS, clock=FakeClock()) as w:
        await _happen(w, drawn)
        rows = _rows(await w.engine(drawn.rules).plan(drawn.rules))
        contested = _contested(w, drawn.rules)
        for one in drawn.rules:
            for repository, tag in _selected(w, one):
                answer = await why(w, drawn.rules, f"source/{repository}:{tag}", fresh=False)
                for each in answer.explanations:
                    if each.rule != one.name:
                        continue
                    key = target_tag(one, tag)
                    if (each.destination, target_repository(one, repository), key) in contested:
                        continue
                    row = rows.get((one.name, each.destination, repository, key))
                    if row is None:
                        settled = _in_step(w, one, repository, tag)
                        # What is skipped for its platforms is in no memory.
                        assert each.verdict == ("in step" if settled == "in step" else "unknown")
                    else:
                        held = row.action == "hold" or "held so far: " in (row.reason or "")
                        assert each.verdict == ("held" if held else "behind")


async def test_an_immutable_tag_that_the_source_lost_is_asked_for_when_somebody_wants_to_know() -> None:
    async with world() as w:
        one = rule(selection=TagSelection(immutable=(parse_tag_pattern("v*"),)))
        for tag in ("v1.0.0", "v1.1.0"):
            _put(w, "a/app", tag, 0)
        await w.engine([one]).sync([one])
        w.source.store.delete_tag("a/app", "v1.0.0")
        _put(w, "a/app", "v1.1.0", 1)

        assert (await only_one(w, [one], "source/a/app:v1.0.0")).verdict == "unknown"
        assert (await only_one(w, [one], "source/a/app:v1.1.0")).verdict == "in step", "no run would move it"


@given(
    st.lists(_tables(), min_size=1, max_size=3).map(tuple),
    st.frozensets(st.sampled_from(TAGS), min_size=1),
)
def test_trace_of_a_tag_selects_what_selection_selects(
    tables: tuple[TagSelection, ...], tags: frozenset[str]
) -> None:
    found = select(tables, tags, None, 0.0)
    wanted = {*found.tags, *(pin.tag for pin in found.pins)}
    for tag in tags:
        traced = trace(tables, tags, None, 0.0, tag)
        assert any(each.is_selected for each in traced) == (tag in wanted)
        for each in traced:
            assert all(taken for _, taken in each.verdicts[:-1])  # the first that leaves it out is the last


# --- known cases ---


def stops(said: Explanation) -> list[tuple[str, str]]:
    return [(step.what, step.text) for step in said.steps if step.verdict == "stop"]


async def test_filter_that_left_a_tag_out_is_named() -> None:
    narrow = rule(selection=TagSelection(exclude=(parse_tag_pattern("*-rc*"),)))
    async with world() as w:
        w.put("app", "v2-rc1")
        said = await only_one(w, [narrow], "source/app:v2-rc1", fresh=False)
        assert said.verdict == "not selected"
        assert stops(said) == [("tags", "exclude *-rc*")]
        assert said.remedy is not None
        assert "exclude *-rc*" in said.remedy
        assert w.source.operations == []


@pytest.mark.parametrize("suffix", ["", ".sig"])
async def test_a_tag_of_referrers_is_not_one_of_its_own(suffix: str) -> None:
    async with world() as w:
        root = w.put("app", "v1")
        tag = fallback_tag(root.digest) + suffix
        w.put("app", tag, image("signature"))
        said = await only_one(w, [rule()], f"source/app:{tag}")
        assert (said.verdict, w.tags()) == ("not selected", {})
        assert [what for what, text in stops(said) if "referrers" in text] == ["tags"]


async def test_latest_is_judged_among_the_tags_that_the_source_lists() -> None:
    newest = rule(selection=TagSelection(latest=1))
    async with world() as w:
        for tag in ("v1", "v2"):
            w.put("app", tag)
        assert stops(await only_one(w, [newest], "source/app:v1")) == [("tags", "latest 1 by semver")]
        assert (await only_one(w, [newest], "source/app:v2")).verdict == "behind"
        unknown = await only_one(w, [newest], "source/app:v1", fresh=False)
        assert unknown.verdict == "unknown"
        assert any("--fresh" in step.text for step in unknown.steps)


async def test_target_name_leads_back_to_its_source() -> None:
    renamed = rule(rename=Rename(strip="team/", prefix="mirror/"), rename_tag=Rename(suffix="-eu"))
    async with world() as w:
        w.put("team/app", "v1")
        await w.sync(renamed)
        said = await only_one(w, [renamed], "left/mirror/app:v1-eu", fresh=False)
        assert (said.repository, said.tag, said.verdict) == ("team/app", "v1", "in step")
        assert said.since is not None


async def test_failure_tells_its_cause_tries_and_next_try() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        w.put("app", "v1")
        w.left.fail("write_manifest", Unavailable("left", "write manifest", "no answer"))
        await w.sync()
        said = await only_one(w, [rule()], "source/app:v1", fresh=False)
        assert said.verdict == "behind"
        assert [what for what, _ in stops(said)] == ["pending", "last error"]
        assert "at the first try" in stops(said)[-1][1]
        assert "not before" in said.next
        fresh = await only_one(w, [rule()], "source/app:v1")
        assert fresh.verdict == "behind"
        assert "tries again" in fresh.next


async def test_conflict_names_the_other_rule() -> None:
    one, two = rule("one", repositories=["a/app"]), rule("two", repositories=["b/app"])
    flat = (
        replace(one, rename_repository=Rename(strip="a/")),
        replace(two, rename_repository=Rename(strip="b/")),
    )
    async with world() as w:
        w.put("a/app", "v1")
        await w.sync(flat[0])
        w.put("b/app", "v1", image("another"))
        said = await only_one(w, flat, "source/b/app:v1")
        assert said.verdict == "conflict"
        assert "rule one" in stops(said)[0][1]


class NamesHaveTwoParts(MemorySite):
    """A site of its own class, because a class is looked at once for what it can do."""

    def refuses_name(self, repository: str) -> str | None:
        return None if "/" in repository else "1 part, names there are NAMESPACE/NAME"


@pytest.mark.parametrize("refuses_the_name", [True, False])
async def test_destination_that_could_not_be_asked_is_not_taken_for_a_source_without_the_tag(
    *, refuses_the_name: bool
) -> None:
    async with world() as w:
        w.put("app", "v1")
        w.state.begin("rule", "left")
        if refuses_the_name:
            w.left.__class__ = NamesHaveTwoParts
        else:
            w.left.fail("tags", Unavailable("left", "list tags", "no answer"), times=100)
            w.left.fail("resolve", Unavailable("left", "resolve tag", "no answer"), times=100)
        await w.sync()
        said = await only_one(w, [rule()], "source/app:v1", fresh=False)
        ((what, text),) = stops(said)
        assert (said.verdict, what) == ("unknown", "destination")
        assert "left could not be asked about 1 tag of app in the last run" in text
        assert ("set `rename` in rule rule" if refuses_the_name else "no answer") in text


async def test_tag_that_the_source_lacks_is_unknown() -> None:
    async with world() as w:
        w.put("app", "v1")
        await w.sync()
        assert (await only_one(w, [rule()], "source/app:v9")).verdict == "unknown"
        said = await only_one(w, [rule()], "source/app:v9", fresh=False)
        assert "the last scan did not find it" in stops(said)[0][1]


async def test_source_that_cannot_be_asked_is_unknown_and_names_the_failure() -> None:
    async with world() as w:
        w.put("app", "v1")
        w.source.fail("resolve", Unavailable("source", "resolve tag", "no answer"), times=100)
        said = await only_one(w, [rule()], "source/app:v1")
        assert said.verdict in {"behind", "unknown"}
        assert any("source" in text for _, text in stops(said))


async def test_nothing_is_asked_or_written_without_fresh() -> None:
    async with world() as w:
        w.put("app", "v1")
        await w.sync()
        w.clear_log()
        assert (await only_one(w, [rule()], "source/app:v1", fresh=False)).verdict == "in step"
        assert w.source.operations == []
        assert w.left.operations == []


async def test_fresh_asks_for_this_tag_alone() -> None:
    async with world() as w:
        for number in range(20):
            w.put("app", f"v{number}")
            w.put("other", f"v{number}")
        await w.sync()
        w.clear_log()
        assert (await only_one(w, [rule()], "source/app:v1")).verdict == "in step"
        assert [(each.method, each.subject) for each in w.source.operations] == [("resolve", "v1")]
        assert len(w.left.operations) == 1


# --- holds, and what an agent knows ---


@pytest.mark.parametrize(
    ("reason", "kind", "remedy"),
    [
        ("archived", "archived", "restore the image at source"),
        (
            "locked at the destination, with another digest",
            "immutable",
            "let the tag be moved at left, or delete",
        ),
        (
            "the tag v1 is immutable there: refused within the last day",
            "immutable",
            "let the tag be moved at left",
        ),
        (
            "not trusted: release: no signatures found",
            "signatures",
            "sign the image as trust of rule rule demands",
        ),
        (
            "not trusted: required, but the source has none: sbom",
            "referrers",
            "add what is required to the image",
        ),
        (
            "not trusted: required, but left out by the rule's own filter: sbom",
            "filtered",
            "change the filter or",
        ),
        ("the image has no linux/s390x", "platforms", "push an image with these platforms to source"),
        ("Docker schema 1", "content", "the reason has to end"),
        ("of a later version", "unheard of", "the reason has to end"),
    ],
)
async def test_remembered_hold_tells_since_when_and_what_ends_it(reason: str, kind: str, remedy: str) -> None:
    async with world(clock=FakeClock()) as w:
        root = w.put("app", "v1")
        since = w.clock.now() - 3600
        pending = Pending("app", "v1", root.digest, since, reason=kind, hold=reason)
        w.state.record(Missing("rule", "left", pending))
        said = await only_one(w, [rule()], "left/app:v1", fresh=False)
        assert (said.verdict, said.digest) == ("held", root.digest)
        assert stops(said) == [("held", reason)]
        assert any("held since" in step.text and "1 h ago" in step.text for step in said.steps)
        assert said.since is not None
        assert said.since.timestamp() == since
        assert said.remedy is not None
        assert said.remedy.startswith(remedy)


@pytest.mark.parametrize("fresh", [True, False])
async def test_what_ends_a_hold_of_a_run_is_told(*, fresh: bool) -> None:
    """The words of the remedies are found by those of the holds, so both come from runs here."""
    arm = replace(rule("arm"), platforms=Platforms((parse_platform("linux/arm64"),), "sparse", "hold"))
    require = (parse_referrer_pattern("signature"),)
    signed = replace(rule("signed"), referrer_filter=ReferrerFilter(require=require))
    async with world(clock=FakeClock()) as w:
        w.put("app", "v1")
        for held, remedy in ((arm, "missing_platform of rule arm"), (signed, "referrers of rule signed")):
            if not fresh:
                await w.sync(held)
            said = await only_one(w, [held], "source/app:v1", fresh=fresh)
            assert said.verdict == "held"
            assert said.remedy is not None
            assert said.remedy.endswith(remedy)


async def test_what_a_rule_demands_of_images_are_steps_in_order() -> None:
    demanding = replace(
        rule(),
        platforms=Platforms((parse_platform("linux/arm64"),)),
        referrer_filter=ReferrerFilter(require=(parse_referrer_pattern("signature"),)),
        trust=(TrustPolicy("release"), TrustPolicy("audit")),
    )
    async with world() as w:
        said = await only_one(w, [demanding], "source/app:v1", fresh=False)
        steps = [(step.what, step.text) for step in said.steps]
        first = steps.index(("platform", "only linux/arm64 (sparse), if the image has them"))
        assert steps[first + 1 : first + 3] == [
            ("referrers", "required: signature"),
            ("trust", "demanded: release, audit"),
        ]


@pytest.mark.parametrize(
    ("agenda", "following"),
    [
        (Agenda(paused=True), "no run until the rule is resumed; the next one: copies it"),
        (Agenda(next_run=1e9 + 60), "next run 2001-09-09 01:47:40 UTC (in 1 min): copies it"),
        (
            Agenda(next_run=1e9, backing_off=1e9 + 120, failures=3),
            "next run 2001-09-09 01:48:40 UTC (in 2 min) (waits after 3 failed runs): copies it",
        ),
    ],
)
async def test_what_an_agent_has_planned_is_told(agenda: Agenda, following: str) -> None:
    async with world(clock=FakeClock(1e9)) as w:
        root = w.put("app", "v1")
        w.state.record(Missing("rule", "left", Pending("app", "v1", root.digest, 1e9 - 60)))
        one = asker(w, [rule()])
        answer = await dataclasses.replace(one, agenda=lambda *_: agenda).answer(
            parse_asked("app:v1", SITES), None
        )
        assert [each.next for each in answer.explanations] == [following]


async def test_an_immutable_tag_a_list_and_an_agent_for_other_sites_are_steps() -> None:
    settled = rule(selection=TagSelection(immutable=(parse_tag_pattern("v*"),)))
    async with world(clock=FakeClock()) as w:
        w.put("app", "v1")
        await w.sync(settled)
        said = await only_one(w, [settled], "source/app:v1", fresh=False)
        assert "immutable" in [step.what for step in said.steps]
        listed = replace(settled, images=_Listed())
        said = await only_one(w, [listed], "source/app:v1", fresh=False)
        assert stops(said) == [("image list", "no list of the rule names app")]
        assert said.remedy == "add app to a list of rule rule"
        elsewhere = dataclasses.replace(asker(w, [settled]), rules=[])
        answer = await elsewhere.answer(parse_asked("source/app:v1", SITES), None)
        assert answer.verdict == "unknown"
        assert "does not serve left" in stops(answer.explanations[0])[0][1]


class _Listed:
    """Lists that name another repository."""

    def read(self) -> ImageSet:
        return ImageSet({"other": TagSelection()})


class CountingState(MemoryState):
    """Counts how often the repositories of rules are read, in whole or some of them."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.reads: Counter[str] = Counter()

    async def units(
        self, rule: str, destination: str | None = None, repositories: Collection[str] | None = None
    ) -> Sequence[Unit]:
        self.reads["whole" if repositories is None else "part"] += 1
        return await super().units(rule, destination, repositories)


@pytest.mark.parametrize("fresh", [True, False])
async def test_the_repositories_of_a_rule_are_read_once_however_many_tags_are_explained(
    *, fresh: bool
) -> None:
    tags = tuple(Pin(image("x").digest, f"v{number}") for number in range(20))
    rules = [replace(rule("one"), tags=(TagSelection(pins=tags),)), rule("two", repositories=["other"])]
    async with world() as w:
        w.state = state = CountingState(w.clock)
        w.put("app", "v0", image("x"))
        await w.sync(*rules)
        state.reads.clear()
        answer = await why(w, rules, f"app@{image('x').digest}", fresh=fresh)
        assert len(answer.explanations) == 20
        by_plan = Counter(whole=1, part=2) if fresh else Counter()
        assert state.reads == Counter(whole=2, part=1) + by_plan
