"""CNCF distribution as a process: Debian's `docker-registry` (2.8), and 3.x for the interop tests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import trustme

from replicator.sites.registry.settings import TLS, Login, RegistrySettings
from tests.fakes.process import Process, require, running
from tests.fakes.tokenserver import ISSUER, SERVICE, token_server

Access = Literal["open", "htpasswd", "token", "tls"]

USER: Final = "replicator"
PASSWORD: Final = "secret"
# bcrypt of PASSWORD at the lowest cost that is allowed, made with `htpasswd -Bbn -C 4`; distribution takes nothing
# but bcrypt, and neither Python's library nor ours has it.
_HTPASSWD: Final = "replicator:$2y$04$1w61V2y6Addmt9p8k3.v9uLoA08DgO0d5O0/LJKEWrmfqsWD2CYva\n"


@dataclass(frozen=True, slots=True)
class Server:
    """A registry that is running. `login` where one is needed, `ca` where it serves https; `storage` is its folder."""

    url: str
    storage: Path
    process: Process
    login: tuple[str, str] | None = None
    ca: Path | None = None

    @property
    def host(self) -> str:
        """Host and port."""
        return self.url.partition("://")[2]

    def settings(self, name: str = "server") -> RegistrySettings:
        """How a site reaches it."""
        login = None
        if self.login is not None:
            user, password = self.login
            login = Login(user, lambda: password)
        return RegistrySettings(
            name, self.url, login=login, docker_config=False, tls=TLS(ca=self.ca), proxy=""
        )


@contextmanager
def distribution(
    folder: Path,
    access: Access = "open",
    program: str = "docker-registry",
    *,
    driver: Mapping[str, object] | None = None,
    notifications: Mapping[str, object] | None = None,
    validation: Mapping[str, object] | None = None,
    compatibility: Mapping[str, object] | None = None,
    writes_requests: bool = False,
) -> Iterator[Server]:
    """Runs a registry in a folder of its own, deleting allowed, on a port that it picks itself.

    `driver` is where it keeps its content, as its config's `storage` has it, instead of that folder;
    `notifications` whom it tells, `validation` what it refuses, `compatibility` what old formats it takes, as its config has
    them. `writes_requests`: `log` in the folder has each request, as web servers write them.
    """
    storage = folder / "storage"
    http: dict[str, object] = {"addr": "127.0.0.1:0", "secret": "not a secret"}
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": not writes_requests}},
        "storage": {
            **(driver or {"filesystem": {"rootdirectory": str(storage)}}),
            "delete": {"enabled": True},
        },
        "http": http,
    }
    others = {"validation": validation, "notifications": notifications, "compatibility": compatibility}
    config |= {key: value for key, value in others.items() if value is not None}
    executable = require(program)
    if access == "tls":
        with _started(executable, folder, config | {"http": http | {"tls": _certificate(folder)}}) as (
            process,
            port,
        ):
            yield Server(f"https://localhost:{port}", storage, process, ca=folder / "ca.pem")
    elif access == "htpasswd":
        (folder / "htpasswd").write_text(_HTPASSWD)
        auth: dict[str, object] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
        with _started(executable, folder, config | {"auth": auth}) as (process, port):
            yield Server(f"http://127.0.0.1:{port}", storage, process, (USER, PASSWORD))
    elif access == "token":
        with token_server({USER: PASSWORD}) as tokens:
            (folder / "roots.pem").write_bytes(tokens.signer.bundle)
            bundle = str(folder / "roots.pem")
            auth = {
                "token": {
                    "realm": tokens.realm,
                    "service": SERVICE,
                    "issuer": ISSUER,
                    "rootcertbundle": bundle,
                }
            }
            with _started(executable, folder, config | {"auth": auth}) as (process, port):
                yield Server(f"http://127.0.0.1:{port}", storage, process, (USER, PASSWORD))
    else:
        with _started(executable, folder, config) as (process, port):
            yield Server(f"http://127.0.0.1:{port}", storage, process)


@contextmanager
def _started(executable: str, folder: Path, config: dict[str, object]) -> Iterator[tuple[Process, int]]:
    (folder / "config.yml").write_text(json.dumps(config))
    # 3.x would send traces somewhere unless told not to.
    command = [executable, "serve", str(folder / "config.yml")]
    with running(command, folder / "log", OTEL_TRACES_EXPORTER="none") as process:
        yield process, int(process.wait_for(r"listening on (?:127\.0\.0\.1|\[::1?\]):(\d+)")[1])


def _certificate(folder: Path) -> dict[str, str]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(folder / "cert.pem", append=True)
    return {"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
