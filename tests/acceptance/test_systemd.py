"""The files in `systemd/`, as systemd's own programs see them. No service is started: that takes a systemd that is process 1."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from replicator.cli.run import STOP_SECONDS, command
from replicator.daemon.scheduler import STILL_SECONDS
from replicator.engine.context import DRAIN_SECONDS
from replicator.runs.hooks import HOOK_SECONDS
from tests.fakes.process import ROOT, require

UNITS: Final = ROOT / "systemd"
SERVICES: Final = ("replicator.service", "replicator@.service", "replicator-sync.service")
MAX_EXPOSURE: Final = 2.0
RESTRICTIONS: Final = re.compile(
    r"(Protect|Private|Restrict|SystemCall|MemoryDeny|Lock|Device|NoNew|Cap|RemoveIPC|ProcSub|LimitCORE).*"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine's folders with everything installed as docs/install.md has it, both drop-ins included."""
    require("systemd-analyze")
    # The targets and slices that the units lean on.
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    units = tmp_path / "etc/systemd/system"
    for service in SERVICES:
        drop_ins = units / f"{service}.d"
        drop_ins.mkdir(parents=True)
        shutil.copy(UNITS / service, units)
        for drop_in in ("credentials.conf", "directories.conf"):
            shutil.copy(UNITS / drop_in, drop_ins)
    shutil.copy(UNITS / "replicator-sync.timer", units)
    for program in ("opt/replicator/bin/replicator", "bin/kill"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return tmp_path


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [require(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def options(unit: str) -> dict[str, list[str]]:
    """All assignments of a unit, by key, in order."""
    found: dict[str, list[str]] = {}
    text = (UNITS / unit).read_text().replace("\\\n", "")
    for line in text.splitlines():
        key, is_set, value = line.partition("=")
        if is_set and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_units_verify(root: Path) -> None:
    units = (
        "replicator.service",
        "replicator@fra.service",
        "replicator-sync.service",
        "replicator-sync.timer",
    )
    verified = run("systemd-analyze", f"--root={root}", "verify", *units)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    (root / "opt/replicator/bin/replicator").unlink()
    assert "replicator is not executable" in run("systemd-analyze", f"--root={root}", "verify", *units).stderr


@pytest.mark.parametrize(
    "service", ["replicator.service", "replicator@fra.service", "replicator-sync.service"]
)
def test_exposure_is_small_even_with_the_drop_ins(root: Path, service: str) -> None:
    told = run(
        "systemd-analyze",
        f"--root={root}",
        "security",
        "--offline=true",
        f"--threshold={int(MAX_EXPOSURE * 10)}",
        service,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    overall = re.search(r"Overall exposure level for \S+: ([\d.]+)", told.stdout)
    assert overall is not None
    assert float(overall[1]) <= MAX_EXPOSURE
    assert "UMask" in told.stdout


def test_all_services_are_restricted_alike() -> None:
    first, *others = (
        {key: values for key, values in options(service).items() if RESTRICTIONS.fullmatch(key)}
        for service in SERVICES
    )
    assert len(first) > 20
    assert others == [first, first]


def test_user_is_made_by_sysusers(root: Path) -> None:
    (root / "etc/sysusers.d").mkdir()
    shutil.copy(UNITS / "replicator.sysusers.conf", root / "etc/sysusers.d/replicator.conf")
    made = run("systemd-sysusers", f"--root={root}", "replicator.conf")
    assert made.returncode == 0, made.stderr
    [user] = (root / "etc/passwd").read_text().splitlines()
    assert user.split(":")[0] == "replicator"
    assert user.endswith(":/var/lib/replicator:/usr/sbin/nologin")
    for service in SERVICES:
        assert options(service)["User"] == options(service)["Group"] == ["replicator"]


def test_folder_for_node_exporter_is_where_the_service_writes(root: Path) -> None:
    rules = UNITS / "replicator-sync.tmpfiles.conf"
    made = run("systemd-tmpfiles", f"--root={root}", "--create", str(rules))
    assert made.returncode == 0, made.stderr
    [folder] = options("replicator-sync.service")["ReadWritePaths"]
    assert (root / folder.removeprefix("/")).is_dir()
    [command] = options("replicator-sync.service")["ExecStart"]
    assert f"--metrics-file {folder}/" in " ".join(command.split())
    assert "u:replicator:rwx" in rules.read_text()


@pytest.mark.parametrize("service", SERVICES)
def test_there_is_time_to_drain(service: str) -> None:
    [seconds] = options(service)["TimeoutStopSec"]
    assert int(seconds) > STOP_SECONDS > DRAIN_SECONDS + HOOK_SECONDS
    assert options(service)["KillMode"] == ["mixed"]


def test_documents_say_how_long_a_stop_may_take() -> None:
    assert command.help is not None
    assert f"ended after {STOP_SECONDS:g} s" in command.help
    assert f"{STOP_SECONDS:g} seconds after the first signal" in (ROOT / "docs/commands.md").read_text()


@pytest.mark.parametrize("service", SERVICES)
def test_memory_and_tasks_are_bounded_and_a_run_ends(service: str) -> None:
    found = options(service)
    assert re.fullmatch(r"\d+[MG]", found["MemoryMax"][0])
    assert re.fullmatch(r"\d+", found["TasksMax"][0])
    if found["Type"] == ["oneshot"]:  # systemd's own default is no limit at all
        assert re.fullmatch(r"\d+h", found["TimeoutStartSec"][0])


def test_watchdog_waits_longer_than_a_scheduler_may_be_still() -> None:
    for service in SERVICES[:2]:
        [seconds] = options(service)["WatchdogSec"]
        assert int(seconds) > STILL_SECONDS
        assert options(service)["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
        assert options(service)["Type"] == ["notify"]


def test_instances_share_nothing() -> None:
    found = options("replicator@.service")
    for key in ("StateDirectory", "CacheDirectory", "ConfigurationDirectory"):
        assert found[key] == ["replicator/%i"]
    assert found["ExecStart"] == [
        "/opt/replicator/bin/replicator run --config /etc/replicator/%i/config.toml"
    ]


def test_timer_starts_the_one_shot() -> None:
    found = options("replicator-sync.service")
    assert found["Type"] == ["oneshot"]
    assert found["SuccessExitStatus"] == ["143"]
    assert "Install" not in (UNITS / "replicator-sync.service").read_text()


def test_every_file_is_told_of_in_the_installation_guide() -> None:
    guide = (ROOT / "docs/install.md").read_text()
    assert [path.name for path in UNITS.iterdir() if f"systemd/{path.name}" not in guide] == []
    for name in re.findall(r"(?<![/\w])systemd/([\w@-]+\.[\w.]+)", guide):
        assert (UNITS / name).is_file(), name
