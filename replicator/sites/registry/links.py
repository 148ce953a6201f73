"""The Link header (RFC 8288), read in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def next_link(headers: Iterable[str]) -> str | None:
    """The target of the link with rel `next`, among several links in one header or several headers.

    Read leniently: rel quoted or bare, in any case, one of several relation types.
    """
    for header in headers:
        for target, parameters in _links(header):
            if "next" in (parameters.get("rel") or "").lower().split():
                return target
    return None


def _links(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    at = 0
    while (begin := header.find("<", at)) >= 0:
        end = header.find(">", begin)
        if end < 0:
            return
        parameters, at = _parameters(header, end + 1)
        yield header[begin + 1 : end], parameters


def _parameters(header: str, at: int) -> tuple[dict[str, str], int]:
    """The `;name=value` that follow, the first of a name counting, and where they end."""
    found: dict[str, str] = {}
    while (at := _skip(header, at)) < len(header) and header[at] == ";":
        begin = _skip(header, at + 1)
        at = _until(header, begin, "=;,<")
        name, value = header[begin:at].strip().lower(), ""
        if at < len(header) and header[at] == "=":
            at = _skip(header, at + 1)
            if at < len(header) and header[at] == '"':
                end = header.find('"', at + 1)
                end = len(header) if end < 0 else end
                value, at = header[at + 1 : end], end + 1
            else:
                end = _until(header, at, ";,<")
                value, at = header[at:end].strip(), end
        found.setdefault(name, value)
    return found, at


def _skip(header: str, at: int) -> int:
    while at < len(header) and header[at] in " \t":
        at += 1
    return at


def _until(header: str, at: int, ends: str) -> int:
    while at < len(header) and header[at] not in ends:
        at += 1
    return at
