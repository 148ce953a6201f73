"""A route: what serves it, who may use it, and its OpenAPI description."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from replicator.daemon.http.auth import Need

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the path or the query, with its JSON Schema."""

    name: str
    place: Literal["path", "query"]
    text: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `takes` (as any of `media_types`) and `gives` are shapes; `gives` may be a media type if the answer is not JSON.

    `refuses`: statuses of refusals specific to the route, in addition to those of `need`.
    `hidden`: belongs to the status page, not to the API.
    """

    method: Literal["GET", "POST"]
    path: str
    serve: Serve
    need: Need
    summary: str
    gives: type | str
    status: int = 200
    takes: type | None = None
    media_types: Collection[str] = ("application/json",)
    parameters: tuple[Parameter, ...] = ()
    refuses: Mapping[int, str] = field(default_factory=dict)
    hidden: bool = False
