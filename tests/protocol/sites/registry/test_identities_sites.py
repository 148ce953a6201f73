"""Registries used with what each vendor's users have: identities of clouds, robots, tokens; and what `check` says of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from replicator.demo.images import image, load
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.sites.registry.identity.settings import (
    AcrIdentity,
    EcrIdentity,
    GitHubIdentity,
    GoogleIdentity,
    Identity,
)
from replicator.sites.registry.settings import Login
from replicator.sites.registry.site import RegistrySite
from tests.fakes.auth import Bearer
from tests.fakes.aws import Aws
from tests.fakes.clouds import APPLICATION, TENANT, Clouds
from tests.fakes.scripted import scripted
from tests.fakes.vendors.acr import Acr
from tests.fakes.vendors.artifactory import Artifactory
from tests.fakes.vendors.dockerhub import DockerHub
from tests.fakes.vendors.ecr import Ecr
from tests.fakes.vendors.ghcr import Ghcr
from tests.fakes.vendors.gitea import Gitea
from tests.fakes.vendors.gitlab import GitLab
from tests.fakes.vendors.google import Google
from tests.fakes.vendors.harbor import Harbor
from tests.fakes.vendors.quay import Quay
from tests.fakes.vendors.vendor import PASSWORD, VendorRegistry

BUILT = image("a")


@dataclass
class World:
    fake: VendorRegistry
    site: RegistrySite

    async def tags(self) -> dict[str, str]:
        """By the registry, whatever the vendor's API says."""
        repository = self.site.repository(self.fake.repository)
        names = [tag async for page in repository.tags() for tag in page]
        return {tag: (await repository.resolve(tag)).digest for tag in names}

    async def found(self) -> dict[str, str]:
        return dict((await self.site.check(repositories=[self.fake.repository])).findings)


@asynccontextmanager
async def world(fake: VendorRegistry, who: Login | Identity) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        if fake.url == "":
            await stack.enter_async_context(fake)
        load(fake.store, fake.repository, "v1", BUILT)
        settings = fake.settings("vendor")
        if isinstance(who, Login):
            settings = replace(settings, login=who)
        else:
            settings = replace(settings, login=None, identity=who)
        site = RegistrySite(settings, events=Events(), clock=SystemClock())
        stack.push_async_callback(site.aclose)
        yield World(fake, site)


# --- identities of clouds ---


class Exchanging(Acr):
    """Answers the exchange to whoever asks."""

    api = r"/oauth2/exchange"


class Azure:
    """The registry's own part of the exchange: a token of Entra for a refresh token, which `/token` takes."""

    def __init__(self, clouds: Clouds) -> None:
        self._clouds = clouds
        self.fake: Acr | None = None

    @web.middleware
    async def quirk(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != "/oauth2/exchange":
            return await handler(request)
        answer = await self._clouds(request)
        tokens = self.fake.tokens if self.fake is not None else None
        assert isinstance(tokens, Bearer)
        if answer.status == 200:
            assert isinstance(answer.text, str)
            tokens.refresh_tokens[answer.text.split('"')[3]] = "application"
        return answer


@pytest.mark.parametrize(
    "secret", ["s3cret-of-the-application", "wrong-s3cret-indeed"], ids=["good", "refused"]
)
async def test_acr_by_an_application(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clouds = Clouds(SystemClock().now)
    azure = Azure(clouds)
    async with scripted(clouds) as server, Exchanging(azure.quirk) as fake:
        azure.fake = fake
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", server.url)
        async with world(fake, AcrIdentity(TENANT, APPLICATION, lambda: secret)) as w:
            if secret == clouds.secret:
                assert await w.tags() == {"v1": BUILT.digest}
                found = await w.found()
                assert found["credentials"] == f"good: application {APPLICATION} of tenant {TENANT}"
                assert {grant.grant_type for grant in fake.tokens.grants} == {"refresh_token"}  # type: ignore[attr-defined]
                return
            found = await w.found()
            assert "AADSTS7000215" in found["credentials"]
            assert (
                "needed: an application that exists, and a secret or federation of it" in found["credentials"]
            )
            assert secret not in str(found)


@pytest.mark.parametrize("denied", [set(), {"GetAuthorizationToken"}], ids=["good", "refused"])
async def test_ecr_by_a_user(denied: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "AKIAUSER"), ("SECRET_ACCESS_KEY", "s"), ("REGION", "eu-west-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    async with scripted(Aws()) as server, Ecr() as fake:
        fake.denied = denied
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", fake.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
        async with world(fake, EcrIdentity()) as w:
            if not denied:
                assert await w.tags() == {"v1": BUILT.digest}
                assert (await w.found())["credentials"] == "good: arn:aws:iam::123456789012:user/AKIAUSER"
                return
            found = await w.found()
            assert "AccessDeniedException" in found["credentials"]
            assert "needed: ecr:GetAuthorizationToken" in found["credentials"]


@pytest.mark.parametrize("is_good", [True, False], ids=["good", "refused"])
async def test_google_by_its_machine(monkeypatch: pytest.MonkeyPatch, *, is_good: bool) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    clouds = Clouds(SystemClock().now, failing=0 if is_good else 403)
    async with scripted(clouds) as server, Google() as fake:
        monkeypatch.setenv("GCE_METADATA_HOST", server.url.removeprefix("http://"))
        assert isinstance(fake.tokens, Bearer)
        fake.tokens.users = {"oauth2accesstoken": "vm-1"}
        async with world(fake, GoogleIdentity()) as w:
            if is_good:
                assert await w.tags() == {"v1": BUILT.digest}
                assert (await w.found())["credentials"] == "good: the machine's service account"
                return
            assert "with roles/artifactregistry.reader" in (await w.found())["credentials"]


@pytest.mark.parametrize("is_good", [True, False], ids=["good", "refused"])
async def test_ghcr_by_an_app(tmp_path: Path, *, is_good: bool) -> None:
    clouds = Clouds(SystemClock().now, failing=0 if is_good else 404)
    async with scripted(clouds) as server, Ghcr() as fake:
        assert isinstance(fake.tokens, Bearer)
        fake.tokens.users = {"x-access-token": "ghs_99_1"}
        async with world(fake, GitHubIdentity("4711", "99", lambda: clouds.key.private, server.url)) as w:
            if is_good:
                assert await w.tags() == {"v1": BUILT.digest}
                assert (await w.found())["credentials"] == "good: installation 99 of GitHub App 4711"
                return
            assert "with the permission packages: read" in (await w.found())["credentials"]


# --- robots and tokens ---

STATIC = [
    (Quay, "team+mirror"),
    (Harbor, "robot$team+mirror"),
    (GitLab, "gitlab+deploy-token-7"),
    (GitLab, "gitlab-ci-token"),
    (Ghcr, "octocat"),
    (Acr, "myregistry"),
    (Acr, "scoped-token"),
    (DockerHub, "acme"),
    (Artifactory, "mirror@acme.example"),
    (Gitea, "mirror"),
]


@pytest.mark.parametrize(("vendor", "user"), STATIC, ids=lambda value: getattr(value, "kind", value))
async def test_robots_and_tokens_are_a_user_and_a_password(vendor: type[VendorRegistry], user: str) -> None:
    fake = vendor()
    if isinstance(fake.tokens, Bearer):
        fake.tokens.users = {user: PASSWORD}
    async with fake:
        async with world(fake, Login(user, lambda: PASSWORD)) as w:
            assert await w.tags() == {"v1": BUILT.digest}
            assert (await w.found())["credentials"] == "good"
        async with world(fake, Login(user, lambda: "another-s3cret")) as w:
            found = await w.found()
            assert found["credentials"].startswith("no: ")
            assert "another-s3cret" not in str(found)


async def test_a_robot_of_quay_lists_by_the_standard_what_is_private() -> None:
    """Its API is not for robots, who would be refused with a password of theirs."""
    async with Quay() as fake:
        assert isinstance(fake.tokens, Bearer)
        fake.tokens.users = {"team+mirror": PASSWORD}
        async with world(fake, Login("team+mirror", lambda: PASSWORD)) as w:
            found = await w.found()
            assert found["pull team/app"] == "yes"
            assert found["digests"].startswith(
                "one request a tag: vendor: Quay's API is of no use for team/app"
            )
        assert {one.headers.get("Authorization") for one in fake.find(target="/api/v1/")} == {None}


async def test_a_refresh_token_is_exchanged_for_each_token() -> None:
    async with GitLab() as fake:
        assert isinstance(fake.tokens, Bearer)
        fake.tokens.refresh_tokens = {"refresh-token-of-me": "me"}
        async with world(fake, Login(identity_token=lambda: "refresh-token-of-me")) as w:
            assert await w.tags() == {"v1": BUILT.digest}
            assert {grant.grant_type for grant in fake.tokens.grants} == {"refresh_token"}
        async with world(fake, Login(identity_token=lambda: "withdrawn-token-of-me")) as w:
            found = await w.found()
            assert found["credentials"].startswith("no: ")
            assert "withdrawn-token-of-me" not in str(found)
