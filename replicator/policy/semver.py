"""Versions in tags, and ranges of them. Semantic Versioning 2.0.0; ranges as npm and regsync write them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

_TAG: Final = re.compile(
    r"[vV]?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?"
    r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
    r"(?:[+_][0-9A-Za-z._-]+)?"
)
_PARTIAL: Final = re.compile(
    r"[vV]?(?:[xX*]|([0-9]+)(?:\.(?:[xX*]|([0-9]+)))?(?:\.(?:[xX*]|([0-9]+)))?)(?:\.[xX*])*"
    r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
    r"(?:\+[0-9A-Za-z.-]+)?"
)
_COMPARATOR: Final = re.compile(r"(>=|<=|>|<|=|\^|~>?)?\s*([^\s,<>=^~|]+)")
_HYPHEN: Final = re.compile(r"\s*(\S+)\s+-\s+(\S+)\s*")

_Core = tuple[int, int, int]
_Identifier = tuple[int, int, str]
_LOWEST: Final[tuple[_Identifier, ...]] = ((0, 0, ""),)
"""The prerelease "0", before every other one: an open end there keeps the prereleases of the end out too."""


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A version, ordered by semver's precedence (section 11): `1.2` equals `1.2.0`, builds do not count.

    Lenient, as tags are written: a leading `v`, one or two numbers instead of three, leading zeros (calendar
    versions), and `_` for the `+` that no tag may hold (Helm writes it so). What follows a hyphen is a
    prerelease, as semver has it - also where an image's author meant a variant, as in `1.2.3-alpine`.
    """

    core: _Core
    is_release: bool
    prerelease: tuple[_Identifier, ...]
    """Each identifier as it compares: numbers by value and before words."""
    text: str = field(compare=False)

    @classmethod
    def parse(cls, tag: str) -> Version:
        """The tag as a version; raises ValueError if it is none."""
        match = _TAG.fullmatch(tag)
        if match is None:
            raise ValueError(f"invalid version {tag[:150]!r}: expected MAJOR[.MINOR[.PATCH]][-PRERELEASE]")
        core = (int(match[1]), int(match[2] or 0), int(match[3] or 0))
        return _version(core, _identifiers(match[4]), tag)

    @property
    def precedence(self) -> tuple[_Core, bool, tuple[_Identifier, ...]]:
        """What versions are ordered by, as a key for sorting many of them."""
        return self.core, self.is_release, self.prerelease

    def __str__(self) -> str:
        return self.text


def parse_version(tag: str) -> Version | None:
    """The tag as a version, None if it is none."""
    try:
        return Version.parse(tag)
    except ValueError:
        return None


class _Bound(msgspec.Struct, frozen=True):
    operator: Literal[">=", ">", "<", "<="]
    version: Version

    def admits(self, version: Version) -> bool:
        match self.operator:
            case ">=":
                return version >= self.version
            case ">":
                return version > self.version
            case "<":
                return version < self.version
            case "<=":
                return version <= self.version


class _Set(msgspec.Struct, frozen=True):
    """Bounds that hold together, and the releases of which the user named a prerelease."""

    bounds: tuple[_Bound, ...]
    named: frozenset[_Core]

    def admits(self, version: Version) -> bool:
        if not version.is_release and version.core not in self.named:
            return False
        return all(bound.admits(version) for bound in self.bounds)


@dataclass(frozen=True, slots=True)
class SemverRange:
    """A range of versions: `>=1.2 <2 || ~3.1 || ^4 || 1.x || 1.2 - 1.4`.

    A space or comma means and, `||` means or. A prerelease is in a range only where the range names a
    prerelease of the same major, minor and patch (npm's rule): `>=1.2` leaves `1.3.0-rc1` out, and
    `>=1.3.0-rc1` takes it, and `1.3.0-rc2`, but not `1.4.0-rc1`.
    """

    text: str
    _sets: tuple[_Set, ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> SemverRange:
        """The text as a range.

        Raises:
            ValueError: names the offending part; also where a part contradicts itself and could hold no version.
        """
        return cls(text, tuple(_parse_set(part.strip(), text) for part in text.split("||")))

    def __contains__(self, version: Version) -> bool:
        return any(part.admits(version) for part in self._sets)

    def __str__(self) -> str:
        return self.text


class _Partial(msgspec.Struct, frozen=True):
    """A version of which only the first `len(numbers)` numbers are told."""

    numbers: tuple[int, ...]
    prerelease: tuple[_Identifier, ...]

    @property
    def core(self) -> _Core:
        major, minor, patch = (*self.numbers, 0, 0, 0)[:3]
        return major, minor, patch

    @property
    def version(self) -> Version:
        """The first version that it may mean."""
        return _version(self.core, self.prerelease)

    def after(self, place: int) -> Version:
        """What lies before the next version at a place (0 major, 1 minor, 2 patch), prereleases included."""
        numbers = [*self.core[:place], self.core[place] + 1, 0, 0]
        return _version((numbers[0], numbers[1], numbers[2]), _LOWEST)


def _parse_set(part: str, whole: str) -> _Set:
    if not part:
        raise ValueError(f"semver range {whole!r}: an empty part; write * for any version")
    partials: list[_Partial] = []
    bounds: list[_Bound] = []
    if hyphen := _HYPHEN.fullmatch(part):
        low, high = _partial(hyphen[1], whole), _partial(hyphen[2], whole)
        partials += [low, high]
        bounds += _bounds(">=", low, part, whole) + _bounds("<=", high, part, whole)
    else:
        at = 0
        while at < len(part):
            match = _COMPARATOR.match(part, at)
            if match is None:
                raise ValueError(f"semver range {whole!r}: {part[at:]!r} is not a comparison with a version")
            partial = _partial(match[2], whole)
            partials.append(partial)
            bounds += _bounds(match[1] or "=", partial, match[0], whole)
            at = match.end()
            while at < len(part) and (part[at].isspace() or part[at] == ","):
                at += 1
    _check_not_empty(bounds, part, whole)
    named = frozenset(partial.core for partial in partials if partial.prerelease)
    return _Set(tuple(bounds), named)


def _partial(text: str, whole: str) -> _Partial:
    match = _PARTIAL.fullmatch(text)
    if match is None:
        raise ValueError(f"semver range {whole!r}: invalid version {text!r}")
    numbers: list[int] = []
    for number in match.group(1, 2, 3):
        if number is None:
            break
        numbers.append(int(number))
    if any(match.group(index) is not None for index in range(len(numbers) + 1, 4)):
        raise ValueError(f"semver range {whole!r}: {text!r} has a number after a wildcard")
    prerelease = _identifiers(match[4])
    if prerelease and len(numbers) < 3:
        raise ValueError(f"semver range {whole!r}: {text!r} has a prerelease but not all three numbers")
    return _Partial(tuple(numbers), prerelease)


def _bounds(operator: str, partial: _Partial, part: str, whole: str) -> list[_Bound]:
    """The bounds that an operator and a version mean (the table of npm's documentation)."""
    told = len(partial.numbers)
    first = _Bound(">=", partial.version)
    if told == 0:
        if operator in {"<", ">"}:
            raise ValueError(f"semver range {whole!r}: {part.strip()!r} holds no version")
        return []
    if operator == ">=":
        return [first]
    if operator == ">":
        return [_Bound(">", partial.version) if told == 3 else _Bound(">=", _next(partial))]
    if operator == "<":
        return [_Bound("<", partial.version if told == 3 else _version(partial.core, _LOWEST))]
    end = _end(operator, partial)
    return [end] if operator == "<=" else [first, end]


def _end(operator: str, partial: _Partial) -> _Bound:
    last = len(partial.numbers) - 1
    if operator == "^":
        # Up to the next change of the first number that is not zero, or of the last one told.
        place = next((place for place, number in enumerate(partial.numbers) if number), last)
    elif operator in {"~", "~>"}:
        place = min(last, 1)
    elif last == 2:
        return _Bound("<=", partial.version)
    else:
        place = last
    return _Bound("<", partial.after(place))


def _next(partial: _Partial) -> Version:
    return _version(partial.after(len(partial.numbers) - 1).core, ())


def _check_not_empty(bounds: list[_Bound], part: str, whole: str) -> None:
    for low in bounds:
        for high in bounds:
            if not low.operator.startswith(">") or not high.operator.startswith("<"):
                continue
            closed = low.operator == ">=" and high.operator == "<="
            if low.version > high.version or (low.version == high.version and not closed):
                raise ValueError(f"semver range {whole!r}: no version is in {part!r}")


def _identifiers(prerelease: str | None) -> tuple[_Identifier, ...]:
    if not prerelease:
        return ()
    return tuple(
        (0, int(identifier), "") if identifier.isdigit() else (1, 0, identifier)
        for identifier in prerelease.split(".")
    )


def _version(core: _Core, prerelease: tuple[_Identifier, ...], text: str | None = None) -> Version:
    if text is None:
        text = ".".join(map(str, core))
        if prerelease:
            text += "-" + ".".join(word or str(number) for _, number, word in prerelease)
    return Version(core, not prerelease, prerelease, text)
