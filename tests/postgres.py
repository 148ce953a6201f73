"""Debian's PostgreSQL as a server of the tests, on a port of its own, with an empty database for each test.

`postgres` is the server, one for each pytest worker; `database` is a fresh database. Both are fixtures of `conftest.py`.
"""

from __future__ import annotations

import os
import pwd
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo

from tests.fakes.process import PATIENCE_SECONDS, TURN_SECONDS, clean_environment, free_port, require

ROLE: Final = "replicator"
PASSWORD: Final = "not/a:secret@all%"
"""With what a URL would have to escape: it must work from a file as it is."""
_FOLDERS: Final = (Path("/usr/local/bin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
_SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "log_min_messages": "fatal",
    "autovacuum_naptime": "10min",
}


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs; skips the test where there is none."""
    for folder in _FOLDERS:
        if (folder / name).exists():
            return str(folder / name)
    return require(name)


@dataclass(frozen=True, slots=True)
class Database:
    """An empty database that an ordinary role owns. `url` has no password; `dsn` is complete, for psycopg."""

    name: str
    port: int

    @property
    def url(self) -> str:
        """As `agent.state` has it, without the password."""
        return f"postgresql://{ROLE}@127.0.0.1:{self.port}/{self.name}"

    @property
    def password(self) -> str:
        """Of its role."""
        return PASSWORD

    @property
    def dsn(self) -> str:
        """For `psycopg.connect`."""
        return make_conninfo(self.url, password=PASSWORD)

    def password_file(self, folder: Path) -> Path:
        """Writes the password where only its owner reads it."""
        path = folder / "database-password"
        path.touch(mode=0o600)
        path.write_text(f"{PASSWORD}\n")
        return path


@dataclass(slots=True)
class Postgres:
    """A server. Stopped and started again it has the same port and the same databases. `settings`: beside those of all."""

    folder: Path
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Returns when it takes connections. Raises AssertionError with its log where it does not.

        Called in the main thread: the server ends with the thread that started it.
        """
        settings = [f"-c{name}={value}" for name, value in {**_SETTINGS, **self.settings}.items()]
        # It ends with the process that started it, however that ends. Immediate: it may leave nothing behind.
        command = [
            *_as_ordinary_user(),
            "--pdeathsig",
            "QUIT",
            program("postgres"),
            "-D",
            str(self.folder / "data"),
            f"-p{self.port}",
            *settings,
        ]
        log = self.folder / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=clean_environment(),
            )
        ready = [program("pg_isready"), "-q", "-h127.0.0.1", f"-p{self.port}", "-t1"]
        for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
            if subprocess.run(ready, check=False).returncode == 0:
                return
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(TURN_SECONDS)
                break
        raise AssertionError(f"PostgreSQL did not start: {log.read_text(errors='replace')}")

    def stop(self, *, kill: bool = False) -> None:
        """Ends it and all of its connections; `kill`: as a crash does."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGQUIT if kill else signal.SIGINT)
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        """Stops and starts it."""
        self.stop()
        self.start()

    @property
    def admin(self) -> str:
        """For `psycopg.connect`, as the superuser."""
        return make_conninfo(
            host="127.0.0.1", port=self.port, user="postgres", password=PASSWORD, dbname="postgres"
        )

    def execute(self, statement: str) -> None:
        """Runs a statement as the superuser, by itself."""
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute(statement.encode())

    def create(self) -> Database:
        """Makes an empty database."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} OWNER {ROLE}")
        return Database(name, self.port)

    def drop(self, database: Database) -> None:
        """Removes a database, whoever is connected."""
        self.execute(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")


@contextmanager
def running_postgres(**settings: str) -> Iterator[Postgres]:
    """A server in a folder that is removed afterwards. Skips the test where PostgreSQL is not installed.

    `settings` of the server replace those that all have.
    """
    initdb = program("initdb")
    with tempfile.TemporaryDirectory(prefix="replicator-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            user = _ordinary_user()
            for each in (folder, folder / "password"):
                os.chown(each, user.pw_uid, user.pw_gid)
        command = [*_as_ordinary_user(), initdb, "-D", str(folder / "data"), "-Upostgres", "--no-sync"]
        command += ["--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "-Eutf8", "--no-instructions"]
        # As many installations have it: text is in another order there than in SQLite.
        command += ["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
        done = subprocess.run(
            command, cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        server = Postgres(folder, free_port(), settings)
        server.start()
        try:
            server.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
            yield server
        finally:
            server.stop()


def _as_ordinary_user() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return ["setpriv"]
    user = _ordinary_user()
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _ordinary_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
