"""Repositories that a registry wants created before a push: cold syncs into empty registries, refusals, races, crashes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import pytest
from aiobotocore.session import AioSession

from replicator.demo.images import BuiltImage, image, layer, load
from replicator.engine.engine import Engine
from replicator.engine.result import DestinationResult
from replicator.errors import AuthFailed, ConfigError, Denied, NotFound, SiteError
from replicator.events import Event, Events, Warned
from replicator.flow.clock import SystemClock
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.ports import Site
from replicator.sites.registry.site import RegistrySite
from replicator.sites.registry.vendors.creation import CreateSettings
from replicator.sites.registry.vendors.known import of_kind
from replicator.state.memory import MemoryState
from tests.fakes.faults import refuse
from tests.fakes.memory import MemorySite
from tests.fakes.s3 import moto_server
from tests.fakes.vendors.dockerhub import DockerHub
from tests.fakes.vendors.ecr import Ecr, EcrPublic
from tests.fakes.vendors.gitlab import TOKEN as PERSONAL
from tests.fakes.vendors.gitlab import GitLab
from tests.fakes.vendors.google import Google
from tests.fakes.vendors.harbor import Harbor
from tests.fakes.vendors.quay import TOKEN, Quay
from tests.fakes.vendors.vendor import VendorRegistry

NAMES: Final = ("one/library/app", "two/library/app", "three/library/app")
SHORT: Final = ("acme/one", "acme/two", "acme/three")
"""For registries whose names have an owner of all, or two parts."""
POLICY: Final = (
    '{"Version": "2012-10-17", "Statement": [{"Sid": "pull", "Effect": "Allow", "Principal": {"AWS":'
    ' "arn:aws:iam::123456789012:root"}, "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]}]}'
)
LIFECYCLE: Final = (
    '{"rules": [{"rulePriority": 1, "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan",'
    ' "countNumber": 100}, "action": {"type": "expire"}}]}'
)
WANTED: Final[Mapping[str, CreateSettings]] = {
    "ecr": CreateSettings(),
    "harbor": CreateSettings(),
    "quay": CreateSettings(is_asked=True, token=lambda: TOKEN),
    "google": CreateSettings(location="europe"),
    "ecr-public": CreateSettings(),
    "gitlab": CreateSettings(is_asked=True, token=lambda: PERSONAL),
    "dockerhub": CreateSettings(is_asked=True, public=False),
}
MISSING: Final[Mapping[str, str]] = {
    "ecr": "needed: ecr:CreateRepository and ecr:TagResource",
    "harbor": "needed: a system-level robot account with the permission to create projects",
    "quay": "needed: the token of an OAuth application with the scope repo:create",
    "google": "needed: artifactregistry.repositories.create",
    "ecr-public": "needed: ecr-public:CreateRepository and ecr-public:TagResource",
    "gitlab": "needed: a token with the scope api",
    "dockerhub": "needed: a personal or organisation access token",
}
API: Final[Mapping[str, str]] = {
    "ecr": r"^/\?$",
    "harbor": r"^/api/v2\.0/projects\?$",
    "quay": r"^/api/v1/repository\?$",
    "google": r"^/v1/projects/.*/repositories",
    "gitlab": r"^/api/v4/projects\?$",
    "dockerhub": r"^/v2/namespaces/[^/]+/repositories\?$",
}

each_vendor = pytest.mark.parametrize(
    "vendor", [Ecr, EcrPublic, Harbor, Quay, Google, GitLab, DockerHub], ids=lambda vendor: vendor.kind
)


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-told")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")


class Brisk(SystemClock):
    """Does not wait; `ahead` are the seconds that it is ahead."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Rig:
    """An empty registry as the destination of three repositories."""

    def __init__(self, fake: VendorRegistry, site: RegistrySite, told: list[Event], clock: Brisk) -> None:
        self.fake = fake
        self.site = site
        self.told = told
        self.clock = clock
        self.memory = MemorySite("memory")
        self.names = SHORT if fake.kind in {"dockerhub", "ecr-public", "gitlab"} else NAMES
        if isinstance(fake, GitLab):
            fake.groups = ["acme"]
        for name in self.names:
            load(self.memory.store, name, "v1", built(name))

    async def sync(self, events: Events) -> DestinationResult:
        sites: Mapping[str, Site] = {"vendor": self.site, "memory": self.memory}
        rule = Rule("rule", "memory", ("vendor",), RepositorySelection((Glob.parse("**"),)))
        clock = SystemClock()
        self.fake.requests.clear()
        engine = Engine(
            sites=sites, state=MemoryState(clock), events=events, clock=clock, spool=None, rules=()
        )
        return (await engine.sync([rule]))[0].destinations[0]

    @property
    def asked(self) -> int:
        """How many requests for creation there were."""
        if isinstance(self.fake, Ecr):
            return sum(operation == "CreateRepository" for operation in self.fake.asked)
        return self.fake.count("POST", API[self.fake.kind])

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.told if isinstance(event, Warned) and "created" in event.text]


def built(name: str) -> BuiltImage:
    return image(name, [layer("shared", 100), layer(name, 50)])


@asynccontextmanager
async def rig(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch, create: CreateSettings | None
) -> AsyncIterator[tuple[Rig, Events]]:
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(vendor())
        fake.units = set()
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", fake.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR_PUBLIC", fake.url)
        events, told = Events(), list[Event]()
        events.subscribe(told.append)
        settings = replace(fake.settings("vendor"), create=create)
        clock = Brisk()
        site = RegistrySite(settings, events=events, clock=clock)
        stack.push_async_callback(site.aclose)
        yield Rig(fake, site, told, clock), events


@each_vendor
async def test_a_cold_sync_creates_what_is_missing_once(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(vendor, monkeypatch, WANTED[vendor.kind]) as (found, events):
        result = await found.sync(events)
        assert (result.totals.tags.copied, result.failures) == (3, [])
        units = {found.fake.unit(name) for name in found.names}
        assert found.fake.units == units
        assert found.asked == 3
        assert len(found.notes) == 3
        assert all(any(unit in note for note in found.notes) for unit in units)

        load(found.memory.store, found.names[0], "v2", built("another"))
        again = await found.sync(events)
        assert (again.totals.tags.copied, again.totals.tags.unchanged, again.failures) == (1, 3, [])
        if not isinstance(found.fake, Ecr):
            assert found.asked == 0
        assert len(found.fake.created) == 3


@each_vendor
async def test_what_exists_costs_no_request_and_is_not_changed(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(vendor, monkeypatch, WANTED[vendor.kind]) as (found, events):
        found.fake.units = None
        for name in found.names:
            load(found.fake.store, name, "v0", built("old"))
        if isinstance(found.fake, Ecr):
            found.fake.units = set(found.names)
        result = await found.sync(events)
        assert (result.totals.tags.copied, result.failures) == (3, [])
        assert (found.asked, found.fake.created, found.notes) == (0, [], [])


@each_vendor
async def test_a_refusal_names_the_missing_right_and_leaves_the_neighbours_alone(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(vendor, monkeypatch, WANTED[vendor.kind]) as (found, events):
        found.fake.forbidden = {found.fake.unit(found.names[1])}
        load(found.memory.store, found.names[1], "v2", built("another"))
        result = await found.sync(events)
        assert result.totals.tags.copied == 2
        assert {failure.repository for failure in result.failures} == {found.names[1]}
        assert all(MISSING[vendor.kind] in failure.cause for failure in result.failures)
        assert all("create repository" in failure.operation for failure in result.failures)
        assert found.asked == 3


@each_vendor
async def test_create_false_creates_nothing(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(vendor, monkeypatch, None) as (found, events):
        result = await found.sync(events)
        assert (result.totals.tags.copied, result.totals.tags.failed) == (0, 3)
        assert (found.asked, found.fake.units) == (0, set())


@each_vendor
async def test_two_writers_create_once(vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(vendor, monkeypatch, WANTED[vendor.kind]) as (found, _):
        repository = found.memory.repository(found.names[0])
        target = found.site.repository(found.names[0])
        blobs = [repository.blob(each) for each in (await repository.read_manifest("v1")).blobs]
        assert len(blobs) == 3
        with contextlib.suppress(SiteError):
            _ = [page async for page in target.tags()]
        async with asyncio.TaskGroup() as group:
            for blob in blobs:
                group.create_task(target.write_blob(blob))
        assert (found.asked, len(found.notes)) == (1, 1)


async def test_repositories_of_one_project_share_its_creation(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(Harbor, monkeypatch, CreateSettings()) as (found, events):
        for name in ("one/a", "one/b", "one/c/d"):
            load(found.memory.store, name, "v1", built(name))
        result = await found.sync(events)
        assert (result.totals.tags.copied, result.failures) == (6, [])
        assert (found.asked, len(found.notes)) == (3, 3)


@each_vendor
async def test_another_agent_that_creates_it_first_is_no_failure(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(vendor, monkeypatch, WANTED[vendor.kind]) as (found, events):
        found.fake.overtaken = True
        result = await found.sync(events)
        assert (result.totals.tags.copied, result.failures, found.notes) == (3, [], [])


# --- settings -----------------------------------------------------------------------------------------------


async def test_ecr_gets_what_the_config_says(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = CreateSettings(
        is_asked=True,
        immutability="IMMUTABLE",
        exclusions=("sha256-*",),
        scan_on_push=True,
        encryption="KMS",
        kms_key="key",
        tags={"team": "platform"},
        policy=POLICY,
        lifecycle=LIFECYCLE,
    )
    async with rig(Ecr, monkeypatch, wanted) as (found, events):
        assert (await found.sync(events)).failures == []
        assert isinstance(found.fake, Ecr)
        kept = found.fake.repositories[NAMES[0]]
        assert kept["imageTagMutability"] == "IMMUTABLE_WITH_EXCLUSION"
        assert kept["imageTagMutabilityExclusionFilters"] == [
            {"filterType": "WILDCARD", "filter": "sha256-*"}
        ]
        assert kept["imageScanningConfiguration"] == {"scanOnPush": True}
        assert kept["encryptionConfiguration"] == {"encryptionType": "KMS", "kmsKey": "key"}
        assert {(tag["Key"], tag["Value"]) for tag in kept["tags"]} == {
            ("team", "platform"),
            ("created-by", "replicator"),
        }
        assert (kept["policyText"], kept["lifecyclePolicyText"]) == (POLICY, LIFECYCLE)
        managing = [operation for operation in found.fake.asked if operation != "DescribeImages"]
        assert sorted(managing) == sorted(
            ["CreateRepository", "SetRepositoryPolicy", "PutLifecyclePolicy"] * 3
        )


async def test_a_repository_that_a_crash_left_without_its_policies_is_completed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = CreateSettings(is_asked=True, policy=POLICY, lifecycle=LIFECYCLE, immutability="IMMUTABLE")
    async with rig(Ecr, monkeypatch, wanted) as (found, events):
        fake = found.fake
        assert isinstance(fake, Ecr)
        fake.denied = {"PutLifecyclePolicy"}
        broken = await found.sync(events)
        assert broken.totals.tags.failed == 3
        assert all("needed: ecr:PutLifecyclePolicy" in failure.cause for failure in broken.failures)

        fake.denied = set()
        fake.asked.clear()
        for name in NAMES:
            load(fake.store, name, "v0", built("old"))
            fake.store.delete_tag(name, "v0")
        fake.repositories[NAMES[1]]["tags"] = []  # somebody else's
        other = RegistrySite(
            replace(fake.settings("vendor"), create=wanted), events=events, clock=SystemClock()
        )
        found.site = other
        try:
            assert (await found.sync(events)).totals.tags.copied == 3
        finally:
            await other.aclose()
        assert fake.repositories[NAMES[0]]["lifecyclePolicyText"] == LIFECYCLE
        assert "lifecyclePolicyText" not in fake.repositories[NAMES[1]]
        assert "CreateRepository" not in fake.asked
        assert fake.asked.count("SetRepositoryPolicy") == 0  # it was set before the crash
        assert fake.asked.count("PutLifecyclePolicy") == 2


async def test_a_creation_template_for_pushes_needs_no_right_to_create(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with rig(Ecr, monkeypatch, CreateSettings()) as (found, events):
        assert isinstance(found.fake, Ecr)
        found.fake.units, found.fake.creates_on_push = None, True
        assert (await found.sync(events)).totals.tags.copied == 3
        assert found.asked == 0


@asynccontextmanager
async def at_moto(monkeypatch: pytest.MonkeyPatch, url: str, wanted: CreateSettings) -> AsyncIterator[Any]:
    """A client of moto's ECR, after a write to a registry that lacks the repository, whatever moto has."""
    async with rig(Ecr, monkeypatch, wanted) as (found, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", url)
        repository, target = found.memory.repository(NAMES[0]), found.site.repository(NAMES[0])
        blob = repository.blob((await repository.read_manifest("v1")).blobs[0])
        with pytest.raises(NotFound, match="NAME_UNKNOWN"):
            await target.write_blob(blob)
        async with AioSession().create_client("ecr", region_name="us-east-1") as client:
            yield client


async def test_moto_creates_completes_what_is_ours_and_keeps_what_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = CreateSettings(
        is_asked=True, immutability="IMMUTABLE", scan_on_push=True, policy=POLICY, lifecycle=LIFECYCLE
    )
    name = {"repositoryName": NAMES[0]}
    with moto_server() as url:
        async with at_moto(monkeypatch, url, wanted) as ecr:
            found = (await ecr.describe_repositories(repositoryNames=[NAMES[0]]))["repositories"][0]
            assert found["imageTagMutability"] == "IMMUTABLE"
            assert found["imageScanningConfiguration"] == {"scanOnPush": True}
            assert json.loads((await ecr.get_repository_policy(**name))["policyText"]) == json.loads(POLICY)
            policy = (await ecr.get_lifecycle_policy(**name))["lifecyclePolicyText"]
            assert json.loads(policy) == json.loads(LIFECYCLE)
            arn = {"resourceArn": found["repositoryArn"]}
            mark = [{"Key": "created-by", "Value": "replicator"}]
            assert (await ecr.list_tags_for_resource(**arn))["tags"] == mark
            await ecr.delete_lifecycle_policy(**name)
            await ecr.put_image_tag_mutability(**name, imageTagMutability="MUTABLE")
        async with at_moto(monkeypatch, url, wanted) as ecr:
            found = (await ecr.describe_repositories(repositoryNames=[NAMES[0]]))["repositories"][0]
            assert found["imageTagMutability"] == "IMMUTABLE"
            assert (await ecr.get_lifecycle_policy(**name))["lifecyclePolicyText"]
            await ecr.delete_lifecycle_policy(**name)
            await ecr.untag_resource(**arn, tagKeys=["created-by"])
        async with at_moto(monkeypatch, url, wanted) as ecr:
            with pytest.raises(ecr.exceptions.LifecyclePolicyNotFoundException):
                await ecr.get_lifecycle_policy(**name)


@pytest.mark.parametrize("public", [True, False])
async def test_harbor_gets_visibility_and_quota(monkeypatch: pytest.MonkeyPatch, public: bool) -> None:  # noqa: FBT001
    wanted = CreateSettings(is_asked=True, public=public, quota=5_000_000)
    async with rig(Harbor, monkeypatch, wanted) as (found, events):
        assert (await found.sync(events)).failures == []
        assert dict(found.fake.created)["one"] == {
            "project_name": "one",
            "metadata": {"public": "true" if public else "false"},
            "storage_limit": 5_000_000,
        }


async def test_quay_gets_visibility_before_the_first_push(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = CreateSettings(is_asked=True, public=True, token=lambda: TOKEN)
    async with rig(Quay, monkeypatch, wanted) as (found, events):
        assert (await found.sync(events)).failures == []
        assert {asked["visibility"] for _, asked in found.fake.created} == {"public"}
        made = next(i for i, entry in enumerate(found.fake.requests) if entry.path == "/api/v1/repository")
        written = next(i for i, entry in enumerate(found.fake.requests) if "/blobs/uploads/" in entry.path)
        assert made < written


async def test_google_gets_immutable_tags_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = CreateSettings(
        is_asked=True, immutability="IMMUTABLE", kms_key="key", tags={"team": "platform"}, location="europe"
    )
    async with rig(Google, monkeypatch, wanted) as (found, events):
        assert (await found.sync(events)).failures == []
        assert dict(found.fake.created)["one/library"] == {
            "format": "DOCKER",
            "labels": {"team": "platform", "created-by": "replicator"},
            "dockerConfig": {"immutableTags": True},
            "kmsKeyName": "key",
        }


async def test_a_failure_that_passes_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(Harbor, monkeypatch, CreateSettings()) as (found, _):
        repository, target = found.memory.repository(NAMES[0]), found.site.repository(NAMES[0])
        blob = repository.blob((await repository.read_manifest("v1")).blobs[0])
        found.fake.fault("POST", r"^/api/v2\.0/projects", refuse(503, "UNAVAILABLE"))
        assert await target.write_blob(blob) == "copied"
        assert found.asked == 2


@each_vendor
async def test_the_first_write_costs_one_request_more_and_the_creation(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(vendor, monkeypatch, WANTED[vendor.kind]) as (found, _):
        repository, target = found.memory.repository(found.names[0]), found.site.repository(found.names[0])
        with contextlib.suppress(SiteError):
            _ = [page async for page in target.tags()]
        blobs = (await repository.read_manifest("v1")).blobs
        assert await target.write_blob(repository.blob(blobs[0])) == "copied"
        comes_first = vendor in {Quay, DockerHub}
        assert found.fake.count("POST", "/blobs/uploads/") == (1 if comes_first else 2)
        assert found.asked == 1
        found.fake.requests.clear()
        assert await target.write_blob(repository.blob(blobs[1])) == "copied"
        assert [entry.method for entry in found.fake.requests if entry.path.startswith("/v2/")] == [
            "POST",
            "PUT",
        ]


async def test_a_token_that_cannot_be_read_fails_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> str:
        raise ConfigError(["site.vendor.create.token: gone"])

    async with rig(Quay, monkeypatch, CreateSettings(is_asked=True, token=unreadable)) as (found, events):
        result = await found.sync(events)
        assert result.totals.tags.failed == 3
        assert all("create.token: gone" in failure.cause for failure in result.failures)


async def test_a_refusal_holds_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(Ecr, monkeypatch, CreateSettings()) as (found, _):
        found.fake.forbidden = set()
        assert isinstance(found.fake, Ecr)
        found.fake.denied = {"CreateRepository"}
        repository, target = found.memory.repository(NAMES[0]), found.site.repository(NAMES[0])
        blob = repository.blob((await repository.read_manifest("v1")).blobs[0])
        for _ in range(3):
            with pytest.raises(SiteError, match="needed: ecr:CreateRepository") as caught:
                await target.write_blob(blob)
            assert isinstance(caught.value, Denied)
        assert found.asked == 1
        found.clock.ahead += 3601
        found.fake.denied = set()
        assert await target.write_blob(blob) == "copied"
        assert found.asked == 2


async def test_what_was_created_and_is_gone_again_is_created_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(Harbor, monkeypatch, CreateSettings()) as (found, _):
        repository, target = found.memory.repository(NAMES[0]), found.site.repository(NAMES[0])
        blobs = (await repository.read_manifest("v1")).blobs
        assert await target.write_blob(repository.blob(blobs[0])) == "copied"
        found.fake.units = set()
        found.clock.ahead += 61
        assert await target.write_blob(repository.blob(blobs[1])) == "copied"
        assert found.asked == 2


async def test_what_is_there_and_refuses_all_writes_is_not_created_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with rig(Quay, monkeypatch, WANTED["quay"]) as (found, _):
        repository, target = found.memory.repository(NAMES[0]), found.site.repository(NAMES[0])
        found.fake.units = {NAMES[0]}
        found.fake.fault("POST", "/blobs/uploads/", refuse(401, "UNAUTHORIZED"), times=None)
        for blob in (await repository.read_manifest("v1")).blobs:
            with pytest.raises(AuthFailed, match="start upload"):
                await target.write_blob(repository.blob(blob))
            found.clock.ahead += 61
        assert found.asked == 1


@pytest.mark.parametrize(
    ("kind", "host", "repository", "unit"),
    [
        ("google", "europe-docker.pkg.dev", "acme/team/app/web", "acme/team"),
        ("google", "europe-docker.pkg.dev", "example.com/acme/team/app", "example.com:acme/team"),
        ("google", "europe-docker.pkg.dev", "acme/team", None),
        ("google", "eu.gcr.io", "acme/team/app", None),
        ("harbor", "h", "team/app/web", "team"),
        ("harbor", "h", "app", None),
        ("ecr-public", "public.ecr.aws", "acme/app", "acme/app"),
        ("ecr-public", "public.ecr.aws", "app", None),
        ("dockerhub", "registry-1.docker.io", "acme/team/app", None),
    ],
)
def test_units(kind: str, host: str, repository: str, unit: str | None) -> None:
    way = of_kind(kind).creation
    assert way is not None
    assert way.unit(host, repository) == unit


async def test_gitlab_creates_no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(GitLab, monkeypatch, WANTED["gitlab"]) as (found, events):
        assert isinstance(found.fake, GitLab)
        found.fake.groups = []
        result = await found.sync(events)
        assert result.totals.tags.failed == 3
        assert all("group acme does not exist" in failure.cause for failure in result.failures)


async def test_without_a_way_to_create_the_write_fails_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(Ecr, monkeypatch, None) as (found, _):
        repository, target = found.memory.repository(NAMES[0]), found.site.repository(NAMES[0])
        with pytest.raises(NotFound, match="NAME_UNKNOWN"):
            await target.write_blob(repository.blob((await repository.read_manifest("v1")).blobs[0]))


# --- check --------------------------------------------------------------------------------------------------


@each_vendor
async def test_check_says_what_a_run_would_create(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(vendor, monkeypatch, WANTED[vendor.kind]) as (found, _):
        told = await found.site.check(push=found.names[0])
        findings = dict(told.findings)
        way = of_kind(vendor.kind).creation
        assert way is not None
        assert findings["create"] == f"a missing {way.what}, by {way.how}"
        if vendor is not DockerHub:  # a push creates it
            unit = found.fake.unit(found.names[0])
            assert findings[f"push {found.names[0]}"].startswith(
                f"not yet: a run creates the {way.what} {unit}"
            )
        assert (found.asked, found.fake.created) == (0, [])


async def test_check_says_that_nothing_is_created(monkeypatch: pytest.MonkeyPatch) -> None:
    for vendor, create, expected in (
        (Ecr, None, "no, as the config says"),
        (Quay, CreateSettings(), "no; the config has no create with token"),
    ):
        async with rig(vendor, monkeypatch, create) as (found, _):
            told = await found.site.check(push=NAMES[0])
            assert dict(told.findings)["create"] == expected
            assert any(NAMES[0] in problem for problem in told.problems)
