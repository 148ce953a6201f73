"""Refusals, as problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

PROBLEM_TYPE: Final = "application/problem+json"


class ProblemDetails(msgspec.Struct, frozen=True):
    """Why a request was refused."""

    title: str
    status: int
    detail: str


class Problem(Exception):
    """The request is refused with `response()`."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """The answer."""
        details = ProblemDetails(HTTPStatus(self.status).phrase, self.status, self.detail)
        return web.Response(
            status=self.status,
            body=msgspec.json.encode(details),
            content_type=PROBLEM_TYPE,
            headers=self.headers,
        )
