"""The JSON that a notification posts, with placeholders for facts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

FACTS: Final = ("event", "rule", "source", "destination", "agent", "time", "lag", "error", "summary")
_PLACE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Template(msgspec.Struct, frozen=True):
    """A JSON document in whose strings `{name}` is replaced. The result is valid JSON for any facts."""

    text: str

    def fill(self, facts: Mapping[str, str]) -> bytes:
        """The document with these facts. `facts` must have all of `FACTS`."""
        return json.dumps(_filled(json.loads(self.text), facts)).encode()


def parse_template(text: str) -> Template:
    """The template of a JSON text.

    Raises:
        ValueError: the text is not JSON, or has an unknown placeholder.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not valid JSON: {error}") from None
    unknown = sorted({name for string in _strings(document) for name in _PLACE.findall(string)} - set(FACTS))
    if unknown:
        raise ValueError(f"has the unknown placeholder {{{unknown[0]}}}; known: {', '.join(FACTS)}")
    return Template(text)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _filled(value: Any, facts: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _PLACE.sub(lambda match: facts[match[1]], value)
    if isinstance(value, list):
        return [_filled(item, facts) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, facts) for key, item in value.items()}
    return value
