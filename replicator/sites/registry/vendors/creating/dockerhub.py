"""Docker Hub: a push creates a repository, public or private as the account has it; its API creates others.

Source: https://docs.docker.com/reference/api/hub/latest/, `POST /v2/auth/token` and `/v2/namespaces/NS/repositories`.
"""

from __future__ import annotations

from typing import ClassVar, Final

from replicator.errors import SiteError
from replicator.scrub import remember
from replicator.sites.registry.vendors.creation import (
    APIAnswer,
    APIRequest,
    CreateSettings,
    CreationAPI,
    Listing,
    RepositoryCreation,
)

_NEEDS: Final = "a personal or organisation access token that may write repositories"


class HubRepositories(RepositoryCreation):
    """Only where the config says whether they are public, and before the first push."""

    keys: ClassVar[frozenset[str]] = frozenset({"public"})
    required: ClassVar[frozenset[str]] = frozenset({"public"})
    is_default: ClassVar[bool] = False
    how: ClassVar[str] = "Docker Hub's API, as the site's user"

    def unit(self, host: str, repository: str) -> str | None:  # noqa: ARG002
        """See `RepositoryCreation`."""
        return repository if repository.count("/") == 1 else None

    def is_absent(self, error: SiteError, repository: str) -> bool:  # noqa: ARG002
        """A push creates it."""
        return False

    def comes_first(self, listing: Listing, wanted: CreateSettings) -> bool:  # noqa: ARG002
        """A push would create it as the account has it."""
        return listing == "absent"

    async def create(self, api: CreationAPI, repository: str, wanted: CreateSettings) -> bool:
        """See `RepositoryCreation`."""
        place = await api.place(repository)
        if place.login is None or not place.login.password:
            raise api.refused("the site has no user name and password", repository, _NEEDS)
        who = {"identifier": place.login.username, "secret": place.login.password}
        answer = await api.send(APIRequest("POST", f"{place.api}/v2/auth/token", document=who), repository)
        token = answer.document().get("access_token")
        if answer.status != 200 or not isinstance(token, str):
            raise _refused(api, repository, answer)
        remember(token)
        namespace, _, name = repository.partition("/")
        document = {"name": name, "namespace": namespace, "is_private": not wanted.public}
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{place.api}/v2/namespaces/{namespace}/repositories"
        answer = await api.send(APIRequest("POST", url, headers, document), repository)
        if answer.status == 201:
            return True
        if answer.status in {400, 409} and b"already exists" in answer.body:
            return False
        raise _refused(api, repository, answer)


def _refused(api: CreationAPI, repository: str, answer: APIAnswer) -> SiteError:
    needs = _NEEDS if answer.status in {401, 403} else ""
    return api.refused(f"HTTP {answer.status} {answer.text}", repository, needs)
