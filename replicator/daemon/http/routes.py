"""A route: what serves it, who may, and what its OpenAPI document says. One table of these is all there is."""

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
    """One method of one path. `takes` (as any of `media_types`) and `gives` are shapes; `gives` may be a media type where it is no JSON.

    `refuses`: the statuses of refusals that are the route's own; those of `need` come on top.
    `hidden`: part of the status page, not of the API.
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
