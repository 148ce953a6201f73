"""Fixtures that many tests share."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from replicator.flow import splice
from replicator.sites.registry.call import Call
from replicator.sites.registry.payload import exchange
from tests.fakes.distribution import Server, distribution

if TYPE_CHECKING:
    from tests.postgres import Database, Postgres

# What lands must not depend on luck: CI tries the same examples each time, developers and the soak others.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# A shell without job control starts background jobs with SIGINT ignored, and every process that a test starts inherits
# it: Python then installs no handler, and a test that sends SIGINT waits for ever. A handler is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The bad day takes ten minutes, however fast the machine is: it begins first, so that nothing waits for it."""
    items.sort(key=lambda item: item.path.name != "test_soak.py")


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Debian's docker-registry, open to all. Shared: use repositories of your own."""
    with distribution(tmp_path_factory.mktemp("docker-registry")) as server:
        yield server


@pytest.fixture
def own_docker_registry(tmp_path: Path) -> Iterator[Server]:
    """The same, empty and for one test alone."""
    folder = tmp_path / "docker-registry"
    folder.mkdir()
    with distribution(folder) as server:
        yield server


@pytest.fixture(scope="session")
def htpasswd_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Debian's docker-registry behind Basic authentication. Shared."""
    with distribution(tmp_path_factory.mktemp("htpasswd"), "htpasswd") as server:
        yield server


@pytest.fixture(scope="session")
def token_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Debian's docker-registry behind a token server of ours. Shared."""
    with distribution(tmp_path_factory.mktemp("token"), "token") as server:
        yield server


@pytest.fixture(scope="session")
def tls_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Debian's docker-registry over https, with a CA of its own. Shared."""
    with distribution(tmp_path_factory.mktemp("tls"), "tls") as server:
        yield server


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server (moto). Shared: use buckets of your own, see `s3_bucket`."""
    from tests.fakes.s3 import moto_server  # noqa: PLC0415 - moto is slow to import and few tests want it

    with moto_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def versitygw_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Another S3 server (versitygw, for the interop tests). Shared as `s3_endpoint` is."""
    from tests.fakes.s3 import versitygw  # noqa: PLC0415 - as above

    with versitygw(tmp_path_factory.mktemp("versitygw")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Debian's PostgreSQL. Shared; a test that stops it starts it again."""
    from tests.postgres import running_postgres  # noqa: PLC0415 - few tests want psycopg

    with running_postgres() as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    """An empty database of the shared server."""
    database = postgres.create()
    yield database
    postgres.drop(database)


@pytest.fixture
async def s3_bucket(s3_endpoint: str) -> str:
    """An empty bucket of the shared server."""
    from tests.fakes.s3 import raw_client  # noqa: PLC0415 - as above

    name = f"bucket-{secrets.token_hex(6)}"
    async with raw_client(s3_endpoint) as client:
        await client.create_bucket(Bucket=name)
    return name


@pytest.fixture(params=["loop", "threads"])
def moved(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Runs a test twice: the bodies of blobs moved by the event loop, as small ones are, and by threads, as large ones."""
    if request.param == "threads":

        def is_payload(call: Call) -> bool:
            return call.method == "GET" or (call.method in {"PUT", "PATCH"} and call.body is None)

        monkeypatch.setattr(Call, "is_payload", property(is_payload))
        monkeypatch.setattr(exchange, "CHUNK_BYTES", 16 * 1024)  # several pieces to a small blob
        monkeypatch.setattr(splice, "LEAST_BYTES", 1)
    yield request.param
    left = [each.name for each in threading.enumerate() if each.name.startswith("payload-")]
    assert not left, "threads that outlive their site"
