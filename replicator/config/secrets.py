"""Secrets: where they are stored, and how they are read without ever being shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from replicator.config.text import decoded
from replicator.errors import ConfigError
from replicator.scrub import remember

TOKEN_VARIABLE: Final = "REPLICATOR_TOKEN"  # noqa: S105 - a variable's name
"""The environment variable in which the command line finds an agent's token."""

MAX_SECRET_BYTES: Final = 64 * 1024

FORMS: Final = '{ credential = "NAME" }, { file = "PATH" } or { env = "NAME" }'

Kind = Literal["literal", "credential", "file", "env"]


class Secret(msgspec.Struct, frozen=True):
    """A reference to a secret. Calling it reads the secret again; it is a `ReadSecret` for the sites.

    Only a literal contains the secret itself; `repr` masks it.
    """

    kind: Kind
    place: str
    """The variable, the path or the credential's name; for a literal, the secret itself."""
    environ: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Secret({'***' if self.kind == 'literal' else f'{self.kind}={self.place!r}'})"

    def __call__(self) -> str:
        """The current value of the secret.

        Raises:
            ConfigError: the secret cannot be read or is empty. Names the place, never the content.
        """
        try:
            secret = self._read()
        except ValueError as error:
            raise ConfigError([str(error)]) from None
        remember(secret, lasting=True)
        return secret

    def _read(self) -> str:
        if self.kind == "literal":
            return self.place
        if self.kind == "env":
            value = self.environ.get(self.place)
            if not value:
                raise ValueError(
                    f"the environment variable {self.place} is {'empty' if value == '' else 'not set'}"
                )
            return value
        if self.kind == "file":
            return _read_file(Path(self.place))
        folder = self.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise ValueError(
                f"credential {self.place!r} cannot be read: $CREDENTIALS_DIRECTORY is not set;"
                " systemd sets it with LoadCredential="
            )
        return _read_file(Path(folder, self.place))


def parse_secret(value: Any, folder: Path, environ: Mapping[str, str]) -> Secret:
    """The secret that a config value refers to, read once to check it. Relative files are relative to `folder`.

    Raises:
        ValueError: the value has another form, or the secret cannot be read. Never contains the value.
    """
    if isinstance(value, str):
        if not value:
            raise ValueError(f"is empty; write {FORMS}")
        remember(value, lasting=True)  # before it is used: a command that runs first may quote it
        return Secret("literal", value, environ)
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError(f"must be one of {FORMS}, or a string")
    ((kind, place),) = value.items()
    if kind not in {"credential", "file", "env"} or not isinstance(place, str) or not place:
        raise ValueError(f"must be one of {FORMS}, or a string")
    if kind == "credential" and ("/" in place or place in {".", ".."}):
        raise ValueError(f"invalid credential name {place!r}: expected a file name in $CREDENTIALS_DIRECTORY")
    secret = Secret(kind, str(folder / place) if kind == "file" else place, environ)
    try:
        secret()
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return secret


def _read_file(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"secret file {path} is not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"secret file {path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_SECRET_BYTES:
        raise ValueError(f"secret file {path} is larger than {MAX_SECRET_BYTES} bytes")
    try:
        text = decoded(data).rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"secret file {path} is not UTF-8") from None
    # Editors and `echo` leave blanks and NULs at the end; a secret that ends in one on purpose is not met with.
    text = text.rstrip(" \t\r\n\0")
    if "\0" in text:
        raise ValueError(f"secret file {path} contains a NUL character; expected text")
    if not text:
        raise ValueError(f"secret file {path} is empty")
    return text
