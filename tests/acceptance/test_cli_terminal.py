"""The live display in pseudo-terminals, and what takes its place where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replicator.demo.images import image, layer, load
from tests.acceptance.program import Program, rule
from tests.acceptance.terminal import in_terminal
from tests.fakes.registry import FakeRegistry

SLOW = '[site.fra.limits]\nbytes_per_second = "1MB"\n'


@pytest.fixture
async def program(tmp_path: Path) -> AsyncIterator[Program]:
    """One with 1.5 MB to move at 1 MB a second: several drawings of the display."""
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        shared = layer("shared", 700_000)
        for tag in ("v1", "v2"):
            load(hub.store, "platform/app", tag, image(tag, [shared, layer(tag, 400_000)]))
        program = Program(tmp_path)
        program.write_config({"hub": hub.url, "fra": fra.url}, rule() + SLOW)
        yield program


@pytest.mark.parametrize("columns", [60, 80, 200])
async def test_live_display_fits_the_terminal(program: Program, columns: int) -> None:
    shown = await in_terminal(program, "sync", columns=columns)
    assert shown.code == 0
    drawn = [line for line in shown.lines if "%" in line]
    assert drawn
    assert max(map(len, drawn)) < columns
    assert all(line.startswith("fra ") for line in drawn)
    if columns >= 80:
        assert any("of 1.5 MB" in line for line in drawn)  # the shared layer once
    assert not any("Traceback" in line for line in shown.lines)


async def test_resizing_keeps_the_display_readable(program: Program) -> None:
    shown = await in_terminal(program, "sync", columns=120, resize_to=60)
    assert shown.code == 0
    drawn = [line for line in shown.lines if "%" in line]
    assert len(drawn[-1]) < 60


async def test_no_color_has_no_colours(program: Program) -> None:
    shown = await in_terminal(program, "sync", environ={"NO_COLOR": "1"})
    assert shown.code == 0
    assert not shown.has_colours
    assert any("%" in line for line in shown.lines)


async def test_dumb_terminal_and_pipe_get_plain_lines(program: Program) -> None:
    shown = await in_terminal(program, "sync", environ={"TERM": "dumb"})
    assert "\x1b" not in shown.raw
    assert any("run ended" in line for line in shown.lines)
    piped = await program("sync")
    assert "\x1b" not in piped.stderr + piped.stdout
    assert "INFO run ended" in piped.stderr
