"""The container image of Containerfile, built from a base made of this machine's packages."""

from __future__ import annotations

import asyncio
import signal
import struct
from typing import Final

import pytest

from scripts.package import native, release
from tests.acceptance.agent import PATIENCE_SECONDS
from tests.acceptance.program import Running
from tests.fakes.containers import Store, store
from tests.fakes.machine import Machine, debian, memory
from tests.fakes.process import ROOT, free_port

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

ELF_MACHINES: Final = {"amd64": 62, "arm64": 183}
BASE_PACKAGES: Final = ("python3", "python3-venv", "ca-certificates")
NATIVE: Final = native()
VERSION: Final = release()
IMAGE: Final = "localhost/replicator:tested"
AS_USER: Final = ("setpriv", "--reuid=10001", "--regid=10001", "--clear-groups", "--no-new-privs", "--")


async def test_image_is_built_and_runs() -> None:
    """One test, as building takes most of its time."""
    with memory() as folder, store() as images:
        await build_and_run(debian(folder / "base", BASE_PACKAGES), images)


async def build_and_run(machine: Machine, images: Store) -> None:
    # The build asks PyPI; behind a proxy with a certificate of its own, only the machine's bundle knows that.
    machine.path("/etc/pip.conf").write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")
    images.add(machine, "localhost/base")
    build(images, IMAGE, f"--build-arg=VERSION={VERSION}")
    check_libraries(images.files(IMAGE), "opt/replicator", NATIVE)
    check_user(images)
    await check_running(images)
    # What differs for the other architecture is made in the first stage, on this one; the second only copies it.
    other = "arm64" if NATIVE == "amd64" else "amd64"
    build(images, "localhost/stage", "--target=build", f"--build-arg=TARGETARCH={other}")
    check_libraries(images.files("localhost/stage"), "image/opt/replicator", other)


def build(images: Store, name: str, *more: str) -> None:
    images.podman(
        *("build", "--isolation=chroot", "--network=host", "--pull=never", "--format=docker", "--layers"),
        *(f"--platform=linux/{NATIVE}", "--build-arg=BASE=localhost/base", *more, f"--tag={name}", str(ROOT)),
    )


def check_libraries(files: Machine, folder: str, architecture: str) -> None:
    """All compiled code is for that architecture."""
    libraries = sorted(files.path(folder).rglob("*.so"))
    assert len(libraries) > 20
    machines = {struct.unpack_from("<H", library.read_bytes(), 18)[0] for library in libraries}
    assert machines == {ELF_MACHINES[architecture]}


def check_user(images: Store) -> None:
    """It does not run as root, cannot write its program, and has no tools of the build."""
    config = images.config(IMAGE)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.opencontainers.image.version"] == VERSION
    assert set(config["Volumes"]) == {"/var/lib/replicator", "/var/cache/replicator"}
    files = images.files(IMAGE)
    owned = [
        path
        for path in files.path("/opt").rglob("*")
        if path.lstat().st_uid or (path.lstat().st_mode & 0o022 and not path.is_symlink())
    ]
    assert owned == []
    assert not files.path("/opt/build").exists()
    assert not list(files.path("/opt/replicator").rglob("site-packages/pip"))


async def check_running(images: Store) -> None:
    """The image's command starts under its user, is healthy, and stops."""
    files = images.files(IMAGE)
    described = images.config(IMAGE)
    config = described["Config"]
    environ = dict(assignment.split("=", 1) for assignment in config["Env"])
    settings = (
        '[agent]\nlisten = "127.0.0.1:9650"\n[site.hub]\nurl = "http://127.0.0.1:9"\n[site.fra]\n'
        'url = "http://127.0.0.1:9"\n[[rule]]\nname = "app"\nsource = "hub"\ndestinations = ["fra"]\n'
        'repositories = ["app"]\n'
    )
    port = free_port()
    files.path("/etc/replicator").mkdir()
    files.path("/etc/replicator/config.toml").write_text(settings.replace("9650", str(port)))
    command = [*config["Entrypoint"], *config["Cmd"]]
    process = await asyncio.create_subprocess_exec(
        *files.command(*AS_USER, *command),
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    kind, *probe = described["Healthcheck"]["Test"]
    assert kind == "CMD"
    probe = [part.replace("9650", str(port)) for part in probe]
    running = Running(process)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await running.says("listening")
        healthy = await asyncio.to_thread(files.run, *AS_USER, *probe, http_proxy="http://127.0.0.1:9")
        assert healthy.returncode == 0
        running.signal(signal.SIGTERM)
        ended = await running.end()
        assert ended.code in {0, 143}, ended.stderr
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert files.run(*AS_USER, *probe, check=False).returncode == 1
