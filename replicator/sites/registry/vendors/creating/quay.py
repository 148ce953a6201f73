"""Quay: a push creates a private repository where its account may create some; the API creates others.

Source: https://github.com/quay/quay, endpoints/api/repository.py, `POST /api/v1/repository`.
"""

from __future__ import annotations

from typing import ClassVar, Final

from replicator.errors import SiteError
from replicator.sites.registry.vendors.creation import (
    APIRequest,
    CreateSettings,
    CreationAPI,
    Listing,
    RepositoryCreation,
    is_about_repository,
)

_NEEDS: Final = "the token of an OAuth application with the scope repo:create, as `create.token`"


class QuayRepositories(RepositoryCreation):
    """`POST /api/v1/repository`, with the token of an OAuth application: robot accounts may not use the API."""

    keys: ClassVar[frozenset[str]] = frozenset({"public", "token"})
    required: ClassVar[frozenset[str]] = frozenset({"token"})
    is_default: ClassVar[bool] = False
    how: ClassVar[str] = "Quay's API, with `create.token` (scope repo:create)"

    def unit(self, host: str, repository: str) -> str | None:  # noqa: ARG002
        """See `RepositoryCreation`."""
        return repository if "/" in repository else None

    def is_absent(self, error: SiteError, repository: str) -> bool:
        """A repository that the account may not create by a push is 401, like one that it may not write."""
        return super().is_absent(error, repository) or is_about_repository(error)

    def comes_first(self, listing: Listing, wanted: CreateSettings) -> bool:  # noqa: ARG002
        """A push would create it as the registry's default has it."""
        return listing == "absent"

    async def create(self, api: CreationAPI, repository: str, wanted: CreateSettings) -> bool:
        """See `RepositoryCreation`. The default is a private repository."""
        place = await api.place(repository)
        namespace, _, name = repository.partition("/")
        document = {
            "namespace": namespace,
            "repository": name,
            "visibility": "public" if wanted.public else "private",
            "description": "created by replicator",
            "repo_kind": "image",
        }
        headers = {"Authorization": f"Bearer {wanted.token() if wanted.token else ''}"}
        answer = await api.send(
            APIRequest("POST", f"{place.api}/api/v1/repository", headers, document), repository
        )
        if answer.status in {200, 201}:
            return True
        if answer.status in {400, 409} and b"already exists" in answer.body:
            return False
        needs = _NEEDS if answer.status in {401, 403} else ""
        said = answer.text or str(answer.document().get("error_message", ""))
        raise api.refused(f"HTTP {answer.status} {said}", repository, needs)
