from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from aiobotocore.session import AioSession
from aiohttp import web

from replicator.errors import AuthFailed, ConfigError, Unavailable
from replicator.events import CredentialsRenewed, Event, Events, Warned
from replicator.flow.limits import SiteLimits
from replicator.flow.settings import LimitSettings
from replicator.sites.registry.credentials import Credentials
from replicator.sites.registry.http import Call, Transport
from replicator.sites.registry.identity.aws import EcrHost, EcrIssuer, parse_host
from replicator.sites.registry.identity.azure import AcrIssuer
from replicator.sites.registry.identity.github import GitHubIssuer
from replicator.sites.registry.identity.google import GoogleIssuer
from replicator.sites.registry.identity.renewed import RenewedLogins
from replicator.sites.registry.identity.settings import (
    AcrIdentity,
    EcrIdentity,
    GitHubIdentity,
    GoogleIdentity,
)
from replicator.sites.registry.identity.source import Issued, NoIdentity
from replicator.sites.registry.settings import RegistrySettings
from replicator.sites.registry.vendors.known import by_host
from tests.fakes.clock import FakeClock
from tests.fakes.clouds import APPLICATION, TENANT, Clouds
from tests.fakes.s3 import moto_server
from tests.fakes.scripted import QUICK, Scripted, scripted

HOUR = 3600.0


# --- renewal ------------------------------------------------------------------------------------------------


class Issuer:
    """Issues numbered passwords that live for an hour, or raises what it is told to."""

    def __init__(self) -> None:
        self.count = 0
        self.failure: Exception | None = None

    async def issue(self) -> Issued:
        if self.failure is not None:
            raise self.failure
        self.count += 1
        return Issued(Credentials("AWS", f"password-{self.count}"), HOUR)

    async def owner(self) -> str:
        return f"user of password {self.count}"


@dataclass
class Renewing:
    logins: RenewedLogins
    issuer: Issuer
    clock: FakeClock
    told: list[Event]

    async def password(self) -> str:
        found = await self.logins.find("app")
        assert found is not None
        return found.password


@pytest.fixture
async def renewing() -> AsyncIterator[Renewing]:
    issuer, clock, events = Issuer(), FakeClock(), Events()
    told: list[Event] = []
    events.subscribe(told.append)
    logins = RenewedLogins("ecr", issuer, first=None, is_optional=False, events=events, clock=clock)
    yield Renewing(logins, issuer, clock, told)
    await logins.aclose()


async def test_credentials_are_asked_for_once_and_renewed_at_half_of_their_life(renewing: Renewing) -> None:
    assert [await renewing.password() for _ in range(5)] == ["password-1"] * 5
    await renewing.clock.sleep(HOUR / 2 + 1)
    assert await renewing.password() == "password-2"
    assert renewing.issuer.count == 2
    assert [e.outcome for e in renewing.told if isinstance(e, CredentialsRenewed)] == ["ok", "ok"]


async def test_a_renewal_that_fails_keeps_the_old_credentials_until_they_end(renewing: Renewing) -> None:
    await renewing.password()
    renewing.issuer.failure = Unavailable("ecr", "get credentials", "sts.amazonaws.com: timed out")
    await renewing.clock.sleep(HOUR - 10)
    assert await renewing.password() == "password-1"
    failed = [e for e in renewing.told if isinstance(e, CredentialsRenewed) and e.outcome == "failed"]
    assert len(failed) >= 2
    assert all(e.expires_at == failed[0].expires_at for e in failed)
    assert "timed out" in next(e.text for e in renewing.told if isinstance(e, Warned))
    await renewing.clock.sleep(20)
    with pytest.raises(Unavailable, match="timed out"):
        await renewing.password()
    renewing.issuer.failure = None
    assert await renewing.password() == "password-2"


async def test_credentials_that_are_refused_are_issued_anew_but_not_in_a_storm(renewing: Renewing) -> None:
    await renewing.password()
    for _ in range(10):
        renewing.logins.forget()
        assert await renewing.password() == "password-1"
    renewing.clock.advance(120)
    renewing.logins.forget()
    assert await renewing.password() == "password-2"


async def test_the_renewal_ends_when_a_request_of_it_dropped_the_cancellation(renewing: Renewing) -> None:
    """As aiohappyeyeballs does with one that comes together with the connection."""
    asked, plain = asyncio.Event(), renewing.issuer.issue

    async def issue() -> Issued:
        renewing.issuer.issue = forever  # type: ignore[method-assign]
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await plain()
        raise AssertionError("unreachable")

    async def forever() -> Issued:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    await renewing.password()
    renewing.issuer.issue = issue  # type: ignore[method-assign]
    await renewing.clock.sleep(HOUR / 2 + 1)
    await asked.wait()
    ending = asyncio.create_task(renewing.logins.aclose())
    await asyncio.wait({ending}, timeout=20)
    assert ending.done()


async def test_no_identity_is_a_failure_that_says_where_it_was_looked(renewing: Renewing) -> None:
    renewing.issuer.failure = NoIdentity("no AWS credentials: looked at the environment")
    with pytest.raises(AuthFailed, match=r"ecr.*no AWS credentials: looked at the environment"):
        await renewing.password()


class Docker:
    """Logins of docker's files that name a helper which is not installed, or have an entry."""

    def __init__(self, found: Credentials | None, failure: str = "") -> None:
        self.found, self.failure = found, failure

    async def find(self, repository: str | None) -> Credentials | None:
        if self.failure:
            raise ConfigError([self.failure])
        return self.found

    def forget(self) -> None:
        pass

    async def owner(self) -> str:
        return ""

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    ("docker", "expected"),
    [
        (Docker(Credentials("me", "mine")), "mine"),
        (Docker(None), "password-1"),
        (Docker(None, "docker-credential-ecr-login: not found"), "password-1"),
    ],
    ids=["entry", "nothing", "helper that is not installed"],
)
async def test_dockers_files_come_first(docker: Docker, expected: str) -> None:
    logins = RenewedLogins(
        "ecr", Issuer(), first=docker, is_optional=False, events=Events(), clock=FakeClock()
    )
    found = await logins.find("app")
    assert found is not None
    assert found.password == expected
    await logins.aclose()


async def test_a_helper_that_fails_is_named_where_there_is_no_identity_either() -> None:
    issuer = Issuer()
    issuer.failure = NoIdentity("nothing")
    docker = Docker(None, "docker-credential-ecr-login: not found")
    logins = RenewedLogins("ecr", issuer, first=docker, is_optional=True, events=Events(), clock=FakeClock())
    with pytest.raises(ConfigError, match="docker-credential-ecr-login"):
        await logins.find("app")


async def test_public_registries_are_used_anonymously_without_an_identity() -> None:
    issuer = Issuer()
    issuer.failure = NoIdentity("nothing")
    logins = RenewedLogins("gcr", issuer, first=None, is_optional=True, events=Events(), clock=FakeClock())
    assert [await logins.find("app"), await logins.find("other")] == [None, None]


# --- hosts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", EcrHost("123456789012", "eu-central-1")),
        (
            "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
            EcrHost("123456789012", "us-gov-west-1", True),
        ),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", EcrHost("123456789012", "cn-north-1")),
        ("123456789012.dkr-ecr.us-west-2.on.aws", EcrHost("123456789012", "us-west-2")),
        ("123456789012.dkr-ecr-fips.us-east-2.on.aws", EcrHost("123456789012", "us-east-2", True)),
        ("public.ecr.aws", EcrHost("", "us-east-1")),
        ("12345.dkr.ecr.eu-central-1.amazonaws.com", None),
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com.evil.example", None),
    ],
)
def test_ecr_host(host: str, expected: EcrHost | None) -> None:
    assert parse_host(host) == expected


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", EcrIdentity),
        ("public.ecr.aws", EcrIdentity),
        ("acme.azurecr.io", AcrIdentity),
        ("acme.azurecr.cn", AcrIdentity),
        ("europe-docker.pkg.dev", GoogleIdentity),
        ("eu.gcr.io", GoogleIdentity),
        ("gcr.io", GoogleIdentity),
        ("ghcr.io", type(None)),
        ("s3.amazonaws.com", type(None)),
        ("evilazurecr.io", type(None)),
        ("registry.example.com", type(None)),
    ],
)
def test_host_implies_identity(host: str, kind: type) -> None:
    vendor = by_host(host)
    assert type(vendor.identity if vendor else None) is kind


# --- AWS, against moto --------------------------------------------------------------------------------------


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    with moto_server() as url:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA0000000000000000")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
        yield


ECR = EcrHost("123456789012", "eu-central-1")


@pytest.mark.usefixtures("aws")
async def test_ecr_issues_a_password_for_twelve_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    issuer = EcrIssuer("ecr", ECR, EcrIdentity(), clock)
    issued = await issuer.issue()
    assert issued.credentials.username == "AWS"
    assert issued.credentials.password
    assert issued.lifetime >= 60
    assert (await issuer.owner()).startswith("arn:aws:")


@pytest.mark.usefixtures("aws")
async def test_ecr_assumes_a_role() -> None:
    async with AioSession().create_client("iam", region_name="us-east-1") as iam:
        policy = {"Version": "2012-10-17", "Statement": []}
        role = await iam.create_role(RoleName="mirror", AssumeRolePolicyDocument=json.dumps(policy))
    identity = EcrIdentity(role_arn=role["Role"]["Arn"], external_id="partner")
    issuer = EcrIssuer("ecr", ECR, identity, FakeClock())
    await issuer.issue()
    assert "assumed-role/mirror/replicator" in await issuer.owner()


async def test_ecr_without_an_identity_says_where_it_was_looked(
    aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(NoIdentity, match=r"web identity.*instance"):
        await EcrIssuer("ecr", ECR, EcrIdentity(), FakeClock()).issue()


@pytest.mark.usefixtures("aws")
async def test_a_profile_that_does_not_exist_is_named() -> None:
    with pytest.raises(AuthFailed, match="prod-mirror"):
        await EcrIssuer("ecr", ECR, EcrIdentity(profile="prod-mirror"), FakeClock()).issue()


async def test_a_refusal_names_the_right_that_is_missing(monkeypatch: pytest.MonkeyPatch, aws: None) -> None:
    async def answer(request: web.Request) -> web.Response:
        said = {"__type": "AccessDeniedException", "message": "User is not authorized to perform: ecr:Get..."}
        return web.json_response(said, status=400)

    async with scripted(answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(AuthFailed, match=r"AccessDeniedException.*needed: ecr:GetAuthorizationToken"):
            await EcrIssuer("ecr", ECR, EcrIdentity(), FakeClock()).issue()


async def test_ecr_public_answers_with_an_object(monkeypatch: pytest.MonkeyPatch, aws: None) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("X-Amz-Target") != "SpencerFrontendService.GetAuthorizationToken":
            return web.Response(status=403)  # sts:GetCallerIdentity is not allowed
        token = base64.b64encode(b"AWS:public").decode()
        data = {"authorizationToken": token, "expiresAt": 1_700_043_200.0}
        return web.json_response({"authorizationData": data})

    async with scripted(answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        issuer = EcrIssuer("pub", EcrHost("", "us-east-1"), EcrIdentity(), FakeClock())
        issued = await issuer.issue()
        assert "may not ask who it is" in await issuer.owner()
    assert issued.credentials == Credentials("AWS", "public")
    assert issued.lifetime == pytest.approx(12 * HOUR)


async def test_ecr_asks_no_more_than_it_needs(monkeypatch: pytest.MonkeyPatch, aws: None) -> None:
    """One role and one password for hours; who it is only for whoever wants to know."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        if (target := request.headers.get("X-Amz-Target")) is not None:
            asked.append(target.rpartition(".")[2])
            token = base64.b64encode(b"AWS:p").decode()
            return web.json_response(
                {"authorizationData": [{"authorizationToken": token, "expiresAt": 1_700_043_200.0}]}
            )
        action = dict(parse_qsl(await request.text()))["Action"]
        asked.append(action)
        made = "<AccessKeyId>A</AccessKeyId><SecretAccessKey>secret-key</SecretAccessKey><SessionToken>session</SessionToken>"
        body = f"<{action}Response><{action}Result><Arn>arn:aws:sts::1:x</Arn><Credentials>{made}</Credentials></{action}Result></{action}Response>"
        return web.Response(text=body, content_type="text/xml")

    async with scripted(answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        identity = EcrIdentity(role_arn="arn:aws:iam::123456789012:role/mirror")
        issuer = EcrIssuer("ecr", ECR, identity, FakeClock())
        await issuer.issue()
        assert asked == ["AssumeRole", "GetAuthorizationToken"]
        assert await issuer.owner() == "arn:aws:sts::1:x"
    assert asked == ["AssumeRole", "GetAuthorizationToken", "GetCallerIdentity"]


# --- Azure --------------------------------------------------------------------------------------------------


@dataclass
class Cloud:
    clouds: Clouds
    server: Scripted
    clock: FakeClock


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    clock = FakeClock()
    clouds = Clouds(clock.now)
    async with scripted(clouds) as server:
        yield Cloud(clouds, server, clock)


def acr(cloud: Cloud, identity: AcrIdentity, **environ: str) -> AcrIssuer:
    url = cloud.server.url
    variables = {"AZURE_AUTHORITY_HOST": url, "AZURE_POD_IDENTITY_AUTHORITY_HOST": url} | environ
    return AcrIssuer("acr", url, "acme.azurecr.io", identity, cloud.clock, variables)


async def test_acr_exchanges_the_token_of_an_application(cloud: Cloud) -> None:
    identity = AcrIdentity(TENANT, APPLICATION, lambda: cloud.clouds.secret)
    issued = await acr(cloud, identity).issue()
    assert issued.credentials.identity_token.count(".") == 2
    assert issued.lifetime == pytest.approx(HOUR)
    assert cloud.clouds.asked[-1][1] == {
        "grant_type": "access_token",
        "service": "acme.azurecr.io",
        "access_token": "entra-application",
        "tenant": TENANT,
    }


async def test_acr_takes_a_workload_identity_from_the_environment(cloud: Cloud, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{cloud.clouds.assertion}\n")
    issuer = acr(
        cloud,
        AcrIdentity(),
        AZURE_TENANT_ID=TENANT,
        AZURE_CLIENT_ID=APPLICATION,
        AZURE_FEDERATED_TOKEN_FILE=str(token),
    )
    await issuer.issue()
    assert await issuer.owner() == f"application {APPLICATION} of tenant {TENANT}"


async def test_acr_takes_a_managed_identity(cloud: Cloud) -> None:
    issuer = acr(cloud, AcrIdentity(client_id="user-assigned"))
    await issuer.issue()
    assert await issuer.owner() == "managed identity user-assigned"
    assert cloud.clouds.asked[0][1]["client_id"] == "user-assigned"


@pytest.fixture
def app_service(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container app with an identity, which `azure-identity` finds and we ourselves do not."""
    for name in [name for name in os.environ if name.startswith(("AZURE_", "MSI_", "IDENTITY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{cloud.server.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", cloud.clouds.secret)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")


@pytest.mark.usefixtures("app_service")
async def test_acr_takes_what_azures_library_finds(cloud: Cloud) -> None:
    issuer = acr(cloud, AcrIdentity())
    issued = await issuer.issue()
    assert issued.credentials.identity_token.count(".") == 2
    assert await issuer.owner() == "Azure's default credential"
    assert [path for path, _ in cloud.clouds.asked] == ["/msi/token", "/oauth2/exchange"]
    assert cloud.clouds.asked[-1][1]["access_token"] == "entra-app-service"


@pytest.mark.usefixtures("app_service")
async def test_acr_says_what_azures_library_said(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_HEADER", "another")
    with pytest.raises(AuthFailed, match=r"azure-identity: .*needed: the role AcrPull"):
        await acr(cloud, AcrIdentity()).issue()
    assert [path for path, _ in cloud.clouds.asked] == ["/msi/token"]


@pytest.mark.usefixtures("app_service")
async def test_acr_is_used_anonymously_where_azures_library_finds_no_identity(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IDENTITY_ENDPOINT")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    with pytest.raises(NoIdentity, match="azure-identity"):
        await acr(cloud, AcrIdentity()).issue()
    logins = RenewedLogins(
        "acr", acr(cloud, AcrIdentity()), first=None, is_optional=True, events=Events(), clock=cloud.clock
    )
    assert await logins.find("app") is None
    await logins.aclose()
    assert cloud.clouds.asked == []


async def test_acr_without_azures_library_asks_the_machine(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    issuer = acr(cloud, AcrIdentity())
    await issuer.issue()
    assert await issuer.owner() == "the machine's managed identity"
    assert [path for path, _ in cloud.clouds.asked] == ["/metadata/identity/oauth2/token", "/oauth2/exchange"]


async def test_acr_without_any_identity_says_where_it_was_looked(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    environ = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:1"}
    with pytest.raises(NoIdentity, match=r"no Azure identity.*no\n? ?metadata server"):
        await acr(cloud, AcrIdentity(), **environ).issue()


async def test_acr_says_what_entra_said_and_not_the_secret(cloud: Cloud) -> None:
    identity = AcrIdentity(TENANT, APPLICATION, lambda: "wrong-s3cret-indeed")
    with pytest.raises(AuthFailed, match="AADSTS7000215") as raised:
        await acr(cloud, identity).issue()
    assert "wrong-s3cret-indeed" not in str(raised.value)


async def test_acr_names_a_federated_token_that_is_missing(cloud: Cloud, tmp_path: Path) -> None:
    identity = AcrIdentity(TENANT, APPLICATION, assertion_file=tmp_path / "absent")
    with pytest.raises(ConfigError, match="absent: No such file or directory"):
        await acr(cloud, identity).issue()


# --- Google -------------------------------------------------------------------------------------------------


def key_file(cloud: Cloud, folder: Path, **fields: str) -> Path:
    file = folder / "key.json"
    key = {
        "type": "service_account",
        "client_email": "mirror@acme.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": cloud.clouds.key.private,
        "token_uri": f"{cloud.server.url}/token",
    }
    file.write_text(json.dumps(key | fields))
    return file


async def test_google_takes_the_key_of_a_service_account(cloud: Cloud, tmp_path: Path) -> None:
    identity = GoogleIdentity(key_file(cloud, tmp_path))
    issued = await GoogleIssuer("gar", identity, cloud.clock, {}).issue()
    assert issued == Issued(Credentials("oauth2accesstoken", "ya29-1"), HOUR)


async def test_google_finds_the_key_by_the_environment(cloud: Cloud, tmp_path: Path) -> None:
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(key_file(cloud, tmp_path))}
    issuer = GoogleIssuer("gar", GoogleIdentity(), cloud.clock, environ)
    await issuer.issue()
    assert await issuer.owner() == "mirror@acme.iam.gserviceaccount.com"


async def test_google_asks_the_metadata_server(cloud: Cloud) -> None:
    environ = {"GCE_METADATA_HOST": cloud.server.url.removeprefix("http://")}
    issued = await GoogleIssuer("gar", GoogleIdentity(), cloud.clock, environ).issue()
    assert (issued.credentials.password, issued.lifetime) == ("vm-1", HOUR)


async def test_google_impersonates(cloud: Cloud, tmp_path: Path) -> None:
    identity = GoogleIdentity(key_file(cloud, tmp_path), impersonate="reader@acme.iam.gserviceaccount.com")
    issuer = GoogleIssuer("gar", identity, cloud.clock, {}, f"{cloud.server.url}/impersonate")
    issued = await issuer.issue()
    assert issued.credentials.password == "as-reader@acme.iam.gserviceaccount.com"
    assert issued.lifetime == pytest.approx(HOUR)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"private_key": "not a key"}, "private_key is not a PEM key"),
        ({"token_uri": 5}, "lacks client_email, private_key or token_uri"),
    ],
)
async def test_google_names_what_is_wrong_with_a_key(
    cloud: Cloud, tmp_path: Path, fields: dict[str, str], problem: str
) -> None:
    identity = GoogleIdentity(key_file(cloud, tmp_path, **fields))
    with pytest.raises(ConfigError, match=problem):
        await GoogleIssuer("gar", identity, cloud.clock, {}).issue()


async def test_google_without_an_identity_says_where_it_was_looked(cloud: Cloud) -> None:
    environ = {"GCE_METADATA_HOST": "127.0.0.1:1"}
    with pytest.raises(NoIdentity, match=r"no metadata server.*key_file"):
        await GoogleIssuer("gar", GoogleIdentity(), cloud.clock, environ).issue()


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_token_service_that_fails_for_a_moment_is_not_a_refusal(
    cloud: Cloud, tmp_path: Path, status: int
) -> None:
    cloud.clouds.failing = status
    with pytest.raises(Unavailable, match=str(status)):
        await GoogleIssuer("gar", GoogleIdentity(key_file(cloud, tmp_path)), cloud.clock, {}).issue()


# --- GitHub -------------------------------------------------------------------------------------------------


async def test_github_app_gets_the_token_of_its_installation(cloud: Cloud) -> None:
    identity = GitHubIdentity("4711", "99", lambda: cloud.clouds.key.private, cloud.server.url)
    issued = await GitHubIssuer("ghcr", identity, cloud.clock).issue()
    assert issued.credentials == Credentials("x-access-token", "ghs_99_1")
    assert issued.lifetime == pytest.approx(HOUR)


async def test_github_app_with_another_key_is_told(cloud: Cloud) -> None:
    identity = GitHubIdentity("4711", "99", lambda: "nonsense", cloud.server.url)
    with pytest.raises(ConfigError, match=r"site\.ghcr\.auth\.private_key"):
        await GitHubIssuer("ghcr", identity, cloud.clock).issue()


# --- a registry ---------------------------------------------------------------------------------------------


async def test_requests_of_many_hours_never_notice_a_renewal(cloud: Cloud, tmp_path: Path) -> None:
    """A registry that takes Basic, and only passwords that have not expired, as ECR does."""
    clock = cloud.clock
    refused: list[str] = []

    async def registry(request: web.Request) -> web.Response:
        authorization = request.headers.get("Authorization", "")
        if not authorization:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="ecr"'})
        password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")[2]
        number = int(password.removeprefix("ya29-"))
        if (
            number < cloud.clouds.issued - 1
        ):  # each lives for an hour, and half an hour later there is a newer one
            refused.append(password)
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="ecr"'})
        return web.json_response({})

    events = Events()
    async with scripted(registry, ping=False) as server:
        settings = RegistrySettings(
            "gar", server.url, identity=GoogleIdentity(key_file(cloud, tmp_path)), proxy=""
        )
        limits = SiteLimits("gar", LimitSettings(), events=events, clock=clock)
        transport = Transport(settings, limits=limits, events=events, clock=clock, budget=QUICK)
        call = Call("read manifest", "GET", "/v2/a/manifests/x", repository="a")
        for _ in range(24):
            await transport.request(call)
            await clock.sleep(HOUR / 4)
        await transport.aclose()
    assert refused == []
    assert len(server.to("/v2/a/")) == 24
    assert 11 <= cloud.clouds.issued <= 13
    assert await transport.owner() == "mirror@acme.iam.gserviceaccount.com"


async def test_google_federates_a_workload_identity_by_its_library(cloud: Cloud, tmp_path: Path) -> None:
    """An OIDC token of another cloud, exchanged at a security token service (extra `google`)."""
    token = tmp_path / "oidc"
    token.write_text("oidc-token-of-another-cloud")
    document = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/o",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{cloud.server.url}/sts",
        "credential_source": {"file": str(token)},
    }
    file = tmp_path / "federation.json"
    file.write_text(json.dumps(document))
    issuer = GoogleIssuer("gar", GoogleIdentity(file), cloud.clock, {})
    issued = await issuer.issue()
    assert issued.credentials == Credentials("oauth2accesstoken", "sts-oidc-token-of-another-cloud")
    assert await issuer.owner() == f"external_account of {file}"


async def test_google_names_a_type_of_credentials_that_nobody_knows(cloud: Cloud, tmp_path: Path) -> None:
    identity = GoogleIdentity(key_file(cloud, tmp_path, type="gdch"))
    with pytest.raises(ConfigError, match="unknown type 'gdch'; expected service_account"):
        await GoogleIssuer("gar", identity, cloud.clock, {}).issue()


async def test_no_secret_is_sent_unencrypted_to_another_host(cloud: Cloud, tmp_path: Path) -> None:
    identity = GoogleIdentity(key_file(cloud, tmp_path, token_uri="http://oauth2.example.com/token"))
    with pytest.raises(AuthFailed, match=r"oauth2\.example\.com:80 is asked for credentials by https only"):
        await GoogleIssuer("gar", identity, cloud.clock, {}).issue()
    assert cloud.clouds.asked == []
