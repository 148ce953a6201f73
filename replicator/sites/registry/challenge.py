"""What a 401 asks for: the WWW-Authenticate header (RFC 9110, section 11.6.1), read as leniently as it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

_TOKEN: Final = frozenset("!#$%&'*+.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-")
_TOKEN68: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~+/-")
_BLANK: Final = frozenset(" \t")
_PADDING: Final = frozenset("=")
_MAX_CHALLENGES: Final = 100
"""Of one answer; real ones offer one or two."""


class Challenge(msgspec.Struct, frozen=True):
    """One way to authenticate: `scheme` in lower case, parameters by lower-case name, the last of a name counting."""

    scheme: str
    parameters: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def realm(self) -> str:
        """For Bearer: where tokens are had. Empty where absent."""
        return self.parameters.get("realm", "")

    @property
    def service(self) -> str:
        """What the token service shall know the registry by. Empty where absent."""
        return self.parameters.get("service", "")

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that the refused request would have needed."""
        return tuple(self.parameters.get("scope", "").split())


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of all WWW-Authenticate headers, in order.

    Several may share one header, parted by the same comma that parts parameters; values may be quoted with
    escapes. What cannot be read is skipped: one odd challenge must not hide the usable one beside it.
    """
    found: list[Challenge] = []
    for text in headers:
        found += _Scanner(text).challenges()
    return found[:_MAX_CHALLENGES]


class _Scanner:
    """Reads one header from left to right; nothing is looked at twice but what lies between a name and its `=`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def challenges(self) -> list[Challenge]:
        found: list[Challenge] = []
        parameters: dict[str, str] | None = None
        while self._at < len(self._text):
            name = self._run(_TOKEN)
            if not name:
                self._at += 1
                continue
            value = self._value() if parameters is not None else None
            if parameters is not None and value is not None:
                parameters[name.lower()] = value
            else:
                self._skip_token68()
                parameters = {}
                found.append(Challenge(name.lower(), parameters))
        return found

    def _run(self, characters: frozenset[str]) -> str:
        begin, text = self._at, self._text
        while self._at < len(text) and text[self._at] in characters:
            self._at += 1
        return text[begin : self._at]

    def _blank(self) -> None:
        self._run(_BLANK)

    def _value(self) -> str | None:
        """The value after `=`; None, and nothing passed, where there is no `=` or nothing after it."""
        begin, text = self._at, self._text
        self._blank()
        if text[self._at : self._at + 1] == "=":
            self._at += 1
            self._blank()
            value = self._quoted() if text[self._at : self._at + 1] == '"' else self._bare()
            if value is not None:
                return value
        self._at = begin
        return None

    def _bare(self) -> str | None:
        begin, text = self._at, self._text
        while self._at < len(text) and text[self._at] not in ' \t\r\n,"':
            self._at += 1
        return text[begin : self._at] or None

    def _quoted(self) -> str:
        """A quoted string with its escapes undone; one that is not closed ends with the header."""
        parts: list[str] = []
        text, self._at = self._text, self._at + 1
        while self._at < len(text) and text[self._at] != '"':
            if text[self._at] == "\\" and self._at + 1 < len(text):
                self._at += 1
            parts.append(text[self._at])
            self._at += 1
        self._at += 1
        return "".join(parts)

    def _skip_token68(self) -> None:
        """Passes what Negotiate and its like put after the scheme: base64, then a comma or the end."""
        begin = self._at
        self._blank()
        if self._at > begin and self._run(_TOKEN68):
            self._run(_PADDING)
            self._blank()
            if self._at == len(self._text) or self._text[self._at] == ",":
                return
        self._at = begin


def best_challenge(challenges: Iterable[Challenge]) -> Challenge | None:
    """The one to answer: Bearer with a realm before Basic; None where neither is offered."""
    offered = list(challenges)
    for challenge in offered:
        if challenge.scheme == "bearer" and challenge.realm:
            return challenge
    return next((challenge for challenge in offered if challenge.scheme == "basic"), None)
