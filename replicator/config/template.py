"""The JSON that a notification posts, with places that facts fill in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

FACTS: Final = ("event", "rule", "source", "destination", "agent", "time", "lag", "error", "summary")
_PLACE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A JSON document; `{name}` in its strings is filled in. What comes out is JSON whatever the facts hold."""

    text: str

    def fill(self, facts: Mapping[str, str]) -> bytes:
        """The document with these facts, which must be all of `FACTS`."""
        return json.dumps(_filled(json.loads(self.text), facts)).encode()


def parse_template(text: str) -> Template:
    """Raises ValueError that says what is wrong."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from None
    unknown = sorted({name for string in _strings(document) for name in _PLACE.findall(string)} - set(FACTS))
    if unknown:
        raise ValueError(f"names {{{unknown[0]}}}, which is no fact; there are {', '.join(FACTS)}")
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
