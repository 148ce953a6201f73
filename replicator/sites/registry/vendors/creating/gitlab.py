"""GitLab: a project must exist, and is created only where the config asks for it.

Source: https://docs.gitlab.com/api/projects/ (`POST /projects`) and https://docs.gitlab.com/api/namespaces/.
"""

from __future__ import annotations

from typing import ClassVar, Final
from urllib.parse import quote

from replicator.errors import SiteError
from replicator.sites.registry.vendors.creation import (
    APIAnswer,
    APIRequest,
    CreateSettings,
    CreationAPI,
    RepositoryCreation,
    is_about_repository,
)

_HOST: Final = "registry.gitlab.com"
_API: Final = "https://gitlab.com"
_NEEDS: Final = "a token with the scope api whose owner may create projects in the group, as `create.token`"


class GitLabProjects(RepositoryCreation):
    """`POST /api/v4/projects`: the repository's whole path becomes the project's, in a group that exists."""

    keys: ClassVar[frozenset[str]] = frozenset({"public", "token", "api"})
    required: ClassVar[frozenset[str]] = frozenset({"token"})
    is_default: ClassVar[bool] = False
    what: ClassVar[str] = "project"
    how: ClassVar[str] = "GitLab's API, with `create.token` (scope api)"

    def unit(self, host: str, repository: str) -> str | None:  # noqa: ARG002
        """See `RepositoryCreation`."""
        return repository if "/" in repository else None

    def is_absent(self, error: SiteError, repository: str) -> bool:
        """What does not exist is refused like what is not to be seen."""
        # of a tag of a project that is there
        is_fixed = any(code in error.cause for code in ("PROTECTED_TAG", "IMMUTABLE_TAG"))
        return super().is_absent(error, repository) or (is_about_repository(error) and not is_fixed)

    async def create(self, api: CreationAPI, repository: str, wanted: CreateSettings) -> bool:
        """See `RepositoryCreation`. The default is a private project."""
        place = await api.place(repository)
        base = f"{wanted.api or (_API if api.host == _HOST else place.api)}/api/v4"
        headers = {"PRIVATE-TOKEN": wanted.token() if wanted.token else ""}
        group, _, name = repository.rpartition("/")
        url = f"{base}/namespaces/{quote(group, safe='')}"
        answer = await api.send(APIRequest("GET", url, headers), repository)
        if answer.status == 404:
            raise api.refused(f"group {group} does not exist", repository, _NEEDS)
        number = answer.document().get("id")
        if answer.status != 200 or not isinstance(number, int):
            raise _refused(api, repository, answer)
        document = {
            "name": name,
            "path": name,
            "namespace_id": number,
            "visibility": "public" if wanted.public else "private",
            "container_registry_access_level": "enabled",
        }
        answer = await api.send(APIRequest("POST", f"{base}/projects", headers, document), repository)
        if answer.status == 201:
            return True
        if answer.status in {400, 409} and b"has already been taken" in answer.body:
            return False
        raise _refused(api, repository, answer)


def _refused(api: CreationAPI, repository: str, answer: APIAnswer) -> SiteError:
    needs = _NEEDS if answer.status in {401, 403} else ""
    return api.refused(f"HTTP {answer.status} {answer.text}", repository, needs)
