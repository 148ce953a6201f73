"""Who replicator is at a registry whose credentials a cloud issues, as the config says it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from replicator.sites.registry.settings import ReadSecret


class EcrIdentity(msgspec.Struct, frozen=True):
    """AWS, for ECR and ECR Public: the usual chain of `profile`, then (`role_arn`) a role assumed with it.

    `region` and `registry_id` (the account that owns the registry): for a registry whose host name does not say it.
    """

    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = None
    region: str | None = None
    registry_id: str | None = None


class AcrIdentity(msgspec.Struct, frozen=True):
    """Microsoft Entra ID, for Azure Container Registry.

    `client_id` with `client_secret` or `assertion_file` (workload identity) is an application of `tenant`; without
    both it is the managed identity of that client ID, or the machine's own. What is None comes from the variables that
    Azure's own libraries read.
    """

    tenant: str | None = None
    client_id: str | None = None
    client_secret: ReadSecret | None = None
    assertion_file: Path | None = None


class GoogleIdentity(msgspec.Struct, frozen=True):
    """Google Cloud, for Artifact Registry and gcr.io.

    `key_file`: a service account's key, or another credential file that google-auth reads. None: as
    GOOGLE_APPLICATION_CREDENTIALS says, else the machine's own service account. `impersonate`: the email address of a
    service account to act as.
    """

    key_file: Path | None = None
    impersonate: str | None = None


class GitHubIdentity(msgspec.Struct, frozen=True):
    """An installation of a GitHub App, for GHCR. `private_key` is PEM; `api` the base URL of the API."""

    app_id: str
    installation_id: str
    private_key: ReadSecret
    api: str = "https://api.github.com"


Identity = EcrIdentity | AcrIdentity | GoogleIdentity | GitHubIdentity
