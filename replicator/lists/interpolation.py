"""Variables in Compose files and Dockerfiles: `$NAME`, `${NAME}`, `${NAME:-default}` and their relatives.

Source: Compose specification, "Interpolation"; Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MAX_DEPTH: Final = 8
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS: Final = (":-", ":+", ":?", "-", "+", "?")


def interpolate(text: str, variables: Mapping[str, str], *, depth: int = 0) -> str:
    """The text with its variables replaced; `$$` is a dollar sign.

    Raises:
        ValueError: a variable has no value and no default, or the syntax is wrong; says which.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"variables nested deeper than {MAX_DEPTH} levels")
    parts: list[str] = []
    position = 0
    while (dollar := text.find("$", position)) >= 0:
        parts.append(text[position:dollar])
        value, position = _variable(text, dollar + 1, variables, depth)
        parts.append(value)
    return "".join(parts) + text[position:]


def _variable(text: str, start: int, variables: Mapping[str, str], depth: int) -> tuple[str, int]:
    """The value of the variable that is written from `start` on (behind its `$`), and where the text goes on."""
    if text.startswith("$", start):
        return "$", start + 1
    if text.startswith("{", start):
        end = _closing(text, start + 1)
        return _braced(text[start + 1 : end], variables, depth), end + 1
    name = _NAME.match(text, start)
    if name is None:
        return "$", start
    return _value(name[0], variables), name.end()


def _closing(text: str, start: int) -> int:
    """Where the brace closes that was opened before `start`."""
    level = 1
    for position in range(start, len(text)):
        level += (text[position] == "{") - (text[position] == "}")
        if not level:
            return position
    raise ValueError("`${` without `}`")


def _braced(inside: str, variables: Mapping[str, str], depth: int) -> str:
    name = _NAME.match(inside)
    if name is None:
        raise ValueError(f"`${{{inside}}}` does not name a variable")
    rest = inside[name.end() :]
    if not rest:
        return _value(name[0], variables)
    operator = next((each for each in _OPERATORS if rest.startswith(each)), None)
    if operator is None:
        raise ValueError(f"`${{{inside}}}` is not understood")
    word = rest[len(operator) :]
    value = variables.get(name[0])
    is_set = bool(value) if operator.startswith(":") else value is not None
    match operator[-1]:
        case "-":
            return value if is_set and value is not None else interpolate(word, variables, depth=depth + 1)
        case "+":
            return interpolate(word, variables, depth=depth + 1) if is_set else ""
        case _:
            if is_set and value is not None:
                return value
            raise ValueError(f"variable {name[0]} has no value: {word or 'it is required'}")


def _value(name: str, variables: Mapping[str, str]) -> str:
    value = variables.get(name)
    if value is None:
        raise ValueError(f"variable {name} has no value and no default")
    return value
