"""A plugin of mypy: `dataclasses.replace` and its like are refused for msgspec's structs.

mypy takes structs for dataclasses, which they are not: at run time such a call raises TypeError. `msgspec.structs` has
the same functions for structs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mypy.plugin import FunctionContext, Plugin
from mypy.types import CallableType, Instance, Type, TypeType, TypeVarType, UnionType, get_proper_type

_FUNCTIONS: Final = frozenset(f"dataclasses.{name}" for name in ("replace", "fields", "asdict", "astuple"))
_STRUCT: Final = "msgspec.Struct"


class Structs(Plugin):
    """Looks at the first argument of each such call."""

    def get_function_hook(self, fullname: str) -> Callable[[FunctionContext], Type] | None:
        """Of mypy; None for functions that are not looked at."""
        return _checked if fullname in _FUNCTIONS else None


def _checked(call: FunctionContext) -> Type:
    if call.arg_types and call.arg_types[0] and _is_struct(call.arg_types[0][0]):
        call.api.fail("a struct is no dataclass: use the function of msgspec.structs", call.context)
    return call.default_return_type


def _is_struct(given: Type) -> bool:
    kind = get_proper_type(given)
    if isinstance(kind, UnionType):
        return any(_is_struct(item) for item in kind.items)
    if isinstance(kind, TypeVarType):
        return _is_struct(kind.upper_bound)
    if isinstance(kind, TypeType):
        return _is_struct(kind.item)
    if isinstance(kind, CallableType) and kind.is_type_obj():
        return kind.type_object().has_base(_STRUCT)
    if isinstance(kind, Instance):
        return kind.type.has_base(_STRUCT)
    return False


def plugin(version: str) -> type[Plugin]:  # noqa: ARG001  # what mypy calls
    """The plugin, for any version of mypy."""
    return Structs
