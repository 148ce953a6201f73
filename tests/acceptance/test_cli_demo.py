from pathlib import Path

from tests.acceptance.program import Program
from tests.fakes.registry import FakeRegistry


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_demo_replicates_twice_and_leaves_nothing_behind(tmp_path: Path) -> None:
    ended = await Program(tmp_path)("demo", environ={"TMPDIR": str(tmp_path)})
    assert ended.code == 0
    for heading in ("$ replicator plan", "$ replicator sync", "What to try next:"):
        assert f"\n{heading}" in ended.stdout
    first, second = (line for line in ended.stdout.splitlines() if line.startswith("ok: "))
    assert first.startswith("ok: 6 tags copied, 0 unchanged, 0 failed")
    assert second.startswith("ok: 0 tags copied, 6 unchanged, 0 failed; 0 B read, 0 B written")
    assert " ERROR " not in ended.stderr
    assert left_in(tmp_path) == []


async def test_demo_gives_both_reports_as_json(tmp_path: Path) -> None:
    ended = await Program(tmp_path)("demo", "--json")
    assert [run["totals"]["tags"]["copied"] for run in ended.json["runs"]] == [6, 0]


async def test_demo_fills_a_registry_of_ones_own(tmp_path: Path) -> None:
    async with FakeRegistry() as hub:
        ended = await Program(tmp_path)(
            "demo", "--fill", hub.url.removeprefix("http://"), environ={"TMPDIR": str(tmp_path)}
        )
        assert ended.code == 0
        assert "ok: 4 tags copied" in ended.stdout
        assert set(hub.store.content("platform/shop").tags) == {"v1.0", "v1.1", "v1.2-rc1"}
        assert left_in(tmp_path) == []
