"""A tag whose signature is late is looked at again soon, less and less often, and not for ever."""

from __future__ import annotations

from itertools import pairwise

from replicator.daemon.untrusted import MAX_RETRIED, RETRY_SECONDS, UntrustedTags
from replicator.events import RunEnded, TagDone, TagUntrusted
from tests.unit.daemon.test_daemon_scheduler import Stage, rule


def untrusted(tag: str | None = "v1", digest: str = "sha256:1", *, name: str = "r") -> TagUntrusted:
    key = tag or digest
    return TagUntrusted(name, "fra", "app", tag, "app", key, digest, "no signatures found")


def ended(*tags: str, seen_all: bool = True) -> RunEnded:
    held = frozenset(tags) if seen_all else None
    return RunEnded("r", "fra", "ok", 1.0, in_step=0, pending=0, held=1, failed=0, untrusted=held)


def test_looks_become_rarer_and_end() -> None:
    now, woken = [0.0], []
    tags = UntrustedTags(lambda: now[0], lambda: woken.append(now[0]))
    tags(untrusted())
    looks = []
    while (left := tags.seconds_left()) is not None:
        now[0] += left
        [(rule_name, destination, repositories)] = tags.take_due()
        assert (rule_name, destination, repositories) == ("r", "fra", {"app": frozenset({"v1"})})
        looks.append(now[0])
        tags(untrusted())
    assert len(looks) == len(RETRY_SECONDS)
    assert looks[0] <= 5
    gaps = [later - before for before, later in pairwise(looks)]
    assert gaps == sorted(gaps)
    assert woken
    assert tags.reasons("r", "fra") == {"app:v1": "no signatures found"}


def test_another_image_under_the_tag_begins_anew() -> None:
    now = [0.0]
    tags = UntrustedTags(lambda: now[0], lambda: None)
    for _ in range(len(RETRY_SECONDS) + 1):
        tags(untrusted())
        now[0] += 1_000
        list(tags.take_due())
    assert tags.seconds_left() is None
    tags(untrusted(digest="sha256:2"))
    assert tags.seconds_left() == RETRY_SECONDS[0]


def test_a_tag_that_is_copied_or_gone_is_forgotten() -> None:
    tags = UntrustedTags(lambda: 0.0, lambda: None)
    for tag in ("v1", "v2", "v3"):
        tags(untrusted(tag))
    tags(TagDone("r", "fra", "app", "v1", "copy", "copied"))
    tags(ended("app:v2", seen_all=False))
    assert tags.reasons("r", "fra").keys() == {"app:v2", "app:v3"}
    tags(ended("app:v2"))
    assert tags.reasons("r", "fra").keys() == {"app:v2"}
    tags.keep({("other", "fra")})
    assert not tags.reasons("r", "fra")


def test_thousands_of_unsigned_images_are_not_looked_at_one_by_one() -> None:
    now = [0.0]
    tags = UntrustedTags(lambda: now[0], lambda: None)
    for number in range(MAX_RETRIED + 500):
        tags(untrusted(f"v{number}"))
    now[0] = 10.0
    [(_, _, repositories)] = tags.take_due()
    assert len(repositories["app"] or ()) == MAX_RETRIED


def test_a_digest_without_a_tag_is_looked_at_with_its_repository() -> None:
    now = [0.0]
    tags = UntrustedTags(lambda: now[0], lambda: None)
    tags(untrusted(None))
    tags(untrusted("v1"))
    now[0] = 10.0
    assert list(tags.take_due()) == [("r", "fra", {"app": None})]


async def test_the_agent_looks_again_long_before_the_next_interval() -> None:
    stage = Stage(rule("r", "fra", interval=3600.0))
    stage.engine.outcomes = {"fra": "ok"}
    async with stage.running():
        await stage.until(lambda: len(stage.engine.calls) == 1)
        stage.scheduler.untrusted(untrusted())
        await stage.until(lambda: len(stage.engine.calls) == 2)
        look = stage.engine.calls[1]
        assert look.scope is not None
        assert look.scope.repositories == {"app": frozenset({"v1"})}
        assert look.at - stage.engine.calls[0].at <= 5
