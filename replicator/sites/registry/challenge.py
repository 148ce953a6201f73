"""What a 401 asks for: the WWW-Authenticate header (RFC 9110, section 11.6.1), read as leniently as it is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - the grammar's word for a name
_PARAMETER: Final = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', re.ASCII)
_SCHEME: Final = re.compile(rf"({_TOKEN})(?:[ \t]+[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$)))?", re.ASCII)
_ESCAPED: Final = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate: `scheme` in lower case, parameters by lower-case name, the last of a name counting."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

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
        parameters: dict[str, str] | None = None
        at = 0
        while at < len(text):
            if parameters is not None and (match := _PARAMETER.match(text, at)):
                quoted, bare = match[2], match[3]
                parameters[match[1].lower()] = bare if quoted is None else _ESCAPED.sub(r"\1", quoted)
            elif match := _SCHEME.match(text, at):
                parameters = {}
                found.append(Challenge(match[1].lower(), parameters))
            at = match.end() if match else at + 1
    return found


def best_challenge(challenges: Iterable[Challenge]) -> Challenge | None:
    """The one to answer: Bearer with a realm before Basic; None where neither is offered."""
    offered = list(challenges)
    for challenge in offered:
        if challenge.scheme == "bearer" and challenge.realm:
            return challenge
    return next((challenge for challenge in offered if challenge.scheme == "basic"), None)
