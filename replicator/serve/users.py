"""Who may pull: users and passwords of a file as `htpasswd -B` writes it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final

import bcrypt

from replicator.errors import ConfigError
from replicator.http.attempts import Attempts, TooManyAttempts

_AT_ONCE: Final = 2
"""Passwords being checked at a time: each takes a processor for some time, on purpose."""
_WAITING: Final = 16
"""Passwords of one address that wait to be checked."""
_NOBODY: Final = "." * 53
"""Salt and hash of a password that nobody has, for checks whose only purpose is the time they take."""
_BCRYPT: Final = ("$2y$", "$2b$", "$2a$")
_BCRYPT_BYTES: Final = 72
"""bcrypt uses no more of a password; `htpasswd` cuts it off there, and so do we (the library refuses it)."""
_MAX_FILE_BYTES: Final = 4 * 1024 * 1024


class Users:
    """The users of a file, read again when it changes.

    A password that was right is not put through bcrypt again while the file stays: clients send it with each request.
    What is kept of it is a hash under a key that only this process has.

    Raises:
        ConfigError: the file cannot be read, has an invalid line, or a hash that is not bcrypt's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key = secrets.token_bytes(32)
        self._seen: dict[str, bytes] = {}
        self._attempts = Attempts(at_once=_AT_ONCE, per_peer=_WAITING)
        self._hashes: dict[str, bytes] = {}
        self._version = self._look()
        self._hashes = self._read()

    def __repr__(self) -> str:
        return f"<Users: {len(self._hashes)} in {self._path}>"

    async def knows(self, authorization: str, peer: str = "") -> str | None:
        """The user whom a header `Authorization: Basic` proves; None where it proves nobody.

        `peer` is the client's address. A wrong password takes as long for one user as for another and for somebody
        unknown; after some wrong ones, this address is answered later.

        Raises:
            TooManyAttempts: too many passwords of this address wait to be checked.
            ConfigError: the file changed and cannot be used. Nobody is let in by what it was before.
        """
        credentials = _basic(authorization)
        if credentials is None:
            return None
        user, password = credentials
        await self._refresh()
        if self.remembers(authorization):
            return user
        hashes = self._hashes
        most = max(map(_cost, hashes.values()))
        try:
            async with self._attempts.turn(peer, user):
                right = await asyncio.to_thread(_matches, password, hashes.get(user), most)
        except TooManyAttempts:
            await asyncio.sleep(self._attempts.refused(peer))
            raise
        if not right or hashes is not self._hashes:
            await asyncio.sleep(self._attempts.failed(peer))
            return None
        self._seen[user] = self._keyed(password)
        return user

    def remembers(self, authorization: str) -> bool:
        """Whether the header has a password that was right before. Takes no time, and looks at no file."""
        credentials = _basic(authorization)
        if credentials is None:
            return False
        user, password = credentials
        return user in self._seen and hmac.compare_digest(self._seen[user], self._keyed(password))

    def _keyed(self, password: bytes) -> bytes:
        return hmac.digest(self._key, password, hashlib.sha256)

    async def _refresh(self) -> None:
        version = self._look()
        if version != self._version:
            hashes = await asyncio.to_thread(self._read)
            self._hashes, self._seen, self._version = hashes, {}, version

    def _look(self) -> tuple[int, int, int]:
        try:
            facts = self._path.stat()
        except OSError as error:
            raise self._wrong(error.strerror or "cannot be read") from None
        return facts.st_mtime_ns, facts.st_size, facts.st_ino

    def _read(self) -> dict[str, bytes]:
        try:
            with self._path.open("rb") as file:
                lines = file.read(_MAX_FILE_BYTES).decode().splitlines()
        except OSError as error:
            raise self._wrong(error.strerror or "cannot be read") from None
        except UnicodeDecodeError:
            raise self._wrong("is not UTF-8") from None
        hashes: dict[str, bytes] = {}
        problems: list[str] = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            user, colon, hashed = line.strip().partition(":")
            if not user or not colon:
                problems.append(f"{self._path}:{number}: expected USER:HASH")
            elif not _is_bcrypt(hashed):
                problems.append(
                    f"{self._path}:{number}: the password of {user!r} is not hashed with bcrypt (htpasswd -B)"
                )
            else:
                hashes[user] = hashed.encode()
        if not hashes and not problems:
            problems = [f"{self._path}: no user in it: nobody could pull"]
        if problems:
            raise ConfigError(problems)
        return hashes

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError([f"{self._path}: {what}"])


def _basic(authorization: str) -> tuple[str, bytes] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
        user, colon, password = decoded.partition(b":")
        return (user.decode(), password) if colon and user else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _is_bcrypt(hashed: str) -> bool:
    if not hashed.startswith(_BCRYPT) or len(hashed) != 60 or not hashed.isascii():
        return False
    try:
        bcrypt.checkpw(
            b"", f"{hashed[:4]}04{hashed[6:]}".encode()
        )  # at the lowest cost: only the form counts
    except ValueError:
        return False
    return True


def _cost(hashed: bytes) -> int:
    return int(hashed[4:6])


def _matches(password: bytes, hashed: bytes | None, most: int) -> bool:
    """Whether the password is that of the hash. If it is not, or the hash is missing, it takes the time of the cost `most`.

    One more of a cost doubles the time, so a check at cost c, and then one at each of c, c + 1 ... most - 1, take as
    long as one at `most`.
    """
    costs = [most]
    if hashed is not None:
        if _check(password, hashed):
            return True
        costs = list(range(_cost(hashed), most))
    for cost in costs:
        _check(password, f"$2b${cost:02}${_NOBODY}".encode())
    return False


def _check(password: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password[:_BCRYPT_BYTES], hashed)
    except ValueError:
        return False  # a NUL in the password
