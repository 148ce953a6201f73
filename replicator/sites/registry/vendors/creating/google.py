"""Artifact Registry: a repository of a project must exist, images in it are created by a push.

Source: Artifact Registry REST API v1, `projects.locations.repositories.create` and `projects.locations.operations.get`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from replicator.errors import SiteError, Unavailable
from replicator.sites.registry.vendors.creation import (
    MARK,
    APIAnswer,
    APIRequest,
    CreateSettings,
    CreationAPI,
    RepositoryCreation,
    is_about_repository,
)
from replicator.sites.registry.vendors.listing import Login

_NEEDS: Final = "artifactregistry.repositories.create on the project (roles/artifactregistry.admin)"
_LOCATION: Final = re.compile(r"([a-z0-9-]+)-docker\.pkg\.dev")
_OPERATION: Final = re.compile(r"projects/[^/?#]+/locations/[^/?#]+/operations/[^/?#]+")
_TOKEN_USER: Final = "oauth2accesstoken"  # noqa: S105 - a user name
_POLLS: Final = 60
_POLL_SECONDS: Final = 2.0
_ALREADY_EXISTS: Final = 6
_PERMISSION_DENIED: Final = 7


class GoogleRepositories(RepositoryCreation):
    """A long-running operation that is asked for every 2 s, 2 minutes at most."""

    keys: ClassVar[frozenset[str]] = frozenset({"immutability", "kms_key", "tags", "location"})
    how: ClassVar[str] = f"Artifact Registry's API, with {_NEEDS}"

    def unit(self, host: str, repository: str) -> str | None:
        """Project and repository. Those of gcr.io are created by Google's own migration."""
        if host == "gcr.io" or host.endswith(".gcr.io"):
            return None
        project, name, image = _parts(repository)
        return f"{project}/{name}" if image else None

    def is_absent(self, error: SiteError, repository: str) -> bool:
        """Without rights on the project a missing repository is 403, "or it may not exist"."""
        if super().is_absent(error, repository):
            return True
        return is_about_repository(error) and "may not exist" in error.cause

    async def create(self, api: CreationAPI, repository: str, wanted: CreateSettings) -> bool:
        """See `RepositoryCreation`."""
        place = await api.place(repository)
        location = wanted.location or location_of(api.host)
        if not location:
            raise api.refused(f"the host name {api.host} has no location; set create.location", repository)
        headers = token_headers(place.login)
        if headers is None:
            cause = 'the API wants an access token, which the site has with auth = { kind = "google" }'
            raise api.refused(cause, repository)
        base = f"{place.api}/v1"
        project, name, _ = _parts(repository)
        url = f"{base}/projects/{project}/locations/{location}/repositories?repositoryId={name}"
        document = _document(wanted)
        answer = await api.send(APIRequest("POST", url, headers, document), repository)
        if answer.status == 409:
            return False
        return await self._finished(api, repository, answer, base, headers)

    async def _finished(
        self, api: CreationAPI, repository: str, answer: APIAnswer, base: str, headers: Mapping[str, str]
    ) -> bool:
        for _ in range(_POLLS):
            if answer.status != 200:
                needs = _NEEDS if answer.status in {401, 403} else ""
                raise api.refused(f"HTTP {answer.status} {answer.text}", repository, needs)
            operation = answer.document()
            if operation.get("done"):
                return _succeeded(api, repository, operation.get("error"))
            name = str(operation.get("name", ""))
            if not _OPERATION.fullmatch(name):
                raise api.refused("the answer names no operation", repository)
            await api.sleep(_POLL_SECONDS)
            answer = await api.send(APIRequest("GET", f"{base}/{name}", headers), repository)
        cause = f"the operation is in progress after {_POLLS * _POLL_SECONDS:.0f} s"
        raise Unavailable(api.site, "create repository", cause, repository=repository, answered=True)


def _parts(repository: str) -> tuple[str, str, str]:
    """Project, repository and image; the project of a domain has two parts ("example.com/project" is example.com:project)."""
    parts = repository.split("/", 3)
    if "." in parts[0]:
        parts = [f"{parts[0]}:{parts[1] if len(parts) > 1 else ''}", *parts[2:]]
    else:
        parts = repository.split("/", 2)
    return (parts[0], parts[1] if len(parts) > 1 else "", parts[2] if len(parts) > 2 else "")


def token_headers(login: Login | None) -> dict[str, str] | None:
    """Headers that log in to Google's APIs with an access token; None for a login that is not one."""
    if login is None or (login.username != _TOKEN_USER and not login.bearer):
        return None
    return login.token()


def location_of(host: str) -> str:
    """The location of a registry by its host name; "" where that has none, as at gcr.io."""
    found = _LOCATION.fullmatch(host)
    return found[1] if found else ""


def _document(wanted: CreateSettings) -> dict[str, Any]:
    document: dict[str, Any] = {"format": "DOCKER", "labels": {**wanted.tags, MARK[0]: MARK[1]}}
    if wanted.immutability is not None:
        document["dockerConfig"] = {"immutableTags": wanted.immutability == "IMMUTABLE"}
    if wanted.kms_key is not None:
        document["kmsKeyName"] = wanted.kms_key
    return document


def _succeeded(api: CreationAPI, repository: str, error: object) -> bool:
    if not isinstance(error, dict):
        return True
    if error.get("code") == _ALREADY_EXISTS:
        return False
    needs = _NEEDS if error.get("code") == _PERMISSION_DENIED else ""
    raise api.refused(str(error.get("message", "the operation failed")), repository, needs)
