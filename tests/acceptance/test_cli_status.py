"""Where rules stand, told by `status` and `--metrics-file` without an agent."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from replicator.flow.clock import SystemClock
from replicator.ports import RunRow
from replicator.state.store import open_state
from tests.acceptance.program import Program, rule

NOBODY = "http://127.0.0.1:9"
HOUR = 3600.0


@pytest.fixture
async def program(tmp_path: Path) -> Program:
    """One whose rule was in step an hour ago, at both its destinations, and was to run every minute."""
    at = time.time() - HOUR
    state = await open_state(tmp_path / "state.db", clock=SystemClock())
    for destination in ("fra", "sin"):
        await state.close_run(
            RunRow("platform", destination, at, at, "ok", True, in_step=2, held=0, failed=0)
        )
    await state.aclose()
    program = Program(tmp_path)
    program.write_config(dict.fromkeys(("hub", "fra", "sin"), NOBODY), CRON)
    return program


CRON = rule(destinations=("fra", "sin"), more='cron = "* * * * *"')


async def test_lag_grows_where_the_time_that_cron_promised_has_passed(program: Program) -> None:
    told = await program("status", "--json")
    lags = [each["lag_seconds"] for each in told.json["rules"][0]["destinations"]]
    assert all(HOUR <= lag < 2 * HOUR for lag in lags)
    assert "1 h" in (await program("status")).stdout


async def test_metrics_file_has_the_lag_of_a_cron_that_meets_a_dead_source(program: Program) -> None:
    path = program.folder / "replicator.prom"
    assert (await program("sync", "--metrics-file", str(path))).code == 1
    prefix = 'replicator_lag_seconds{destination="fra",rule="platform"} '
    line = next(line for line in path.read_text().splitlines() if line.startswith(prefix))
    assert float(line.removeprefix(prefix)) >= HOUR


async def test_status_leaves_out_destinations_that_are_not_served_here(program: Program) -> None:
    config = program.folder / "replicator.toml"
    config.write_text(config.read_text().replace("[agent]\n", '[agent]\nserves = ["fra"]\n', 1))
    (told,) = (await program("status", "--json")).json["rules"]
    assert [each["destination"] for each in told["destinations"]] == ["fra"]
    assert "sin" not in (await program("status")).stdout
