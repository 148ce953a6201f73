"""The OpenAPI 3.1 document, generated from the table of routes and the shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from replicator import __version__
from replicator.daemon.http.auth import Need
from replicator.daemon.http.problems import PROBLEM_TYPE, ProblemDetails
from replicator.daemon.http.routes import Route

_REFS: Final = "#/components/schemas/{name}"
_REFUSED: Final[Mapping[Need, Mapping[int, str]]] = {
    "health": {},
    "metrics": {400: "A header is sent twice", 401: "A token is needed", 403: "Unknown Host header"},
    "read": {400: "A header is sent twice", 401: "A token is needed", 403: "Unknown Host header"},
    "listen": {
        400: "A header is sent twice",
        401: "A token is needed",
        403: "Unknown Host header, or another origin",
    },
    "change": {
        400: "Invalid body",
        401: "A token is needed",
        403: "No token is configured, another origin, or an unknown Host header",
        408: "The body did not arrive in time",
        413: "The body is too large",
        415: "Content-Type is not application/json",
    },
    "hook": {
        400: "The body is not a known notification",
        401: "The webhook's token or signature is missing or wrong",
        403: "The notification names a different registry from the webhook's site",
        408: "The body did not arrive in time",
        413: "The body is too large",
        415: "Content-Type is not that of notifications",
        503: "Too many webhooks at once; see Retry-After",
    },
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document of these routes."""
    shapes = [each for route in routes for each in (route.takes, route.gives) if isinstance(each, type)]
    _, components = msgspec.json.schema_components(
        [*dict.fromkeys(shapes), ProblemDetails], ref_template=_REFS
    )
    for shape in shapes:
        components[shape.__name__] |= getattr(shape, "MORE_SCHEMA", {})
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if not route.hidden:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "replicator",
            "version": __version__,
            "description": "One replication agent: its status, and what it can be asked to do.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "The agent's token."},
                "basic": {"type": "http", "scheme": "basic", "description": "The agent's token as password."},
                "hook": {"type": "http", "scheme": "bearer", "description": "The webhook's own token."},
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "security": _security(route.need),
        "responses": {str(route.status): _success(route)}
        | {
            str(status): _problem(text)
            for status, text in sorted({**_REFUSED[route.need], **route.refuses}.items())
        },
    }
    if route.parameters:
        operation["parameters"] = [
            {
                "name": each.name,
                "in": each.place,
                "required": each.place == "path",
                "description": each.text,
                "schema": dict(each.schema),
            }
            for each in route.parameters
        ]
    if route.takes is not None:
        content = {each: {"schema": _ref(route.takes)} for each in sorted(route.media_types)}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _operation_id(route: Route) -> str:
    words = [word.strip("{}") for word in route.path.split("/") if word not in {"", "api", "v1"}]
    return "_".join([route.method.lower(), *words]).replace(".", "_")


def _security(need: Need) -> list[dict[str, list[str]]]:
    match need:
        case "health":
            return []
        case "hook":
            return [{"hook": []}, {}]  # or a signature in a header that the config names
        case "change":
            return [{"bearer": []}, {"basic": []}]
        case _:
            return [{"bearer": []}, {"basic": []}, {}]  # on loopback no token is needed


def _success(route: Route) -> dict[str, Any]:
    if isinstance(route.gives, type):
        return {"description": "Done", "content": {"application/json": {"schema": _ref(route.gives)}}}
    if not route.gives:
        return {"description": "Done"}
    schema = {"type": "object" if route.gives == "application/json" else "string"}
    return {"description": "Done", "content": {route.gives: {"schema": schema}}}


def _problem(text: str) -> dict[str, Any]:
    return {"description": text, "content": {PROBLEM_TYPE: {"schema": _ref(ProblemDetails)}}}


def _ref(shape: type) -> dict[str, str]:
    return {"$ref": _REFS.format(name=shape.__name__)}
