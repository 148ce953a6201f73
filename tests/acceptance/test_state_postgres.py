"""The commands with a state on PostgreSQL, as a user runs them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.program import Program, rule
from tests.fakes.process import free_port, require, running
from tests.postgres import PASSWORD, ROLE, Database

NOBODY = "http://127.0.0.1:9"


def configured(folder: Path, database: Database, url: str = "") -> Program:
    """A program whose config has the database."""
    program = Program(folder)
    secret = database.password_file(folder)
    config = program.write_config({"hub": NOBODY, "fra": NOBODY}, rule())
    sqlite = f"sqlite:///{folder}/state.db"
    text = config.read_text().replace(
        f'state = "{sqlite}"', f'state = "{url or database.url}"\nstate_password = {{ file = "{secret}" }}'
    )
    config.write_text(text)
    return program


async def test_commands_work_with_a_state_on_postgresql(tmp_path: Path, database: Database) -> None:
    program = configured(tmp_path, database)
    assert (await program("status")).code == 0  # before there are tables
    failed = await program("sync")
    assert failed.code == 1
    assert "Connection refused" in failed.stderr or "cannot connect" in failed.stderr.lower()
    [told] = (await program("status", "--json")).json["rules"]
    assert told["destinations"][0]["last_error"]
    moved = await program("state", "move", database.url, f"sqlite:///{tmp_path}/state.db", "--json")
    assert (moved.code, moved.json["rows"]["standings"], moved.json["rows"]["runs"]) == (0, 1, 1)
    again = await program("state", "move", f"sqlite:///{tmp_path}/state.db", database.url)
    assert again.code == 2
    assert "is not empty" in again.stderr
    shown = await program("config", "show")
    assert database.url in shown.stdout
    for ended in (failed, moved, again, shown):
        assert PASSWORD not in ended.stdout + ended.stderr


async def test_check_names_the_database(tmp_path: Path, database: Database) -> None:
    program = configured(tmp_path, database)
    good = (await program("check", "--json")).json["state"]
    assert (good["ok"], good["findings"]["role"]) == (True, f"{ROLE}, may create tables")
    (tmp_path / "database-password").write_text("another")
    bad = await program("check")
    assert "the password is wrong; check agent.state_password" in bad.stdout
    assert PASSWORD not in bad.stdout + bad.stderr


async def test_an_agent_runs_with_it_and_has_it_for_itself(tmp_path: Path, database: Database) -> None:
    program = configured(tmp_path, database)
    config = tmp_path / "replicator.toml"
    config.write_text(config.read_text().replace("[agent]\n", '[agent]\nlisten = "127.0.0.1:0"\n', 1))
    async with program.started("run") as agent:
        await agent.says("listening")
        other = await program("sync")
        assert other.code == 2
        assert "in use by replicator" in other.stderr
        agent.process.terminate()
        assert (await agent.end()).code == 0


@contextmanager
def pooled(folder: Path, database: Database, mode: str) -> Iterator[str]:
    """The database behind PgBouncer."""
    program = require("pgbouncer")
    port = free_port()
    (folder / "users").write_text(f'"{ROLE}" "{PASSWORD}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{database.name} = host=127.0.0.1 port={database.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = scram-sha-256\nauth_file = {folder}/users\npool_mode = {mode}\n"
        "unix_socket_dir =\nignore_startup_parameters = extra_float_digits\n"
    )
    folder.chmod(0o755)
    user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    with running([*user, program, str(folder / "pgbouncer.ini")], folder / "log") as process:
        process.wait_until_listening(port)
        yield f"postgresql://{ROLE}@127.0.0.1:{port}/{database.name}"


async def test_a_pooler_must_give_the_state_a_session(database: Database) -> None:
    with tempfile.TemporaryDirectory(prefix="replicator-pooler-") as name:
        folder = Path(name)
        (folder / "one").mkdir()
        with pooled(folder, database, "session") as url:
            assert (await configured(folder / "one", database, url)("check", "--json")).json["state"]["ok"]
        with pooled(folder, database, "transaction") as url:
            program = configured(folder / "one", database, url)
            bad = await program("check", "--json")
            assert "PgBouncer with pool_mode = transaction" in bad.json["state"]["problems"][0]
            refused = await program("sync")
            assert refused.code == 2
            assert "pool_mode = session" in refused.stderr
