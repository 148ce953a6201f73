"""The status page in a real browser, with and without its script, and whatever registries say."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replicator.daemon.http.api import stream as stream_module
from replicator.daemon.http.page import page as page_module
from replicator.daemon.http.problems import Problem
from replicator.daemon.http.server import listen
from replicator.engine.result import DestinationResult, Failure, RuleResult
from replicator.events import BytesWritten, RunStarted, TagDone, TagPlanned
from replicator.model.digest import digest_of
from replicator.ports import Standing
from replicator.ports.search import Holding, ImageFacts
from tests.fakes.agent import TOKEN, FakeAgent, config, simple_rule
from tests.fakes.browser import Browser, chromium

HOSTILE = "</td><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
TAB = "\ue004"


@pytest.fixture
def agent() -> FakeAgent:
    """Two rules, one in step and one that fails because of what a hostile registry says."""
    agent = FakeAgent(simple_rule(destinations=("fra", "sin")), simple_rule("relay", "fra", ("edge",)))
    now = agent.clock.now()
    agent.known = [
        Standing("platform", "fra", now - 900, last_look=now - 5, last_success=now - 5, in_step=41),
        Standing("relay", "edge", now - 900, last_look=now - 5, failed=1, pending=1, oldest_pending=now - 600,
                 last_error=HOSTILE),
    ]  # fmt: skip
    run = agent.runs.begin(
        rule="relay", source="fra", destinations=("edge",), cause="interval", scope=None, at=now - 20
    )
    failure = Failure("edge", HOSTILE, "write blob", HOSTILE)
    agent.runs.end(
        run, RuleResult("relay", "fra", [DestinationResult("edge", failures=[failure])]), at=now - 10
    )
    return agent


@pytest.fixture
async def url(agent: FakeAgent) -> AsyncIterator[str]:
    async with listen(agent) as url:
        yield url


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path) as browser:
        yield browser


async def test_page_keeps_up_with_the_agent_by_itself(agent: FakeAgent, url: str, browser: Browser) -> None:
    await browser.open(url)
    assert "1 failing" in await browser.title()
    assert "Nothing is running" in await browser.text("#running")

    now = agent.clock.now()
    run = agent.runs.begin(
        rule="platform", source="hub", destinations=("fra", "sin"), cause="webhook", scope=None, at=now
    )
    agent.events.emit(RunStarted("platform", "hub", ("fra", "sin")))
    for _ in range(4):
        agent.events.emit(TagPlanned("platform", "fra"))
    agent.events.emit(TagDone("platform", "fra", "platform/app", "v1", "copy", "copied"))
    agent.clock.advance(2)
    await browser.until("1 of 4", "#running")
    assert await browser.run("return document.querySelector('#running progress').value") == 1

    agent.runs.end(run, RuleResult("platform", "hub", [DestinationResult("fra")]), at=now + 2)
    agent.known[1] = Standing("relay", "edge", now - 900, last_look=now, last_success=now, in_step=7)
    agent.known.append(Standing("platform", "sin", now - 900, last_look=now, last_success=now, in_step=41))
    agent.clock.advance(2)
    await browser.until("in step", "#summary")
    await browser.until("Nothing is running", "#running")
    assert await browser.title() == "in step · here · replicator"
    assert await browser.complaints() == []


QUICK = (
    "const interval = window.setInterval; window.setInterval = (call, wait) => interval(call, wait / 100);"
)
"""The page's turn of 15 s is 150 ms."""


@pytest.fixture
async def quick(browser: Browser) -> Browser:
    await browser.prepare(QUICK)
    return browser


async def test_page_of_a_quiet_agent_counts_down_all_the_same(
    agent: FakeAgent, url: str, quick: Browser
) -> None:
    now = agent.clock.now()
    del agent.known[1:]  # what is pending is a little older each second, and told
    agent.next_runs["platform"] = now + 250
    await quick.open(url)
    await quick.until("in 4 min 10 s", "#rules")
    agent.paused.add("relay")
    agent.clock.advance(2)
    await quick.until("paused", "#rules")  # so the stream has told what there is to tell
    agent.clock.advance(238)
    await quick.until("in 10 s", "#rules")
    assert await quick.complaints() == []


async def test_page_whose_stream_was_refused_is_up_to_date_and_gets_it_later(
    agent: FakeAgent, url: str, quick: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "MAX_CLIENTS", 0)
    await quick.open(url)
    agent.paused.add("platform")
    await quick.until("paused", "#rules")
    assert await quick.run("return document.body.className") == ""
    monkeypatch.setattr(stream_module, "MAX_CLIENTS", 1)
    await quick.until("", "body.live")


async def test_page_says_when_it_cannot_be_had_any_more(
    url: str, quick: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await quick.open(url)
    await quick.until("", "body.live:not(.stale)")
    with monkeypatch.context() as broken:
        broken.setattr(page_module, "render", refuse)  # as a proxy may; the stream goes on
        await quick.until("", "body.live.stale")
    await quick.until("", "body.live:not(.stale)")


def refuse(*_: object) -> str:
    raise Problem(502, "not now")


async def test_nothing_that_a_registry_says_is_run(agent: FakeAgent, url: str, browser: Browser) -> None:
    agent.problems = [HOSTILE]
    await browser.open(url)
    await browser.until(HOSTILE, "#failures")
    agent.clock.advance(2)
    agent.paused.add("platform")  # so that it is replaced by the script as well
    await browser.until("paused", "#rules")
    assert "taken" not in await browser.title()
    assert await browser.run("return document.querySelectorAll('img, main script').length") == 0
    assert await browser.complaints() == []


async def test_inline_script_would_be_refused_anyhow(url: str, browser: Browser) -> None:
    await browser.open(url)
    await browser.run(
        "const made = document.createElement('script'); made.textContent = \"document.title = 'taken'\";"
        "document.body.append(made)"
    )
    assert "taken" not in await browser.title()
    assert any("Content Security Policy" in each for each in await browser.complaints())


async def test_facts_stand_there_without_javascript(url: str, tmp_path: Path) -> None:
    async with chromium(tmp_path, javascript=False) as browser:
        await browser.open(url)
        text = await browser.text()
        for fact in ("hub", "fra", "edge", "platform", "relay", "10 min", "41 in step", "write blob"):
            assert fact in text, fact
        assert await browser.text("#summary") == "1 failing"


async def test_map_draws_each_flow_with_its_lag(url: str, browser: Browser) -> None:
    await browser.open(url)
    text = await browser.text("svg")
    for fact in ("hub", "fra", "sin", "edge", "in step", "lag 10 min", "not looked yet"):
        assert fact in text, fact
    drawn = await browser.run(
        "return [...document.querySelectorAll('svg .flow')].map(line => [line.className.baseVal, line.getTotalLength()])"
    )
    assert sorted(kind for kind, _ in drawn) == ["flow failing", "flow new", "flow ok"]
    assert all(length > 100 for _, length in drawn)


async def test_labels_of_the_map_stand_above_the_straight_ends_of_their_lines(
    agent: FakeAgent, url: str, browser: Browser
) -> None:
    now = agent.clock.now()
    agent.known.append(
        Standing("platform", "sin", now - 1e5, last_look=now, pending=1, oldest_pending=now - 86_399)
    )
    agent.events.emit(BytesWritten("hub", "sin", 999_000_000))
    await browser.open(url)
    assert "lag 23 h 59 min · 99.9 MB/s" in await browser.text("svg")
    overlaps = """
        const labels = [...document.querySelectorAll("svg .label")];
        return [...document.querySelectorAll("svg .flow")].map((line, index) => {
          const [, level, end] = /([\\d.]+) [\\d.]+ H([\\d.]+)$/.exec(line.getAttribute("d"));
          const { x, width } = labels[index].getBBox();
          return [labels[index].textContent, x - level, end - (x + width)];
        });
    """
    rooms = await browser.run(overlaps)
    assert len(rooms) == 3
    assert [each for each in rooms if min(each[1:]) < 0] == []


async def test_names_are_not_broken_at_their_hyphens(browser: Browser) -> None:
    long = "a-rule-with-a-name-that-is-longer-than-any-other-here"
    agent = FakeAgent(simple_rule("base-images", "hub", ("edge-1",)), simple_rule(long, "hub", ("edge-2",)))
    now = agent.clock.now()
    error = "edge-1: platform/app: write manifest: 403 Forbidden: denied: the robot account may not push here"
    agent.known = [Standing("base-images", "edge-1", now - 9, last_look=now, in_step=4100, failed=123, held=12,
                            pending=123, oldest_pending=now - 340, last_error=error)]  # fmt: skip
    async with listen(agent) as url:
        for width in (1280, 860, 500):  # 860: hardly wide enough for the tables
            await browser.resize(width, 900)
            await browser.open(url)
            broken = "return [...document.querySelectorAll('.whole')].filter(e => e.getClientRects().length > 1).length"
            assert await browser.run(broken) == 0
            overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert await browser.run(overflow) == 0
        tags = await browser.text("#rules td[data-label=Tags]")
        assert tags.split() == ["4100", "in", "step,", "123", "failed,", "12", "held", "why?"]


async def test_narrow_screen_needs_no_scrolling_sideways(url: str, browser: Browser) -> None:
    await browser.resize(500, 900)  # as narrow as Chromium's window gets
    await browser.open(url)
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await browser.run(overflow) == 0
    assert await browser.run("return getComputedStyle(document.querySelector('#rules td')).display") == "grid"


async def test_everything_is_reached_by_keyboard(url: str, browser: Browser) -> None:
    await browser.open(url)
    reached = []
    rows = await browser.run("return document.querySelectorAll('#rules tbody tr').length")
    for _ in range(5 + rows):
        await browser.press(TAB)
        reached.append(await browser.run("return document.activeElement.textContent.trim().slice(0, 12)"))
        style = await browser.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid"
    assert reached[0] == "Skip to the "
    assert reached[1] == "Search"
    assert reached[2].startswith("Sites and wh")
    assert reached[3:] == [*["why?"] * rows, "metrics", "API"]


async def test_a_search_typed_into_the_page_finds_an_image_and_runs_nothing_of_it(tmp_path: Path) -> None:
    agent = FakeAgent(simple_rule(destinations=("fra",)))
    digest = digest_of(b"x")
    agent.index.holdings = [
        Holding("platform", "fra", "platform/app", "v1", digest, digest, agent.clock.now(), ("platform/app",))
    ]
    agent.index.images = {
        digest: ImageFacts(digest, labels={"title": "<script>document.title = 'run'</script>"})
    }
    async with listen(agent) as address, chromium(tmp_path) as browser:
        await browser.open(f"{address}/search?q=app")
        assert await browser.run("return document.querySelector('td a').textContent") == "platform/app:v1"
        await browser.run("document.querySelector('td a').click()")
        await browser.until("", "#where")
        assert "platform/app:v1" in await browser.run("return document.title")
        assert "document.title = 'run'" in await browser.run(
            "return document.querySelector('#image').textContent"
        )


@pytest.mark.parametrize("dark", [False, True])
async def test_text_is_easy_to_read_in_light_and_dark(url: str, tmp_path: Path, *, dark: bool) -> None:
    async with chromium(tmp_path, *(["--force-dark-mode"] if dark else [])) as browser:
        await browser.open(url)
        assert await browser.run("return matchMedia('(prefers-color-scheme: dark)').matches") == dark
        contrasts = await browser.run(_CONTRASTS)
        assert len(contrasts) > 10
        assert {what: ratio for what, ratio in contrasts if ratio < 4.5} == {}


async def test_browser_logs_in_with_the_token_as_password(browser: Browser) -> None:
    loaded = config(listen=("0.0.0.0", 0))  # noqa: S104 - where it asks for the token
    async with listen(FakeAgent(loaded=loaded)) as url:
        port = url.rpartition(":")[2]
        await browser.open(f"http://127.0.0.1:{port}/")
        assert "platform" not in await browser.text()
        await browser.open(f"http://anybody:{TOKEN}@127.0.0.1:{port}/")
        await browser.until("platform", "#rules")
        # style, script and stream are let in as well
        assert (
            await browser.run("return getComputedStyle(document.querySelector('.pill')).borderRadius")
            == "999px"
        )
        await browser.until("", "body.live")


_CONTRASTS = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = (colour) => {
  const [r, g, b] = channels(colour).map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if ((channels(colour)[3] ?? 1) > 0) return colour;
  }
  return "rgb(255, 255, 255)";
};
return [...document.querySelectorAll("h1, h2, p, td, th, .pill, a, small")].filter((e) => e.textContent.trim()).map((element) => {
  const [light, dark] = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((a, b) => b - a);
  return [element.tagName + " " + element.className + ": " + element.textContent.slice(0, 20), (light + 0.05) / (dark + 0.05)];
});
"""
"""The contrast of each text with what is behind it, as WCAG counts it; 4.5 is its AA."""
