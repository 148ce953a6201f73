"""Harbor: a project must exist, repositories in it are created by a push.

Source: https://github.com/goharbor/harbor, api/v2.0/swagger.yaml, `POST /projects`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from replicator.errors import SiteError
from replicator.sites.registry.vendors.creation import (
    APIRequest,
    CreateSettings,
    CreationAPI,
    RepositoryCreation,
    is_about_repository,
)

_NEEDS = "a system-level robot account with the permission to create projects, or a user who may"


class HarborProjects(RepositoryCreation):
    """`POST /api/v2.0/projects`, as the site's user or robot account."""

    keys: ClassVar[frozenset[str]] = frozenset({"public", "quota"})
    what: ClassVar[str] = "project"
    how: ClassVar[str] = f"Harbor's API, as {_NEEDS}"

    def unit(self, host: str, repository: str) -> str | None:  # noqa: ARG002
        """See `RepositoryCreation`."""
        project, slash, _ = repository.partition("/")
        return project if slash else None

    def is_absent(self, error: SiteError, repository: str) -> bool:
        """Harbor answers a push to an unknown project with 401, and names it."""
        project = repository.partition("/")[0]
        if super().is_absent(error, repository):
            return True
        return is_about_repository(error) and f"project {project} not found" in error.cause

    async def create(self, api: CreationAPI, repository: str, wanted: CreateSettings) -> bool:
        """See `RepositoryCreation`. The default is a private project."""
        place = await api.place(repository)
        project = repository.partition("/")[0]
        document: dict[str, Any] = {
            "project_name": project,
            "metadata": {"public": "true" if wanted.public else "false"},
        }
        if wanted.quota is not None:
            document["storage_limit"] = wanted.quota
        headers = place.login.basic() if place.login else {}
        request = APIRequest("POST", f"{place.api}/api/v2.0/projects", headers, document)
        answer = await api.send(request, repository)
        if answer.status == 201:
            return True
        if answer.status == 409:
            return False
        needs = _NEEDS if answer.status in {401, 403} else ""
        raise api.refused(f"HTTP {answer.status} {answer.text}", repository, needs)
