"""Credentials where docker, podman and their helpers keep them, and as the config gives them.

Formats: docker's config.json (and its predecessor ~/.dockercfg), containers-auth.json(5), and the protocol of
docker-credential-helpers.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from replicator.errors import ConfigError
from replicator.sites.registry.settings import Login

HELPER_SECONDS: Final = 30.0
"""A credential helper that takes longer is waiting for user input."""
_MAX_HELPER_BYTES: Final = 64 * 1024
_MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_HUB_HOSTS: Final = ("docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
_HUB_SERVER: Final = "https://index.docker.io/v1/"
_URL_LETTERS: Final = str.maketrans("-_", "+/")
_NOT_FOUND: Final = "credentials not found"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Secrets as read: user name and password, an OAuth2 refresh token, or a ready bearer token.

    `renew_at`: the monotonic time from which on `Logins.find` may have newer ones.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    bearer_token: str = field(default="", repr=False)
    renew_at: float = field(default=math.inf, compare=False, repr=False)


class Logins(Protocol):
    """Where a site's credentials come from."""

    async def find(self, repository: str | None) -> Credentials | None:
        """The credentials for a repository (None: for the site), None for anonymous.

        Raises:
            ConfigError: what the config or docker's files name cannot be read.
            SiteError: who issues them refuses, or does not answer.
        """
        ...

    def forget(self) -> None:
        """Makes the next `find` read everything again."""
        ...

    async def owner(self) -> str:
        """Whose the credentials are, as their issuer names it; "" if nobody said."""
        ...

    async def aclose(self) -> None:
        """Ends what works for them in the background."""
        ...


class ConfiguredLogin:
    """The login that the config gives, or (None) nobody's."""

    def __init__(self, login: Login | None) -> None:
        self._login = login

    async def find(self, repository: str | None) -> Credentials | None:  # noqa: ARG002 - one login for all
        """See `Logins`."""
        login = self._login
        if login is None:
            return None
        return Credentials(
            username=login.username,
            password=login.password() if login.password else "",
            identity_token=login.identity_token() if login.identity_token else "",
            bearer_token=login.bearer_token() if login.bearer_token else "",
        )

    def forget(self) -> None:
        """See `Logins`: nothing is kept."""

    async def owner(self) -> str:
        """See `Logins`."""
        return ""

    async def aclose(self) -> None:
        """See `Logins`: nothing works."""


class DockerLogins:
    """Credentials for one registry host from the files of docker and podman; the first that has some counts.

    Looked through in this order: $DOCKER_AUTH_CONFIG (the JSON itself), $REGISTRY_AUTH_FILE,
    $DOCKER_CONFIG/config.json or ~/.docker/config.json, ~/.dockercfg, $XDG_RUNTIME_DIR/containers/auth.json,
    $XDG_CONFIG_HOME/containers/auth.json. Within one: the key of the longest namespace, then the host; a
    helper of the host's own before `credsStore` before what is written in the file.

    Raises (from `find`):
        ConfigError: a file that is there but cannot be read or understood, or a helper that fails.
    """

    def __init__(self, host: str, environ: Mapping[str, str] | None = None) -> None:
        self._host = host.lower()
        self._environ = os.environ if environ is None else environ
        self._files: list[_File] | None = None
        self._helped: dict[tuple[str, str], Credentials | None] = {}

    async def find(self, repository: str | None) -> Credentials | None:
        """See `Logins`."""
        if self._files is None:
            self._files = list(_files(self._environ))
        for file in self._files:
            for key in _keys(self._host, repository):
                if found := await self._look(file, key):
                    return found
        return None

    def forget(self) -> None:
        """See `Logins`."""
        self._files = None
        self._helped.clear()

    async def owner(self) -> str:
        """See `Logins`."""
        return ""

    async def aclose(self) -> None:
        """See `Logins`: nothing works."""

    async def _look(self, file: _File, key: str) -> Credentials | None:
        helper, place = file.helpers.get(key), f"credHelpers.{key}"
        if helper is None and "/" not in key:
            helper, place = file.store, "credsStore"
        failure: ConfigError | None = None
        if helper:
            try:
                if (found := await self._ask(helper, key, f"{file.where}: {place}")) is not None:
                    return found
            except ConfigError as error:
                failure = error  # a helper that is not installed hides nothing that the file has itself
        entry = file.auths.get(key)
        found = None if entry is None else _login(f"{file.where}: auths.{entry[0]}", entry[1])
        if found is None and failure is not None:
            raise failure
        return found

    async def _ask(self, helper: Any, key: str, where: str) -> Credentials | None:
        server = _HUB_SERVER if key in _HUB_HOSTS else key
        if (str(helper), server) not in self._helped:
            self._helped[str(helper), server] = await ask_helper(helper, server, self._environ, where)
        return self._helped[str(helper), server]


def _keys(host: str, repository: str | None) -> Iterator[str]:
    """Keys to look under, the most specific first: docker.io's aliases all count as the host."""
    hosts = _HUB_HOSTS if host in _HUB_HOSTS else (host,)
    parts = repository.split("/") if repository else []
    for length in range(len(parts), -1, -1):
        for name in hosts:
            yield "/".join([name, *parts[:length]])


# --- files --------------------------------------------------------------------------------------------------


class _File(msgspec.Struct, frozen=True):
    where: str
    auths: Mapping[str, tuple[str, Any]]
    helpers: Mapping[str, Any]
    store: Any


def _files(environ: Mapping[str, str]) -> Iterator[_File]:
    if text := environ.get("DOCKER_AUTH_CONFIG"):
        yield _parse("environment DOCKER_AUTH_CONFIG", text.encode())
    for path, is_legacy in _paths(environ):
        if (data := _content(path)) is not None:
            yield _parse(str(path), data, is_legacy=is_legacy)


def _paths(environ: Mapping[str, str]) -> Iterator[tuple[Path, bool]]:
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    if named := environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named), False
    docker = environ.get("DOCKER_CONFIG")
    yield (Path(docker) if docker else home / ".docker") / "config.json", False
    if not docker:
        yield home / ".dockercfg", True
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    yield (
        Path(runtime) / "containers" / "auth.json"
        if "XDG_RUNTIME_DIR" in environ
        else Path(runtime) / "auth.json",
        False,
    )
    config = environ.get("XDG_CONFIG_HOME")
    yield (Path(config) if config else home / ".config") / "containers" / "auth.json", False


def _content(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}; expected docker's or podman's credentials"]) from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(
            [f"{path}: larger than {_MAX_FILE_BYTES} bytes; expected docker's or podman's credentials"]
        )
    return data


def _parse(where: str, data: bytes, *, is_legacy: bool = False) -> _File:
    try:
        document = json.loads(data) if data.strip() else {}  # which knows UTF-16, and a byte order mark
    except (ValueError, RecursionError) as error:
        # Only the place is told: the text around it may be a secret.
        at = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigError([f"{where}: not JSON{at}"]) from None
    if not isinstance(document, dict):
        raise ConfigError([f"{where}: expected a JSON object"])
    auths = document if is_legacy else _table(where, document, "auths")
    helpers = _table(where, document, "credHelpers")
    store = document.get("credsStore") or ""
    # Entries are read when they are needed: a bad entry of another host does not matter.
    return _File(
        where=where,
        auths={_normal(key): (key, entry) for key, entry in auths.items()},
        helpers={_normal(key): name for key, name in helpers.items()},
        store=store,
    )


def _table(where: str, document: dict[str, Any], key: str) -> dict[str, Any]:
    table = document.get(key) or {}
    if not isinstance(table, dict):
        raise ConfigError([f"{where}: {key}: expected an object"])
    return table


def _normal(key: str) -> str:
    """A key as hosts and namespaces are compared: docker also wrote URLs with /v1/ or /v2/ as keys."""
    bare = key.partition("://")[2] if "://" in key else key
    host, _, path = bare.rstrip("/").partition("/")
    return host.lower() if not path or path in {"v1", "v2"} else f"{host.lower()}/{path}"


def _login(where: str, entry: Any) -> Credentials | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise ConfigError([f"{where}: expected an object"])
    words = {
        key: entry.get(key) or ""
        for key in ("auth", "username", "password", "identitytoken", "registrytoken")
    }
    for key, word in words.items():
        if not isinstance(word, str):
            raise ConfigError([f"{where}: {key}: expected a string"])
    username, password = words["username"], words["password"]
    if words["auth"]:
        try:
            pair = _unpacked(words["auth"])
        except (binascii.Error, UnicodeError):
            raise ConfigError([f"{where}: auth: expected base64 of USER:PASSWORD"]) from None
        username, colon, password = pair.partition(":")
        if not colon:
            raise ConfigError([f"{where}: auth: expected base64 of USER:PASSWORD"])
        password = password.rstrip("\0")
    found = Credentials(username, password, words["identitytoken"], words["registrytoken"])
    # Docker leaves empty entries behind for what its store keeps.
    return found if found != Credentials(username=username) else None


def _unpacked(text: str) -> str:
    """What base64 stands for, however it was written: over several lines, without padding, or with the URL's letters."""
    packed = "".join(text.split()).rstrip("=").translate(_URL_LETTERS)
    return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True).decode()


# --- helpers ------------------------------------------------------------------------------------------------


async def ask_helper(name: object, server: str, environ: Mapping[str, str], where: str) -> Credentials | None:
    """What `docker-credential-NAME get` knows of a server; None where it knows nothing.

    Its output is a secret and is never shown. It is killed after `HELPER_SECONDS`.

    Raises:
        ConfigError: it is missing, fails, hangs, or answers something else than credentials.
    """
    if not isinstance(name, str) or "/" in name:
        raise ConfigError([f"{where}: expected the name of a credential helper"])
    program = f"docker-credential-{name}"
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(environ),
        )
    except OSError as error:
        raise ConfigError([f"{program} (named by {where}): {error.strerror}"]) from None
    try:
        async with asyncio.timeout(HELPER_SECONDS):
            output = await _converse(process, server)
    except TimeoutError:
        raise ConfigError([f"{program} (named by {where}): no answer within {HELPER_SECONDS:g} s"]) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        if _NOT_FOUND in output.decode("utf-8", "replace"):
            return None
        raise ConfigError(
            [f"{program} (named by {where}): failed with exit code {process.returncode} for {server}"]
        )
    try:
        answer = json.loads(output)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError([f"{program} (named by {where}): its answer is not credentials"]) from None
    if username == "<token>":
        return Credentials(identity_token=str(secret))
    return Credentials(username=str(username), password=str(secret))


async def _converse(process: asyncio.subprocess.Process, server: str) -> bytes:
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise RuntimeError("a helper was started without pipes")
    try:
        stdin.write(server.encode())
        await stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it did not wait for the question; its answer and exit code decide
    stdin.close()
    output = bytearray()
    while chunk := await stdout.read(_MAX_HELPER_BYTES):
        if (
            len(output) <= _MAX_HELPER_BYTES
        ):  # an answer that is too long is not credentials; the rest is discarded
            output += chunk
    await process.wait()
    return bytes(output)
