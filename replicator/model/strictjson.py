"""JSON of others, read so that no other reader understands it differently.

Go's encoding/json matches names without regard to case and takes the last of two equal ones. A document that relies
on either means one thing to us and another to whoever pulls it, so it is refused where its members are followed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

MAX_VALUES: Final = 500_000
"""More members and items than any manifest of 8 MiB needs. Each takes about 100 bytes once parsed, whatever it is."""

Members = dict[str, Any]


class _Doubled(dict[str, Any]):
    """An object that names a member twice."""

    name = ""


def _members(pairs: list[tuple[str, Any]]) -> Members:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    doubled = _Doubled(members)
    counts = Counter(name for name, _ in pairs)
    doubled.name = counts.most_common(1)[0][0]
    return doubled


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_decoder: Final = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_refuse_constant)


def read_object(body: bytes) -> Members:
    """The body as a JSON object. UTF-8 only, without a byte order mark.

    Raises:
        ValueError: it is not one, is nested too deep, or has more than `MAX_VALUES` members and items.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} members and items")
    try:
        document = _decoder.decode(body.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"a JSON {type(document).__name__}, not an object")  # noqa: TRY004 - foreign content
    return document


def check_names(members: Members, names: Mapping[str, str], where: str) -> None:
    """Refuses members that clients would read differently.

    Args:
        members: an object from `read_object`.
        names: the exact names that somebody follows, by their `str.casefold`.
        where: the object, for the message.

    Raises:
        ValueError: a member is named twice, or differs from one of the names only by case.
    """
    if isinstance(members, _Doubled):
        raise ValueError(f"{where} has the member {members.name[:50]!r} twice")  # noqa: TRY004 - foreign content
    for name in members:
        exact = names.get(name.casefold())
        if exact is not None and exact != name:
            raise ValueError(
                f"{where} has a member {name[:50]!r}, which some clients read as {exact!r} and others do not"
            )


def text_or(value: Any, default: str | None = None) -> str | None:
    """A string that can be written again, else the default: for members that nobody relies on."""
    if isinstance(value, str) and value.isascii():
        return value
    if isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value):
        return value
    return default
