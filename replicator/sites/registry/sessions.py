"""Upload sessions: opened by POST, known by their newest Location, ended by PUT or DELETE."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from replicator.errors import Corrupt, SiteError
from replicator.sites.registry.call import Call, Reply
from replicator.sites.registry.context import Registry
from replicator.sites.registry.record import StatusRange

_OPERATION: Final = "start upload"
_UPLOAD_ID: Final = re.compile(r"[A-Za-z0-9._=-]+")
_RANGE: Final = re.compile(r"(?:bytes=)?0-(\d{1,18})")


class Session(msgspec.Struct):
    """An upload session.

    Attributes:
        url: its newest Location.
        offset: the bytes that the registry has.
        least_chunk: `OCI-Chunk-Min-Length`: all chunks but the last have at least this many bytes.
        state: "sound": it is where `offset` says. "doubtful": a request of it broke, so that only the registry knows.
            "spoilt": it has other bytes than were meant for it, and is of no more use.
        history: what its bytes came from, should they turn out wrong: each was sent "once"; a request was refused, for the
            load or for its token, and sent "again"; it was "resumed" where the registry said.
    """

    url: str
    offset: int = 0
    least_chunk: int = 0
    state: Literal["sound", "doubtful", "spoilt"] = "sound"
    history: Literal["once", "again", "resumed"] = "once"

    def was_refused(self) -> None:
        """Notes that a request is sent again: as a rule nothing was taken of it, but some proxies pass a part on."""
        if self.history == "once":
            self.history = "again"


def start_call(repository: str) -> Call:
    """The request that opens a session (202), or finds that none is needed (201)."""
    return Call(
        _OPERATION,
        "POST",
        f"/v2/{repository}/blobs/uploads/",
        repository=repository,
        actions="pull,push",
        expected=frozenset({201, 202}),
        idempotent=True,  # at worst a session is left that nobody knows of, for the registry to purge
    )


def opened(registry: Registry, repository: str, reply: Reply) -> Session:
    """The session that a 202 speaks of. Raises `Corrupt` where it does not say where the session is."""
    url = newest_location(registry, repository, reply)
    if url is None:
        cause = "it opened an upload without saying where"
        raise Corrupt(registry.site, _OPERATION, cause, repository=repository)
    least = reply.headers.get("OCI-Chunk-Min-Length", "")
    return Session(url, least_chunk=int(least[:12]) if least.isascii() and least.isdigit() else 0)


def newest_location(registry: Registry, repository: str, reply: Reply) -> str | None:
    """The URL where an upload continues; Artifactory may send only its id (docs/quirks.md#location-missing).

    None if the answer has neither. Raises `Corrupt` for a Location that is not followed.
    """
    location = reply.headers.get("Location")
    if location:
        try:
            return registry.transport.locate(location, reply.url)
        except ValueError as error:
            cause = f"the Location it gave is not followed: {error}"
            raise Corrupt(registry.site, "upload blob", cause, repository=repository) from error
    upload_id = reply.headers.get("Docker-Upload-UUID", "")
    if _UPLOAD_ID.fullmatch(upload_id):
        return f"/v2/{repository}/blobs/uploads/{upload_id}"
    return None


def move(registry: Registry, repository: str, session: Session, reply: Reply) -> None:
    """Takes the newest Location. Where an answer has none (Quay's status), the last one stays good."""
    session.url = newest_location(registry, repository, reply) or session.url


def session_call(
    repository: str,
    operation: str,
    method: str,
    url: str,
    expected: frozenset[int],
    headers: Mapping[str, str] | None = None,
) -> Call:
    """A request of an open session."""
    return Call(
        operation,
        method,
        url,
        repository=repository,
        actions="pull,push",
        headers=headers or {},
        expected=expected,
    )


def reported_offset(headers: Mapping[str, str], meaning: StatusRange) -> int | None:
    """The bytes that a session's status says are there; None where it does not say for certain.

    `0-0` is none as well as one byte, and is not certain (docs/quirks.md#upload-status).
    """
    match = _RANGE.fullmatch(headers.get("Range", "").strip())
    if match is None or match[1] == "0":
        return None
    return int(match[1]) + (1 if meaning == "inclusive" else 0)


async def cancel(registry: Registry, repository: str, session: Session) -> bool:
    """Cancels a session; whether that was allowed. Never raises a `SiteError`.

    distribution wants a right for this that token servers rarely grant.
    """
    call = Call(
        "cancel upload",
        "DELETE",
        session.url,
        repository=repository,
        actions="pull,push,delete",
        expected=frozenset({200, 202, 204}),
    )
    try:
        await registry.transport.request(call)
    except SiteError:
        return False
    return True


async def probe_upload(registry: Registry, repository: str) -> bool:
    """Starts an upload and cancels it again; whether the cancelling was allowed.

    Raises a `SiteError` where the upload cannot be started.
    """
    reply = await registry.transport.request(start_call(repository))
    registry.knowledge.see(reply.headers)
    if reply.status == 201:
        return True
    return await cancel(registry, repository, opened(registry, repository, reply))
