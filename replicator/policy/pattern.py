"""Patterns for the names of repositories and tags.

    *        any characters but "/"                       ?      one character but "/"
    **       any characters; "**/" also no component     [a-z]  one of these, [!a-z] none of these, never "/"
    {a,b}    one of the alternatives, which may be patterns themselves

Every other character stands for itself. A pattern matches whole names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import msgspec

from replicator.model.names import parse_repository, parse_tag

MAX_TAG_LENGTH: Final = 128
"""OCI distribution-spec. A longer "tag" of a listing matches nothing, so no regex sees unbounded input."""

REGEX_PREFIX: Final = "re:"

_LITERAL: Final = re.compile(r"[A-Za-z0-9._/-]")
_WILDCARD: Final = re.compile(r"[*?\[{]")


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern for repository names. `exact` is the name itself where the pattern has no wildcard, else None."""

    text: str
    exact: str | None
    regex: re.Pattern[str] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Glob:
        """The text as a pattern; raises ValueError that says what is wrong."""
        regex = _compile(text)
        exact = None if _WILDCARD.search(text) else parse_repository(text)
        return cls(text, exact, regex)

    def matches(self, name: str) -> bool:
        """Whether the whole name fits."""
        return self.regex.fullmatch(name) is not None


class TagPattern(msgspec.Struct, frozen=True):
    """One pattern for tags: a glob, or (`re:` in the config) a regular expression that must match the whole tag."""

    text: str
    regex: re.Pattern[str]
    exact: str | None
    """The tag itself where the pattern has no wildcard."""

    def matches(self, tag: str) -> bool:
        """Whether the whole tag fits."""
        return len(tag) <= MAX_TAG_LENGTH and self.regex.fullmatch(tag) is not None


def parse_tag_pattern(text: str) -> TagPattern:
    """The text as a pattern for tags; raises ValueError that says what is wrong."""
    if text.startswith(REGEX_PREFIX):
        expression = text.removeprefix(REGEX_PREFIX)
        if not expression:
            raise ValueError("an empty regular expression: nothing follows re:")
        try:
            return TagPattern(text, re.compile(expression), None)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"invalid regular expression {text!r}: {error}") from error
    regex = _compile(text)
    exact = None if _WILDCARD.search(text) else parse_tag(text)
    return TagPattern(text, regex, exact)


def _compile(text: str) -> re.Pattern[str]:
    if not text:
        raise ValueError("an empty pattern")
    translation = _Translation(text)
    return re.compile(translation.alternatives(depth=0))


class _Translation:
    """One pass over a pattern, from left to right, to the regular expression that means the same."""

    MAX_DEPTH: Final = 8

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def alternatives(self, depth: int) -> str:
        """Up to the end of the text, or (`depth` above 0) up to the brace that closes the group."""
        if depth > self.MAX_DEPTH:
            raise self._problem(f"braces nested deeper than {self.MAX_DEPTH}")
        parts = [""]
        while self._at < len(self._text):
            char = self._text[self._at]
            if depth and char == ",":
                self._at += 1
                parts.append("")
            elif depth and char == "}":
                self._at += 1
                return "(?:" + "|".join(parts) + ")"
            else:
                parts[-1] += self._item(char, depth)
        if depth:
            raise self._problem("a { that is not closed by }")
        return parts[0]

    def _item(self, char: str, depth: int) -> str:
        if char == "*":
            return self._stars()
        if char == "[":
            return self._one_of()
        self._at += 1
        if char == "?":
            return "[^/]"
        if char == "{":
            return self.alternatives(depth + 1)
        if not _LITERAL.match(char):
            raise self._problem(f"{char!r} is not allowed in names")
        return re.escape(char)

    def _stars(self) -> str:
        start = self._at
        while self._text.startswith("*", self._at):
            self._at += 1
        if self._at - start == 1:
            return "[^/]*"
        at_component = start == 0 or self._text[start - 1] in "/{,"
        if at_component and self._text.startswith("/", self._at):
            self._at += 1
            return "(?:.*/)?"
        return ".*"

    def _one_of(self) -> str:
        end = self._text.find("]", self._at + 2)  # a "]" right after the "[" would make an empty class
        if end < 0:
            raise self._problem("a [ that is not closed by ], or nothing in it")
        inner = self._text[self._at + 1 : end]
        negated = inner[0] in "!^"
        members = inner[1:] if negated else inner
        if not members or "--" in members or not all(_LITERAL.match(char) for char in members):
            raise self._problem(f"[{inner}] is not a set of characters that are allowed in names")
        escaped = "".join(char if char == "-" else re.escape(char) for char in members)
        expression = f"[^/{escaped}]" if negated else f"(?!/)[{escaped}]"
        try:
            re.compile(expression)
        except re.error as error:
            raise self._problem(f"[{inner}]: {error.msg}") from error
        self._at = end + 1
        return expression

    def _problem(self, what: str) -> ValueError:
        return ValueError(f"pattern {self._text!r}: {what}")
