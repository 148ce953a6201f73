"""What the programs talk to: docker-registry processes, a slow link, and a certificate authority."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import trustme

START_SECONDS = 10.0
STOP_SECONDS = 10.0
HOST = "127.0.0.1"
LINK = Path(__file__).parent.parent / ".tools" / "bin" / "link"


@dataclass(frozen=True, slots=True)
class Authority:
    """Certificate of a CA, and certificate and key that it made for this machine: paths of PEM files."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Hook:
    """Whom a registry tells what is pushed to it, and the token that it shows."""

    url: str
    token: str

    @property
    def notifications(self) -> dict[str, object]:
        """The block of a registry's config, as docs/webhooks.md has it."""
        endpoint = {
            "name": "replicator",
            "url": self.url,
            "headers": {"Authorization": [f"Bearer {self.token}"]},
            "timeout": "2s",
            "threshold": 3,
            "backoff": "5s",
            "ignoredmediatypes": ["application/octet-stream"],
        }
        return {"endpoints": [endpoint]}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a registry listens, and what it keeps where."""

    port: int
    storage: Path
    access_log: Path
    authority: Authority | None = None

    @property
    def host(self) -> str:
        """Host and port, as references have it."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self.authority else 'http'}://{self.host}"


def make_authority(folder: Path) -> Authority:
    """Makes a CA for the time of one scenario."""
    ca = trustme.CA()
    leaf = ca.issue_cert(HOST, "localhost")
    made = Authority(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    ca.cert_pem.write_to_path(made.ca)
    leaf.private_key_pem.write_to_path(made.key)
    for number, pem in enumerate(leaf.cert_chain_pems):
        pem.write_to_path(made.certificate, append=number > 0)
    return made


@contextlib.asynccontextmanager
async def registry(
    folder: Path, storage: Path, authority: Authority | None = None, *, hook: Hook | None = None
) -> AsyncIterator[Endpoint]:
    """A `docker-registry` over the storage, on a port of its own, until the end of the block."""
    endpoint, config = _settings(folder, storage, authority, hook)
    with process(
        ["docker-registry", "serve", str(config)], endpoint.access_log, folder / "errors.log"
    ) as running:
        await reachable(endpoint.port, running)
        yield endpoint


def _settings(
    folder: Path, storage: Path, authority: Authority | None, hook: Hook | None
) -> tuple[Endpoint, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    endpoint = Endpoint(free_port(), storage, folder / "access.log", authority)
    http: dict[str, object] = {"addr": endpoint.host}
    if authority is not None:
        http["tls"] = {"certificate": str(authority.certificate), "key": str(authority.key)}
    config = folder / "config.yml"
    config.write_text(  # JSON is YAML
        json.dumps(
            {
                "version": "0.1",
                "log": {"level": "error"},
                "storage": {
                    "filesystem": {"rootdirectory": str(storage)},
                    "cache": {"blobdescriptor": "inmemory"},
                },
                "http": http,
                **({"notifications": hook.notifications} if hook else {}),
            }
        )
    )
    return endpoint, config


@contextlib.asynccontextmanager
async def fresh(folder: Path, authority: Authority | None = None) -> AsyncIterator[Endpoint]:
    """A `docker-registry` with nothing in it, which is gone with all its content at the end of the block."""
    try:
        async with registry(folder, folder / "storage", authority) as endpoint:
            yield endpoint
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Link:
    """What a link does to connections (`bench/link`): delays each way, rates in bytes a second, each way, 0 unlimited.

    `reset_every`: of so many answers one is lost with its connection; 0 is none.
    """

    delay_seconds: float = 0.0
    rate: float = 0.0
    connection_rate: float = 0.0
    reset_every: int = 0

    def command(self, listen: int, to: int) -> list[str]:
        """The program that is such a link from one port to another."""
        return [
            str(LINK),
            f"-listen={listen}",
            f"-to={to}",
            f"-delay={self.delay_seconds}s",
            f"-rate={self.rate}",
            f"-connection-rate={self.connection_rate}",
            f"-reset-every={self.reset_every}",
        ]


@contextlib.asynccontextmanager
async def through(link: Link, target: Endpoint, log: Path) -> AsyncIterator[Endpoint]:
    """The same registry as seen through a link."""
    near = replace(target, port=free_port())
    with process(link.command(near.port, target.port), log, log) as running:
        await reachable(near.port, running)
        yield near


@contextlib.contextmanager
def process(command: Sequence[str], output: Path, errors: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server process that is ended with the block."""
    with output.open("ab") as out, errors.open("ab") as err:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


async def reachable(
    port: int, running: subprocess.Popen[bytes], limit_seconds: float = START_SECONDS
) -> None:
    """Returns when the port accepts connections.

    Raises:
        RuntimeError: the process ended.
        TimeoutError: it does not listen within `limit_seconds`.
    """
    async with asyncio.timeout(limit_seconds):
        while True:
            if running.poll() is not None:
                raise RuntimeError(f"{running.args!r} ended with {running.returncode} at its start")
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(0.01)


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


_LINE = re.compile(r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[0-9.]+" (?P<status>\d{3}) (?P<bytes>\d+)')


def blob_bytes_served(endpoint: Endpoint, start: int = 0) -> int:
    """Payload of blobs that the registry has sent, by its own access log from byte `start` on."""
    with endpoint.access_log.open("rb") as log:
        log.seek(start)
        lines = log.read().decode()
    matches = (_LINE.search(line) for line in lines.splitlines())
    return sum(
        int(match["bytes"])
        for match in matches
        if match and match["method"] == "GET" and "/blobs/" in match["path"]
    )
