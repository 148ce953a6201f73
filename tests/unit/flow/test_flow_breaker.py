"""The breaker: a lost site is not asked again, a living one always is."""

from __future__ import annotations

import pytest

from replicator import errors
from replicator.errors import Advice, AuthFailed, Corrupt, NotFound, SiteError, Unavailable
from replicator.flow.breaker import Breaker


def _down(site: str = "hub") -> Unavailable:
    return Unavailable(site, "read blob", "connection refused", repository="app")


def test_closed_breaker_lets_everything_pass() -> None:
    breaker = Breaker("hub")
    breaker.check()
    assert breaker.cause is None


def test_error_that_stops_the_site_opens_it_for_good() -> None:
    breaker = Breaker("hub")
    refused = AuthFailed("hub", "get token", "password refused")
    breaker.failed(refused)
    breaker.succeeded()
    breaker.failed(_down())
    with pytest.raises(AuthFailed) as caught:
        breaker.check("list tags", "app")
    assert str(caught.value) == "hub: app: list tags: not tried: get token: password refused"
    assert caught.value.advice is Advice.STOP_SITE
    assert caught.value.__cause__ is refused
    with pytest.raises(AuthFailed, match=r"^hub: get token: not tried: password refused$"):
        breaker.check()


def test_only_failures_in_a_row_open_it() -> None:
    breaker = Breaker("hub", threshold=3)
    for answer in (None, NotFound("hub", "read blob", "unknown"), Corrupt("hub", "read blob", "other bytes")):
        breaker.failed(_down())
        breaker.failed(_down())
        if answer is None:
            breaker.succeeded()
        else:
            breaker.failed(answer)
        breaker.check()
    for _ in range(3):
        breaker.check()
        breaker.failed(_down())
    with pytest.raises(Unavailable, match="not tried: connection refused"):
        breaker.check()


def test_what_the_site_itself_answered_does_not_open_it() -> None:
    """Ten tags that answer 500 are ten bad tags: the site is alive."""
    breaker = Breaker("hub", threshold=3)
    for _ in range(10):
        breaker.failed(_down())
        breaker.failed(_down())
        breaker.failed(Unavailable("hub", "resolve tag", "500 Internal Server Error", answered=True))
        breaker.check()


def test_another_sites_failure_does_not_count() -> None:
    breaker = Breaker("fra", threshold=1)
    breaker.failed(_down("hub"))
    breaker.failed(AuthFailed("hub", "get token", "refused"))
    breaker.check()


ABOUT_ONE_TAG: set[type[SiteError]] = {errors.TagMoved, errors.Untrusted}
"""Their advice cannot be chosen: they never say anything about the site."""


@pytest.mark.parametrize(
    "kind",
    [
        one
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, SiteError) and one not in ABOUT_ONE_TAG
    ],
)
def test_every_kind_of_error_can_be_remembered(kind: type[SiteError]) -> None:
    breaker = Breaker("hub")
    breaker.failed(kind("hub", "check", "no use", advice=Advice.STOP_SITE))
    with pytest.raises(kind, match="not tried: no use"):
        breaker.check()
