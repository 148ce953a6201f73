from pathlib import Path

from tests.acceptance.program import Program


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
