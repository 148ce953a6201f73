"""Errors tell where, what and about what."""

from __future__ import annotations

from replicator.errors import Advice, NotFound, Throttled


def test_an_error_names_site_repository_operation_and_cause() -> None:
    error = NotFound("hub", "resolve", "404 Not Found", repository="app")
    assert str(error) == "hub: app: resolve: 404 Not Found"


def test_an_error_can_say_what_it_is_about_and_keeps_the_rest() -> None:
    error = Throttled("hub", "resolve", "429", repository="app", advice=Advice.LATER, retry_after=7.0)
    named = error.about("tag v1")
    assert isinstance(named, Throttled)
    assert str(named) == "hub: app: resolve: tag v1: 429"
    assert (named.advice, named.retry_after, named.repository) == (Advice.LATER, 7.0, "app")
    assert str(error) == "hub: app: resolve: 429"
