"""Destinations that refuse to show what they have, and take what they are sent."""

from __future__ import annotations

import pytest
from aiohttp.typedefs import Middleware

from replicator.demo.images import image
from tests.acceptance.wired import wired
from tests.fakes import habits
from tests.fakes.auth import Bearer
from tests.fakes.registry import FakeRegistry
from tests.fakes.watched import WatchedStore


def _hidden_from_pullers(user: str, scope: str) -> str:
    return scope if user and "push" in scope else ""


def reluctant(*quirks: Middleware, auth: Bearer | None = None) -> FakeRegistry:
    return FakeRegistry(*quirks, auth=auth, store=WatchedStore(refuses_dangling=False))


RELUCTANT: dict[str, tuple[Middleware, ...]] = {
    "unknown repositories are 401": (habits.hides_unknown_repositories(401),),
    "unknown repositories are 403": (habits.hides_unknown_repositories(403),),
    **{
        f"tags are not listed: {status}": (habits.no_tags_list(status),)
        for status in (401, 403, 404, 405, 501)
    },
    "tags are not listed: 404 as HTML": (habits.no_tags_list(404, html=True),),
    "manifests may not be pulled: 412": (habits.pull_policy(412),),
    "manifests may not be pulled: 403": (habits.pull_policy(403, "DENIED"),),
    "nothing is shown": (habits.no_tags_list(403), habits.pull_policy(403, "DENIED")),
}


@pytest.mark.parametrize("quirks", RELUCTANT.values(), ids=RELUCTANT)
async def test_image_is_copied_kept_in_step_and_not_sent_twice(quirks: tuple[Middleware, ...]) -> None:
    async with wired(target=reluctant(*quirks)) as w:
        assert (await w.sync_one()).outcome == "ok"
        assert w.tags() == w.whole

        w.put("app", "v1", image("moved"))
        w.target.requests.clear()
        result = await w.sync_one()
        assert (result.outcome, result.totals.tags.copied, result.totals.tags.unchanged) == ("ok", 1, 1)
        assert w.tags() == w.whole
        assert w.target.count("PUT", "/web/manifests/") == 0


@pytest.mark.parametrize("quirks", RELUCTANT.values(), ids=RELUCTANT)
async def test_moved_tag_is_copied_though_the_state_is_lost(quirks: tuple[Middleware, ...]) -> None:
    async with wired(target=reluctant(*quirks)) as w:
        await w.sync_one()
        w.put("app", "v1", image("moved"))
        w.forget()
        assert (await w.sync_one()).outcome == "ok"
        assert w.tags() == w.whole


async def test_recheck_of_what_may_not_be_pulled_warns_and_leaves_it() -> None:
    async with wired(target=reluctant(habits.pull_policy())) as w:
        await w.sync_one()
        result = await w.sync_one(recheck=True)
        assert (result.outcome, result.totals.tags.unchanged) == ("ok", 2)
        assert len(result.warnings) == 2  # one a repository
        assert "7 vulnerabilities" in result.warnings[0]


async def test_token_service_that_refuses_to_show_what_does_not_exist() -> None:
    auth = Bearer({"mirror": "not-to-be-told"}, grant=_hidden_from_pullers)
    async with wired(target=reluctant(auth=auth), with_login=True) as w:
        assert (await w.sync_one()).outcome == "ok"
        assert w.tags() == w.whole
