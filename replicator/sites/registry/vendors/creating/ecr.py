"""ECR and ECR Public: `CreateRepository`, then the policies, which are calls of their own.

A repository that a crash left without its policies has no image yet: it is completed when its listing is empty.
Source: ECR API 2015-09-21, ECR Public API 2020-10-30.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import msgspec

from replicator.sites.registry.identity.settings import EcrIdentity
from replicator.sites.registry.vendors.creation import (
    MARK,
    CreateSettings,
    CreationAPI,
    Listing,
    RepositoryCreation,
)
from replicator.sites.registry.vendors.listing import VendorAPI

_KEEP_SECONDS: Final = 1800.0
"""How long a role that was assumed is used; it lasts an hour."""
_DENIED: Final = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorizedException"}
)
_NEVER_OURS: Final = frozenset(
    {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"}
)
_WITH_TAGS: Final = "ecr:CreateRepository and ecr:TagResource"
_ACTIONS: Final = {"CreateRepository": _WITH_TAGS}

if TYPE_CHECKING:
    from replicator.sites.registry.identity.aws import EcrAccess

T = TypeVar("T")

Ask = Callable[..., Awaitable[dict[str, Any]]]


class _Name(msgspec.Struct, frozen=True):
    """The repository at AWS: its name, and the account where the config or the host names one."""

    name: str
    account: Mapping[str, str]

    def call(self, **more: object) -> dict[str, Any]:
        return {"repositoryName": self.name, **self.account, **more}


class EcrRepositories(RepositoryCreation):
    """A push comes first, so that a creation template for pushes needs no right to create."""

    keys: ClassVar[frozenset[str]] = frozenset(
        {
            "immutability",
            "exclusions",
            "scan_on_push",
            "encryption",
            "kms_key",
            "tags",
            "policy",
            "lifecycle",
        }
    )
    how: ClassVar[str] = f"ECR's API, with {_WITH_TAGS}"
    service: ClassVar[str] = "ecr"

    def unit(self, host: str, repository: str) -> str | None:  # noqa: ARG002
        """See `RepositoryCreation`."""
        return repository

    def comes_first(self, listing: Listing, wanted: CreateSettings) -> bool:
        """Where a crash may have left a repository without its policies."""
        return listing == "empty" and (wanted.policy is not None or wanted.lifecycle is not None)

    async def create(self, api: CreationAPI, repository: str, wanted: CreateSettings) -> bool:
        """See `RepositoryCreation`."""
        name = self._name(api, repository)

        async def create(ask: Ask) -> bool:
            try:
                await ask("create_repository", **name.call(**_settings(wanted)))
            except _Refused as refused:
                if refused.code != "RepositoryAlreadyExistsException":
                    raise
                await _complete(ask, name, wanted)
                return False
            await _set_policies(ask, name, wanted, policy="", lifecycle="")
            return True

        return await self._asking(api, repository, create)

    async def complete(self, api: CreationAPI, repository: str, wanted: CreateSettings) -> None:
        """See `RepositoryCreation`."""
        name = self._name(api, repository)
        await self._asking(api, repository, lambda ask: _complete(ask, name, wanted))

    async def _asking(self, api: CreationAPI, repository: str, work: Callable[[Ask], Awaitable[T]]) -> T:
        """Does the work with a client of AWS's API, whose refusals name the right that is missing."""
        from replicator.sites.registry.identity.source import NoIdentity  # noqa: PLC0415 - as in `_access`

        access = access_of(api)
        try:
            client = await access.kept_client(self.service)

            async def ask(operation: str, **arguments: object) -> dict[str, Any]:
                async with api.turn("create repository", repository):
                    with access.mapped(self.service):
                        try:
                            found: dict[str, Any] = await getattr(client, operation)(**arguments)
                        except client.exceptions.ClientError as error:
                            if (told := self._told(error)) is None:
                                raise
                            raise told from None
                        return found

            return await work(ask)
        except _Refused as refused:
            raise api.refused(refused.cause, repository, refused.needs) from None
        except (LookupError, TypeError) as error:
            cause = f"AWS {self.service}: the answer is not one of this API: {error!r}"
            raise api.refused(cause, repository) from error
        except NoIdentity as error:
            raise api.refused(str(error), repository, self._needs("CreateRepository")) from None

    def _name(self, api: CreationAPI, repository: str) -> _Name:
        account = access_of(api).registry_id
        return _Name(repository, {"registryId": account} if account.isdigit() else {})

    def _needs(self, operation: str) -> str:
        return _ACTIONS.get(operation, f"ecr:{operation}").replace("ecr:", f"{self.service}:")

    def _told(self, error: Any) -> _Refused | None:
        """What AWS refuses; None for what `EcrAccess` says better."""
        said, operation = error.response.get("Error", {}), error.operation_name
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = str(said.get("Code", ""))
        if code in _NEVER_OURS or status >= 500 or operation == "AssumeRole":
            return None
        cause = f"AWS {self.service} {operation}: {code}: {said.get('Message', '')}"
        return _Refused(code, cause, self._needs(operation) if code in _DENIED else "")


class EcrPublicRepositories(EcrRepositories):
    """In one's own public registry: the repository's name there is without the alias."""

    keys: ClassVar[frozenset[str]] = frozenset({"tags", "policy"})
    how: ClassVar[str] = "ECR Public's API, with ecr-public:CreateRepository and ecr-public:TagResource"
    service: ClassVar[str] = "ecr-public"

    def unit(self, host: str, repository: str) -> str | None:  # noqa: ARG002
        """See `RepositoryCreation`."""
        return repository if "/" in repository else None

    def _name(self, api: CreationAPI, repository: str) -> _Name:  # noqa: ARG002
        return _Name(repository.partition("/")[2], {})


def access_of(api: CreationAPI | VendorAPI) -> EcrAccess:
    """AWS's APIs as the identity of the site, kept with the registry: for its listings and creations alike."""
    from replicator.sites.registry.identity.aws import EcrAccess, EcrHost, parse_host  # noqa: PLC0415 - botocore takes 0.1 s

    identity = api.identity if isinstance(api.identity, EcrIdentity) else EcrIdentity()
    host = parse_host(api.host) or EcrHost(identity.registry_id or "-", identity.region or "")
    return api.kept(lambda: EcrAccess(api.site, host, identity, keep_seconds=_KEEP_SECONDS))


class _Refused(Exception):
    """AWS's refusal: its code, its words, and the right that is missing."""

    def __init__(self, code: str, cause: str, needs: str) -> None:
        super().__init__(cause)
        self.code = code
        self.cause = cause
        self.needs = needs


def _tags(wanted: CreateSettings) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in {**wanted.tags, MARK[0]: MARK[1]}.items()]


def _mutability(wanted: CreateSettings) -> dict[str, Any]:
    if not wanted.exclusions:
        return {"imageTagMutability": wanted.immutability}
    filters = [{"filterType": "WILDCARD", "filter": pattern} for pattern in wanted.exclusions]
    return {
        "imageTagMutability": f"{wanted.immutability}_WITH_EXCLUSION",
        "imageTagMutabilityExclusionFilters": filters,
    }


def _settings(wanted: CreateSettings) -> dict[str, Any]:
    settings: dict[str, Any] = {"tags": _tags(wanted)}
    if wanted.immutability is not None:
        settings |= _mutability(wanted)
    if wanted.scan_on_push is not None:
        settings["imageScanningConfiguration"] = {"scanOnPush": wanted.scan_on_push}
    if wanted.encryption is not None:
        key = {"kmsKey": wanted.kms_key} if wanted.kms_key is not None else {}
        settings["encryptionConfiguration"] = {"encryptionType": wanted.encryption, **key}
    return settings


async def _complete(ask: Ask, name: _Name, wanted: CreateSettings) -> None:
    """Sets what differs, in a repository that we created; what else exists is left alone."""
    found = (await ask("describe_repositories", repositoryNames=[name.name], **name.account))["repositories"][
        0
    ]
    tags = (await ask("list_tags_for_resource", resourceArn=found["repositoryArn"]))["tags"]
    have = {tag["Key"]: tag["Value"] for tag in tags}
    if have.get(MARK[0]) != MARK[1]:
        return
    if any(have.get(tag["Key"]) != tag["Value"] for tag in _tags(wanted)):
        await ask("tag_resource", resourceArn=found["repositoryArn"], tags=_tags(wanted))
    mutability = _mutability(wanted) if wanted.immutability is not None else {}
    if any(found.get(key) != value for key, value in mutability.items()):
        await ask("put_image_tag_mutability", **name.call(**mutability))
    scanning = {"scanOnPush": wanted.scan_on_push}
    if wanted.scan_on_push is not None and found.get("imageScanningConfiguration") != scanning:
        await ask("put_image_scanning_configuration", **name.call(imageScanningConfiguration=scanning))
    policy = lifecycle = ""
    if wanted.policy is not None:
        policy = await _text(ask, "get_repository_policy", name, "policyText")
    if wanted.lifecycle is not None:
        lifecycle = await _text(ask, "get_lifecycle_policy", name, "lifecyclePolicyText")
    await _set_policies(ask, name, wanted, policy=policy, lifecycle=lifecycle)


async def _text(ask: Ask, operation: str, name: _Name, key: str) -> str:
    """A policy as it is; "" without one."""
    try:
        return str((await ask(operation, **name.call())).get(key, ""))
    except _Refused as refused:
        if refused.code in {"RepositoryPolicyNotFoundException", "LifecyclePolicyNotFoundException"}:
            return ""
        raise


async def _set_policies(
    ask: Ask, name: _Name, wanted: CreateSettings, *, policy: str, lifecycle: str
) -> None:
    """Sets those that differ from what is there."""
    if wanted.policy is not None and _parsed(policy) != _parsed(wanted.policy):
        await ask("set_repository_policy", **name.call(policyText=wanted.policy))
    if wanted.lifecycle is not None and _parsed(lifecycle) != _parsed(wanted.lifecycle):
        await ask("put_lifecycle_policy", **name.call(lifecyclePolicyText=wanted.lifecycle))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
