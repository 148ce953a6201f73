"""AWS's usual chain, way by way: whose key asks ECR for its password, in which account, region and partition."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.credentials import SSOProvider
from botocore.tokens import SSOTokenProvider

from replicator.errors import AuthFailed
from replicator.sites.registry.credentials import Credentials
from replicator.sites.registry.identity.aws import EcrAccess, EcrHost, EcrIssuer, parse_host
from replicator.sites.registry.identity.settings import EcrIdentity
from replicator.sites.registry.identity.source import NoIdentity
from tests.fakes.aws import CONTAINER_TOKEN, EXTERNAL_ID, POD_TOKEN, ROLE, SSO_TOKEN, Aws
from tests.fakes.clock import FakeClock
from tests.fakes.scripted import Scripted, scripted

HOST = EcrHost("123456789012", "eu-central-1")
START = "https://acme.awsapps.example/start"


class World:
    """AWS at `server`, and the environment, files and folders that its libraries read."""

    def __init__(self, aws: Aws, server: Scripted, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.aws = aws
        self.server = server
        self.folder = folder
        self.set = monkeypatch.setenv
        self.unset = monkeypatch.delenv

    def write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    async def password(self, identity: EcrIdentity | None = None, host: EcrHost = HOST) -> str:
        issued = await EcrIssuer("ecr", host, identity or EcrIdentity(), FakeClock()).issue()
        assert issued.credentials == Credentials("AWS", issued.credentials.password)
        return issued.credentials.password


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[World]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for provider in (SSOProvider, SSOTokenProvider):
        monkeypatch.setattr(provider, "_SSO_TOKEN_CACHE_DIR", str(tmp_path / "sso"))
    aws = Aws()
    async with scripted(aws) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        yield World(aws, server, tmp_path, monkeypatch)


def static(world: World, key: str = "AKIASTATIC") -> None:
    world.set("AWS_ACCESS_KEY_ID", key)
    world.set("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")


async def test_environment(world: World) -> None:
    static(world)
    assert await world.password() == "password-of-AKIASTATIC"


async def test_profile(world: World) -> None:
    static(world)
    keys = "aws_access_key_id = {}\naws_secret_access_key = s\n"
    world.write(
        "credentials",
        f"[default]\n{keys.format('AKIADEFAULT')}[prod]\n{keys.format('AKIAPROD')}",
    )
    assert await world.password(EcrIdentity(profile="prod")) == "password-of-AKIAPROD"


def sso(world: World, *, ends: timedelta = timedelta(hours=1), token: str = SSO_TOKEN) -> None:
    world.write(
        "config",
        f"[profile work]\nsso_session = acme\nsso_account_id = 123456789012\nsso_role_name = Mirror\n"
        f"[sso-session acme]\nsso_region = eu-west-1\nsso_start_url = {START}\n",
    )
    expires = (datetime.now(UTC) + ends).strftime("%Y-%m-%dT%H:%M:%SZ")
    cached = {"startUrl": START, "region": "eu-west-1", "accessToken": token, "expiresAt": expires}
    world.write(f"sso/{hashlib.sha1(b'acme').hexdigest()}.json", json.dumps(cached))  # noqa: S324 - AWS names it so


async def test_identity_center(world: World) -> None:
    sso(world)
    assert await world.password(EcrIdentity(profile="work")) == "password-of-ASIASSO"


@pytest.mark.parametrize(
    ("ends", "token"), [(-1, SSO_TOKEN), (1, "another")], ids=["session has ended", "session is revoked"]
)
async def test_identity_center_wants_another_login(world: World, ends: int, token: str) -> None:
    sso(world, ends=timedelta(hours=ends), token=token)
    with pytest.raises(AuthFailed, match=r"(?i)sso|session|token") as raised:
        await world.password(EcrIdentity(profile="work"))
    assert SSO_TOKEN not in str(raised.value)
    assert world.aws.asked == []


def web_identity(world: World, token: str) -> None:
    world.set("AWS_WEB_IDENTITY_TOKEN_FILE", str(world.write("token", token)))
    world.set("AWS_ROLE_ARN", ROLE)
    world.set("AWS_REGION", "eu-central-1")


async def test_web_identity_of_a_pod(world: World) -> None:
    web_identity(world, POD_TOKEN)
    assert await world.password() == "password-of-ASIAPOD"
    assert [one.operation for one in world.aws.asked] == [
        "AssumeRoleWithWebIdentity",
        "GetAuthorizationToken",
    ]


async def test_web_identity_that_is_refused(world: World) -> None:
    web_identity(world, "of another cluster")
    with pytest.raises(AuthFailed, match="AccessDenied"):
        await world.password()


async def test_pod_identity_and_task_role(world: World) -> None:
    world.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{world.server.url}/container")
    world.set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(world.write("container-token", CONTAINER_TOKEN)))
    assert await world.password() == "password-of-ASIACONTAINER"


async def test_role_of_the_machine_by_imdsv2(world: World) -> None:
    world.unset("AWS_EC2_METADATA_DISABLED")
    world.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", world.server.url)
    assert await world.password() == "password-of-ASIAMACHINE"
    assert world.aws.imds[0] == "PUT /latest/api/token"


def process(world: World, code: str) -> None:
    script = world.write("process.py", code)
    world.write("config", f"[profile tool]\ncredential_process = {sys.executable} {script}\n")


async def test_process(world: World) -> None:
    process(world, 'print(\'{"Version": 1, "AccessKeyId": "AKIATOOL", "SecretAccessKey": "s"}\')')
    assert await world.password(EcrIdentity(profile="tool")) == "password-of-AKIATOOL"


async def test_process_that_fails(world: World) -> None:
    process(world, 'import sys; sys.exit("the vault is sealed")')
    with pytest.raises(AuthFailed, match="the vault is sealed"):
        await world.password(EcrIdentity(profile="tool"))


async def test_nothing_at_all(world: World) -> None:
    with pytest.raises(NoIdentity, match="no AWS credentials"):
        await world.password()
    assert world.server.seen == []


# --- roles, accounts, regions, partitions ---


async def test_role_of_another_account_by_its_external_id(world: World) -> None:
    static(world)
    identity = EcrIdentity(role_arn=ROLE, external_id=EXTERNAL_ID)
    assert await world.password(identity) == "password-of-ASIAROLE"
    assert [(one.operation, one.key) for one in world.aws.asked] == [
        ("AssumeRole", "AKIASTATIC"),
        ("GetAuthorizationToken", "ASIAROLE"),
    ]


@pytest.mark.parametrize("external_id", [None, "another"])
async def test_role_without_its_external_id_is_refused(world: World, external_id: str | None) -> None:
    static(world)
    with pytest.raises(
        AuthFailed, match=r"AccessDenied.*needed: sts:AssumeRole on the role, and a trust policy"
    ):
        await world.password(EcrIdentity(role_arn=ROLE, external_id=external_id))
    assert [one.operation for one in world.aws.asked] == ["AssumeRole"]


async def test_account_and_region_follow_from_the_host_name(world: World) -> None:
    static(world)
    world.set("AWS_REGION", "us-east-1")
    host = parse_host("999999999999.dkr.ecr.ap-south-1.amazonaws.com")
    assert host is not None
    await world.password(host=host)
    assert [(one.region, one.said) for one in world.aws.asked] == [("ap-south-1", {})]


async def test_account_and_region_of_a_registry_behind_another_name(world: World) -> None:
    static(world)
    identity = EcrIdentity(region="eu-north-1", registry_id="999999999999")
    await world.password(identity, EcrHost("999999999999", "eu-north-1"))
    (asked,) = world.aws.asked
    assert (asked.region, asked.said) == ("eu-north-1", {"registryIds": ["999999999999"]})


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "https://api.ecr.eu-west-1.amazonaws.com"),
        ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", "https://ecr-fips.us-east-1.amazonaws.com"),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "https://ecr-fips.us-gov-west-1.amazonaws.com"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "https://api.ecr.cn-north-1.amazonaws.com.cn"),
        ("123456789012.dkr-ecr.us-west-2.on.aws", "https://api.ecr.us-west-2.amazonaws.com"),
    ],
)  # fmt: skip
async def test_partition_and_fips_follow_from_the_host_name(world: World, host: str, endpoint: str) -> None:
    static(world)
    world.unset("AWS_ENDPOINT_URL")
    named = parse_host(host)
    assert named is not None
    async with EcrAccess("ecr", named, EcrIdentity()).client("ecr") as client:
        assert client.meta.endpoint_url == endpoint
