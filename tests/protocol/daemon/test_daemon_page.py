"""What the status page says of an agent's standing, cell by cell."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from replicator.cli.options import Invocation
from replicator.cli.remote import remote_status
from replicator.daemon.http.api.facts import BEHIND_SECONDS, Facts
from replicator.daemon.http.api.live import Live
from replicator.daemon.http.page.page import render
from replicator.daemon.http.server import listen
from replicator.events import (
    BlobDone,
    BytesWritten,
    ImagePrepared,
    RetryPlanned,
    RunEnded,
    RunStarted,
    ScanMoved,
    TagDone,
    TagPlanned,
    TurnAwaited,
)
from replicator.ports import Standing
from tests.fakes.agent import TOKEN, FakeAgent, simple_rule
from tests.fakes.fleet import FakeSharing, roster


class _Cells(HTMLParser):
    """The rows of all tables, each as text by the name of its column."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, str]] = []
        self._cell = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append({})
        if tag == "td":
            self._cell = dict(attrs)["data-label"] or ""
            self.rows[-1][self._cell] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._cell = ""

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][self._cell] += data


class World:
    """An agent with one rule to `fra` and `sin`, and its page."""

    def __init__(self) -> None:
        self.agent = FakeAgent(simple_rule(destinations=("fra", "sin")))
        self.live = Live(self.agent.clock)
        self.agent.events.subscribe(self.live)
        self.now = self.agent.clock.now()

    def stands(self, destination: str, *, ago: float = 5, **more: object) -> None:
        """Where the rule stands there, with its last look so many seconds ago."""
        at = self.now - ago
        standing = Standing("platform", destination, self.now - 90_000, last_look=at, last_success=at, **more)  # type: ignore[arg-type]
        self.agent.known.append(standing)

    def runs(self, *destinations: str) -> None:
        self.agent.runs.begin(
            rule="platform", source="hub", destinations=destinations, cause="webhook", scope=None, at=self.now
        )

    def text(self) -> str:
        """The page."""
        return render(Facts(self.agent, self.live).status(), self.now)

    def rows(self, column: str) -> dict[str, dict[str, str]]:
        """The rows of the table that has such a column, by destination."""
        cells = _Cells()
        cells.feed(render(Facts(self.agent, self.live).status(), self.now))
        return {row["To"]: row for row in cells.rows if column in row}

    @property
    def states(self) -> dict[str, str]:
        return {destination: row["State"] for destination, row in self.rows("State").items()}


@pytest.fixture
def world() -> World:
    return World()


def test_only_the_destination_that_a_run_is_not_through_with_is_running(world: World) -> None:
    for destination in ("fra", "sin"):
        world.stands(destination, in_step=1)
    world.runs("sin")
    assert world.states == {"fra": "in step", "sin": "running"}


def test_a_run_hides_no_failure(world: World) -> None:
    for destination in ("fra", "sin"):
        world.stands(destination, failed=1, pending=1, oldest_pending=world.now - 90)
    world.runs("sin")
    assert world.states == {"fra": "failing", "sin": "failing, runs"}


def test_an_overdue_look_is_behind_in_the_table_as_on_the_map(world: World) -> None:
    world.stands("fra", ago=7200, in_step=1)
    world.stands("sin", in_step=1)
    assert world.states == {"fra": "behind", "sin": "in step"}
    flows = {each.destination: each.state for each in Facts(world.agent, world.live).flows()}
    assert flows == {"fra": "behind", "sin": "ok"}
    assert BEHIND_SECONDS < 7200


def test_a_run_shows_how_many_bytes_it_has_moved_and_will(world: World) -> None:
    world.runs("fra", "sin")
    emit = world.agent.events.emit
    emit(RunStarted("platform", "hub", ("fra", "sin")))
    emit(TagPlanned("platform", "fra"))
    emit(ImagePrepared("platform", "fra", "app", "v1", (("sha256:1", 2_000_000),)))
    emit(BytesWritten("hub", "fra", 500_000, "app", "sha256:1", 500_000))
    cells = {destination: row["Bytes"] for destination, row in world.rows("Bytes").items()}
    assert cells == {"fra": "500 kB of 2.0 MB", "sin": "0 B"}
    world.agent.clock.advance(1)
    assert world.rows("Left")["fra"]["Left"] == "3.0 s"
    emit(BlobDone("hub", "fra", "app", "sha256:1", "copied", 2_000_000))
    assert world.rows("Bytes")["fra"]["Bytes"] == "2.0 MB"


def test_bar_of_a_run_goes_by_bytes_and_failures_count_at_once(world: World) -> None:
    world.runs("fra")
    emit = world.agent.events.emit
    emit(RunStarted("platform", "hub", ("fra",)))
    for _ in range(3):
        emit(TagPlanned("platform", "fra"))
    emit(ImagePrepared("platform", "fra", "app", "v1", (("sha256:1", 2_000_000),)))
    emit(BytesWritten("hub", "fra", 500_000, "app", "sha256:1", 500_000))
    emit(TagDone("platform", "fra", "app", "v2", "copy", "failed"))
    emit(RetryPlanned("hub", "read blob", "throttled", 30))
    text = world.text()
    assert '<progress value="500000" max="2000000"' in text
    assert "1 of 3" in text
    assert '<span class="failing">1 failed</span>' in text
    assert "hub limits requests: waiting, 30 s more" in text
    for tag in ("v1", "v3"):
        emit(TagDone("platform", "fra", "app", tag, "copy", "copied"))
    assert '<progress value="3" max="3"' in world.text()


def test_largest_transfers_and_sites_that_have_requests_wait_are_named(world: World) -> None:
    emit = world.agent.events.emit
    world.runs("fra")
    emit(RunStarted("platform", "hub", ("fra",)))
    emit(ImagePrepared("platform", "fra", "platform/app", "v1", (("sha256:1", 2_000_000),)))
    emit(BytesWritten("hub", "fra", 500_000, "platform/app", "sha256:1", 500_000))
    emit(TurnAwaited("hub", +1))
    emit(ScanMoved("platform", "hub", 3, 10, is_listed=True))
    text = world.text()
    assert "Largest transfers" in text
    assert "500 kB of 2.0 MB" in text
    assert "hub limits requests: 1 request waiting" in text
    assert "scanning, 3 of 10 repositories" in text


def test_a_run_for_an_event_counts_with_the_one_beside_which_it_begins(world: World) -> None:
    emit = world.agent.events.emit

    def counts() -> tuple[int, int]:
        count = world.live.progress.count("platform", "fra")
        return count.planned, count.done

    def ended() -> RunEnded:
        return RunEnded("platform", "fra", "ok", 1.0, in_step=2, pending=0, held=0, failed=0)

    emit(RunStarted("platform", "hub", ("fra",)))
    for _ in range(2):
        emit(TagPlanned("platform", "fra"))
    emit(RunStarted("platform", "hub", ("fra",), ("platform/app",)))
    for _ in range(2):
        emit(TagDone("platform", "fra", "platform/app", "v1", "copy", "copied"))
    assert counts() == (2, 2)
    emit(ended())
    emit(ended())
    emit(RunStarted("platform", "hub", ("fra",), ("platform/app",)))
    assert counts() == (0, 0)


def test_what_a_drained_run_left_is_not_counted_with_later_ones(world: World) -> None:
    emit, count = world.agent.events.emit, world.live.progress.count
    emit(RunStarted("platform", "hub", ("fra",)))
    for _ in range(3):
        emit(TagPlanned("platform", "fra"))
    emit(TagDone("platform", "fra", "platform/app", "v1", "hold", "held"))
    assert count("platform", "fra").done == 1
    emit(RunEnded("platform", "fra", "interrupted", 1.0, in_step=0, pending=2, held=1, failed=0))
    emit(RunStarted("platform", "hub", ("fra",), ("platform/app",)))
    assert count("platform", "fra").planned == 0


def test_each_tag_is_counted_once(world: World) -> None:
    world.stands("fra", in_step=7, pending=3, failed=3, held=1, oldest_pending=world.now - 90)
    world.stands("sin", in_step=7, pending=3, failed=1, oldest_pending=world.now - 90)
    tags = {destination: row["Tags"].removesuffix(" why?") for destination, row in world.rows("Tags").items()}
    assert tags == {"fra": "7 in step, 3 failed, 1 held", "sin": "7 in step, 2 pending, 1 failed"}


def test_tags_of_a_destination_that_cannot_be_asked_are_unknown(world: World) -> None:
    world.stands("fra", in_step=1, unknown=2, last_error="fra: list tags: connection refused")
    tags = {destination: row["Tags"].removesuffix(" why?") for destination, row in world.rows("Tags").items()}
    assert tags["fra"] == "1 in step, 2 unknown"


def test_images_that_are_not_trusted_are_shown_with_the_reason(world: World) -> None:
    world.stands("fra", in_step=1, held=2)
    world.agent.untrusted = {
        "fra": {"app:v2": "release: not signed by <b>x</b>", "app:v1": "release: no signatures found"}
    }
    states = world.rows("State")
    assert "not trusted, held: app:v1: release: no signatures found (and 1 more)" in states["fra"]["State"]
    assert "not trusted" not in states["sin"]["State"]


async def test_remote_status_counts_what_is_unknown_and_names_the_tag_that_holds_the_lag(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATOR_TOKEN", TOKEN)
    world.stands(
        "fra",
        in_step=1,
        unknown=2,
        pending=1,
        oldest_pending=world.now - 90,
        oldest_repository="app",
        oldest_tag="v1",
    )
    async with listen(world.agent) as url:
        assert await remote_status(Invocation(), url) == 0
    header, fra, _, oldest = capsys.readouterr().out.splitlines()
    assert header.split()[-4:] == ["HELD", "PENDING", "FAILED", "UNKNOWN"]
    assert fra.split()[-5:] == ["1", "0", "1", "0", "2"]
    assert oldest == "oldest pending tag: platform -> fra: app:v1"


def test_cause_of_a_failure_stands_there_when_its_run_is_forgotten(world: World) -> None:
    world.stands("fra", failed=1, pending=1, oldest_pending=world.now - 90, last_error="fra: 403 Forbidden")
    assert world.states["fra"] == "failingfra: 403 Forbidden"
    world.agent.paused.add("platform")
    assert world.states["fra"] == "paused"


async def test_remote_status_says_where_a_rule_is_running(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATOR_TOKEN", TOKEN)
    world.runs("sin")
    async with listen(world.agent) as url:
        assert await remote_status(Invocation(), url) == 0
    _, fra, sin = (line.split() for line in capsys.readouterr().out.splitlines())
    assert fra[:3] == ["platform", "fra", "waiting"]
    assert sin[:3] == ["platform", "sin", "running"]


def test_agents_of_a_fleet_are_listed_with_what_each_does(world: World) -> None:
    assert 'id="agents"' not in world.text(), "an agent alone has no such section"
    world.agent.sharing = FakeSharing(roster(world.now))
    text = world.text()
    cells = _Cells()
    cells.feed(text)
    rows = {row["Agent"]: row for row in cells.rows if "Agent" in row}
    assert {name: row["State"] for name, row in rows.items()} == {
        "a": "working",
        "b": "drainingclock 10 min ahead",
        "c": "lost",
    }
    assert rows["a"]["Doing"] == (
        "platform to fra, shard 3/64platform to fra, shard 9/64: platform/<b>app</b>"
    )
    assert "<b>app</b>" not in text, "what registries name is escaped"
    assert (rows["b"]["Doing"], rows["c"]["Doing"]) == ("nothing", "-")
    assert (rows["a"]["Serves"], rows["b"]["Serves"]) == ("fra", "all")
    assert rows["a"]["Heartbeat"] == "2.0 s ago"


def test_an_agent_without_its_database_does_not_call_others_lost(world: World) -> None:
    world.agent.sharing = FakeSharing(roster(world.now, is_current=False))
    cells = _Cells()
    cells.feed(world.text())
    assert {row["State"].partition("clock")[0] for row in cells.rows if "Agent" in row} == {"unknown"}
