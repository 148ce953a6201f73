"""The .deb and the .rpm of `make package`: installed, started, upgraded and removed on machines made for that."""

from __future__ import annotations

import asyncio
import gzip
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from replicator.demo.images import image, layer
from scripts.environment import version
from scripts.package import native, package_version, release
from tests.acceptance.agent import PATIENCE_SECONDS, NotifySocket
from tests.acceptance.program import Ended, Running
from tests.acceptance.walker import fill
from tests.fakes.distribution import Server
from tests.fakes.machine import Machine, debian, depends_of, memory, service_environment
from tests.fakes.process import ROOT, free_port, require

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

CONFIG = "/etc/replicator/config.toml"
UNITS = "/usr/lib/systemd/system"
METRICS = "/var/lib/prometheus/node-exporter"
AS_SERVICE = ("setpriv", "--reuid=replicator", "--regid=replicator", "--clear-groups", "--no-new-privs")
# What dpkg, rpm and useradd leave on every machine, and the Debian packages' Python compiled, which is so on real ones.
NOISE = re.compile(
    r"/var/lib/(dpkg|rpm)\b|/var/log\b|/etc/(passwd|group|g?shadow)-?$|/etc/\.pwd\.lock|/var/tmp/rpm"
    r"|/usr/lib/python3\.\d+/.*__pycache__"
)


def built(kind: str) -> Path:
    """The package of this version and machine, by `make package`."""
    file = ROOT / "dist" / f"replicator_{package_version(release())}-1_{native()}.{kind}"
    if not file.is_file():
        pytest.fail(f"{file} does not exist: make package", pytrace=False)
    return file


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A Debian with the packages that the .deb depends on, and no others beside the essential ones."""
    with memory() as folder:
        made = debian(folder / "root", depends_of(built("deb")))
        shutil.copy(built("deb"), made.root / "replicator.deb")
        yield made


def contents(machine: Machine) -> set[str]:
    return {path for path in machine.files() if not NOISE.match(path)}


def users(machine: Machine) -> list[str]:
    return [line.split(":")[0] for line in machine.path("/etc/passwd").read_text().splitlines()]


def exec_start(machine: Machine, unit: str) -> list[str]:
    text = machine.path(f"{UNITS}/{unit}").read_text().replace("\\\n", "")
    [command] = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    return shlex.split(command)


@asynccontextmanager
async def started(machine: Machine, unit: str, **environment: str) -> AsyncIterator[Running]:
    """The unit's command, under its user and with its directories, as systemd starts it."""
    environ = service_environment(machine, f"{UNITS}/{unit}", **environment)
    process = await asyncio.create_subprocess_exec(
        *machine.command(*AS_SERVICE, "--", *exec_start(machine, unit)),
        env={"PATH": "/usr/sbin:/usr/bin", **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def run_unit(machine: Machine, unit: str) -> Ended:
    async with started(machine, unit) as running, asyncio.timeout(PATIENCE_SECONDS):
        return await running.end()


def write_config(machine: Machine, hub: str, port: int) -> str:
    """A config from a registry to a directory, whose owner is the service's user."""
    text = (
        f'[agent]\nlisten = "127.0.0.1:{port}"\n[site.hub]\nurl = "{hub}"\ndocker_config = false\n'
        '[site.shelf]\nurl = "file:///srv/mirror"\nlayout = "oci"\n'
        '[[rule]]\nname = "app"\nsource = "hub"\ndestinations = ["shelf"]\nrepositories = ["packaged/app"]\n'
    )
    machine.path(CONFIG).write_text(text)
    machine.run("install", "-d", "-o", "replicator", "-g", "replicator", "/srv/mirror")
    return text


def newer(machine: Machine, folder: Path) -> None:
    """Puts a next version of the .deb on the machine, which lacks one file of the former."""
    subprocess.run(("dpkg-deb", "--raw-extract", built("deb"), folder), check=True)
    control = folder / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*$", "Version: 99.0-1", control.read_text()))
    (folder / "usr/share/doc/replicator/CHANGELOG.md").unlink()
    target = machine.root / "newer.deb"
    subprocess.run(("dpkg-deb", "-Znone", "--build", folder, target), check=True, stdout=subprocess.DEVNULL)


async def test_deb_from_installation_to_purge(
    machine: Machine, docker_registry: Server, tmp_path: Path
) -> None:
    await fill(docker_registry.settings(), {("packaged/app", "v1"): image("packaged", [layer("packaged")])})
    before, users_before = contents(machine), users(machine)

    machine.run("dpkg", "--force-unsafe-io", "--install", "/replicator.deb")
    assert users(machine) == [*users_before, "replicator"]
    assert machine.path(CONFIG).stat().st_mode & 0o7777 == 0o640
    assert machine.run("stat", "--format=%U:%G", CONFIG).stdout == "root:replicator\n"
    told = machine.run("replicator", "--version").stdout
    assert machine.run("dpkg-query", "-Wf", "${Version}", "replicator").stdout.partition("-")[0] in told
    completed = machine.run("bash", "-c", ". /usr/share/bash-completion/completions/replicator; complete -p")
    assert completed.stdout.endswith(" replicator\n")
    for command in ("replicator", "replicator-sync", "replicator-why"):
        page = gzip.decompress(machine.path(f"/usr/share/man/man1/{command}.1.gz").read_bytes())
        assert b".SH SYNOPSIS" in page
    # As installed nothing replicates, and the program says what to do.
    fresh = machine.run("replicator", "check", "--config", CONFIG, check=False)
    assert fresh.returncode == 2
    assert "Traceback" not in fresh.stderr
    assert not list(machine.path("/etc/systemd/system").rglob("*replicator*"))
    verify(machine)

    # The timer's command under its user: an image arrives, and its metrics where node_exporter reads them.
    config = write_config(machine, docker_registry.url, port := free_port())
    ended = await run_unit(machine, "replicator-sync.service")
    assert ended.code == 0, ended.stderr
    assert machine.path("/srv/mirror/packaged/app/index.json").is_file()
    assert "replicator_tags" in machine.path(f"{METRICS}/replicator.prom").read_text()

    await agent_starts_and_stops(machine, port)

    newer(machine, tmp_path / "newer")
    machine.run("dpkg", "--force-unsafe-io", "--install", "/newer.deb")
    assert machine.path(CONFIG).read_text() == config
    assert machine.path("/var/lib/replicator/state.db").is_file()
    assert not machine.path("/usr/share/doc/replicator/CHANGELOG.md").exists()
    ended = await run_unit(machine, "replicator-sync.service")
    assert ended.code == 0, ended.stderr

    # Enabled units and instances leave no links behind.
    machine.run(
        "systemctl", "enable", "replicator.service", "replicator@fra.service", "replicator-sync.timer"
    )
    assert len(list(machine.path("/etc/systemd/system").rglob("*replicator*"))) == 3
    machine.run("dpkg", "--force-unsafe-io", "--remove", "replicator")
    assert machine.path(CONFIG).read_text() == config
    assert machine.path("/var/lib/replicator/state.db").is_file()
    assert not list(machine.path("/etc/systemd/system").rglob("*replicator*"))
    assert "replicator" not in machine.run("getfacl", METRICS).stdout
    of_the_admin = machine.path("/etc/replicator/conf.d/mine.toml")
    of_the_admin.parent.mkdir()
    of_the_admin.write_text("")
    machine.run("dpkg", "--force-unsafe-io", "--purge", "replicator")
    left = {path for path in contents(machine) - before if not path.startswith("/srv")}
    assert left == {
        "/newer.deb",
        "/etc/replicator",
        "/etc/replicator/conf.d",
        "/etc/replicator/conf.d/mine.toml",
    }
    assert before - contents(machine) == set()
    assert users(machine) == users_before


def verify(machine: Machine) -> None:
    """The installed units, as systemd sees them."""
    units = (
        "replicator.service",
        "replicator@fra.service",
        "replicator-sync.service",
        "replicator-sync.timer",
    )
    command = (require("systemd-analyze"), f"--root={machine.root}", "verify", *units)
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in (told.stdout + told.stderr).splitlines() if "replicator" in line]
    assert (told.returncode, ours) == (0, []), told.stderr


async def agent_starts_and_stops(machine: Machine, port: int) -> None:
    """The agent's command reports to the service manager, is ready, and stops when asked."""
    notify = NotifySocket(str(machine.path("/run/notify")))
    machine.path("/run/notify").chmod(0o666)
    try:
        async with (
            started(machine, "replicator.service", NOTIFY_SOCKET="/run/notify") as running,
            aiohttp.ClientSession() as session,
        ):
            await notify.receives(READY="1")
            async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                assert response.status == 200
            running.signal(signal.SIGTERM)
            await notify.receives(STOPPING="1")
            ended = await running.end()
            assert ended.code in {0, 143}, ended.stderr
    finally:
        notify.close()
        machine.path("/run/notify").unlink()


def test_deb_is_refused_over_an_installation_by_hand(machine: Machine) -> None:
    machine.path("/opt/replicator-0.0.1").mkdir(parents=True)
    machine.path("/opt/replicator").symlink_to("replicator-0.0.1")
    refused = machine.run("dpkg", "--force-unsafe-io", "--install", "/replicator.deb", check=False)
    assert refused.returncode == 1
    assert "/opt/replicator is a link, from an installation without this package" in refused.stderr
    assert not list(machine.path("/opt/replicator-0.0.1").iterdir())


def test_rpm_from_installation_to_removal(machine: Machine) -> None:
    shutil.copy(built("rpm"), machine.root / "replicator.rpm")
    before = contents(machine)
    assert set(listed("rpm")) == {
        path.replace("zsh/vendor-completions", "zsh/site-functions") for path in listed("deb")
    }
    needs = rpm("--query", "--package", "--requires", str(built("rpm"))).splitlines()
    assert {f"/usr/bin/python{version()}", "systemd >= 252", "ca-certificates"} <= set(needs)

    inside = (f"--root={machine.root}", "--nodeps", "--force-debian")
    rpm(*inside, "--install", str(built("rpm")))
    assert machine.run("stat", "--format=%U:%G %a", CONFIG).stdout == "root:replicator 640\n"
    assert "replicator" in machine.run("replicator", "--version").stdout
    verify(machine)
    machine.path(CONFIG).write_text("# edited\n")
    rpm(*inside, "--upgrade", "--replacepkgs", str(built("rpm")))
    assert machine.path(CONFIG).read_text() == "# edited\n"
    machine.run("systemctl", "enable", "replicator.service", "replicator@fra.service")
    rpm(*inside, "--erase", "replicator")
    left = contents(machine) - before
    # rpm has no purge: the config as edited, and the directories of the timer.
    assert {path for path in left if "replicator" in path} == {"/etc/replicator", f"{CONFIG}.rpmsave"}


def rpm(*arguments: str) -> str:
    done = subprocess.run((require("rpm"), *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(kind: str) -> list[str]:
    """The files and links in a package."""
    if kind == "rpm":
        modes = rpm(
            "--query", "--package", "--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\n]", str(built(kind))
        )
        return [line.split(" ", 1)[1] for line in modes.splitlines() if not line.startswith("d")]
    text = subprocess.run(
        ("dpkg-deb", "--contents", built(kind)), capture_output=True, text=True, check=True
    ).stdout
    found = [line.split(maxsplit=5)[5] for line in text.splitlines()]
    return [path.partition(" -> ")[0].removeprefix(".") for path in found if not path.endswith("/")]
