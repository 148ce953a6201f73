"""Who is told what."""

from __future__ import annotations

import pytest

from replicator.events import Event, Events, InFlight, RequestDone, Warned

DONE, WARNED = RequestDone("hub", "ping", "200", 0.1), Warned("hub", "slow")


def test_a_subscriber_is_told_of_the_kinds_that_it_names() -> None:
    events = Events()
    everything: list[Event] = []
    some: list[Event] = []
    events.subscribe(everything.append)
    events.emit(DONE)
    events.subscribe(some.append, to={Warned})  # also of a kind that was emitted before
    for event in (DONE, WARNED, InFlight("hub", "reads", +1)):
        events.emit(event)
    assert some == [WARNED]
    assert everything == [DONE, DONE, WARNED, InFlight("hub", "reads", +1)]


def test_who_has_unsubscribed_is_told_no_more() -> None:
    events = Events()
    seen: list[Event] = []
    events.subscribe(seen.append)
    events.emit(DONE)
    events.unsubscribe(seen.append)
    events.emit(DONE)
    assert seen == [DONE]


def test_a_subscriber_that_raises_disturbs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError(str(event))

    events.subscribe(broken)
    events.subscribe(seen.append)
    events.emit(WARNED)
    assert seen == [WARNED]
    assert "subscriber failed" in caplog.text
