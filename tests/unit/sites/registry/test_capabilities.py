"""What is known of registries, and how it gets better."""

from __future__ import annotations

import pytest
from msgspec.structs import fields
from multidict import CIMultiDict

from replicator.errors import ConfigError
from replicator.ports import Capabilities
from replicator.sites.registry.capabilities import Knowledge
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.ghcr import GHCR
from replicator.sites.registry.vendors.known import VENDORS, by_headers, by_host, of_kind


def record(url: str, **overrides: bool | int | str) -> CapabilityRecord:
    return Knowledge("there", url, overrides).record


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("registry-1.docker.io", {"upload": "put", "mount": True, "catalog": False}),
        ("ghcr.io", {"upload": "patch", "chunk_bytes": 0, "catalog": False}),
        (
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            {"mount": False, "resume": False, "tags_per_page": 1000},
        ),
        ("public.ecr.aws", {"catalog": False}),
        ("mine.azurecr.io", {"body_limit": 16 * 1024 * 1024}),
        ("gcr.io", {"upload": "put", "chunk_bytes": 0}),
        ("eu.gcr.io", {"chunk_bytes": 0}),
        ("europe-docker.pkg.dev", {"chunk_bytes": 0, "tags_per_page": 10_000, "delete_tag": True}),
        ("quay.io", {"status_range": "exclusive", "tags_per_page": 100}),
        ("registry.gitlab.com", {"delete_tag": True}),
        ("me.jfrog.io", {"upload": "patch"}),
        ("registry.example.com", {"upload": "put", "catalog": True}),
        ("notgcr.io", {"chunk_bytes": 16 * 1024 * 1024}),
        ("docker.io.example.com", {"catalog": True}),
    ],
)
def test_hosts_have_presets(host: str, expected: dict[str, object]) -> None:
    found = record(f"https://{host}")
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_port_and_capitals_do_not_hide_a_host() -> None:
    assert record("https://GHCR.io:443") == GHCR.record


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-JFrog-Version": "7"}, {"upload": "patch"}),
        ({"x-artifactory-id": "7"}, {"upload": "patch"}),
        ({"gitlab-container-registry-version": "4"}, {"delete_tag": True}),
        ({"Blob-Upload-UUID": "1"}, {"delete_tag": True}),
        ({"Location": "/v2/a/blobs/uploads/1?_state=x"}, {"upload": "put", "delete_tag": False}),
        ({"Server": "nginx"}, {"delete_tag": False}),
    ],
)
def test_answers_give_the_software_away(headers: dict[str, str], expected: dict[str, object]) -> None:
    knowledge = Knowledge("there", "https://registry.example.com", {})
    knowledge.see(CIMultiDict(headers))
    assert {name: getattr(knowledge.record, name) for name in expected} == expected
    assert knowledge.is_recognised == ("Server" not in headers)


def test_a_known_host_is_not_taken_for_something_else() -> None:
    knowledge = Knowledge("there", "https://ghcr.io", {})
    before = knowledge.record
    knowledge.see(CIMultiDict({"X-JFrog-Version": "7"}))
    assert knowledge.record is before


def test_the_config_overrides_presets_and_hints_but_not_refusals() -> None:
    knowledge = Knowledge("there", "https://registry.example.com", {"upload": "chunks", "mount": False})
    knowledge.see(CIMultiDict({"X-JFrog-Version": "7"}))
    assert (knowledge.record.upload, knowledge.record.mount) == ("chunks", False)
    knowledge.learn(upload="patch")
    assert knowledge.record.upload == "patch"


def test_the_engine_sees_its_part() -> None:
    knowledge = Knowledge("there", "https://ghcr.io", {"mount": False})
    assert knowledge.capabilities == Capabilities(mount=False)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("uplod", "put", "did you mean upload?"),
        ("zzz", 1, "known are"),
        ("upload", "fast", "not one of put, patch, chunks"),
        ("status_range", 1, "not one of inclusive, exclusive"),
        ("mount", 1, "not true or false"),
        ("mount", "yes", "not true or false"),
        ("chunk_bytes", -1, "not a number of 0 or more"),
        ("chunk_bytes", "4MB", "not a number of 0 or more"),
        ("chunk_bytes", True, "not a number of 0 or more"),
    ],
)
def test_an_impossible_override_says_where_and_why(key: str, value: bool | int | str, says: str) -> None:  # noqa: FBT001 - a value of the config
    with pytest.raises(ConfigError) as raised:
        record("https://registry.example.com", **{key: value})
    assert f"site.there.capabilities.{key}: " in raised.value.problems[0]
    assert says in raised.value.problems[0]


def test_all_impossible_overrides_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        record("https://registry.example.com", uplod="put", mount=3, catalog=True)
    assert len(raised.value.problems) == 2


def test_every_field_can_be_overridden_by_its_own_default() -> None:
    default = CapabilityRecord()
    values = {field.name: getattr(default, field.name) for field in fields(CapabilityRecord)}
    assert record("https://registry.example.com", **values) == default


def test_hints_are_looked_for_in_headers_of_any_case() -> None:
    assert by_headers(CIMultiDict({"x-jfrog-version": "7"})) is not None
    assert by_headers(CIMultiDict()) is None


HOSTS = {
    "dockerhub": ["registry-1.docker.io", "docker.io"],
    "ghcr": ["ghcr.io"],
    "ecr": [
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
        "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
        "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
        "123456789012.dkr-ecr.eu-west-1.on.aws",
    ],
    "ecr-public": ["public.ecr.aws"],
    "acr": ["mine.azurecr.io", "mine.azurecr.cn"],
    "google": ["europe-docker.pkg.dev", "eu.gcr.io", "gcr.io"],
    "quay": ["quay.io"],
    "gitlab": ["registry.gitlab.com"],
    "artifactory": ["me.jfrog.io"],
    "gitea": ["codeberg.org"],
    "alibaba": ["registry.cn-hangzhou.aliyuncs.com", "x-registry.cn-hangzhou.cr.aliyuncs.com"],
}


@pytest.mark.parametrize(("kind", "host"), [(kind, host) for kind, hosts in HOSTS.items() for host in hosts])
def test_a_vendor_is_told_by_its_hosts(kind: str, host: str) -> None:
    assert by_host(host.upper()) is of_kind(kind)


@pytest.mark.parametrize("host", ["notgcr.io", "docker.io.example.com", "oss-cn-hangzhou.aliyuncs.com", ""])
def test_other_hosts_are_nobodys(host: str) -> None:
    assert by_host(host) is None


CHALLENGES = {
    "harbor": 'Bearer realm="https://harbor.example.com/service/token",service="harbor-registry"',
    "quay": 'Bearer realm="https://quay.example.com/v2/auth",service="quay.example.com"',
    "gitlab": 'Bearer realm="https://gitlab.example.com/jwt/auth",service="container_registry"',
}


@pytest.mark.parametrize("kind", CHALLENGES)
def test_a_challenge_gives_the_software_away(kind: str) -> None:
    found = by_headers(CIMultiDict({"WWW-Authenticate": CHALLENGES[kind]}))
    assert found == (of_kind(kind), "WWW-Authenticate")


def test_the_kind_of_the_config_wins_over_host_and_answers() -> None:
    knowledge = Knowledge("there", "https://ghcr.io", {"mount": False}, "quay")
    knowledge.see(CIMultiDict({"X-JFrog-Version": "7"}))
    assert knowledge.vendor is of_kind("quay")
    assert (knowledge.record.status_range, knowledge.record.mount) == ("exclusive", False)
    assert knowledge.why == 'kind = "quay" in the config'


def test_no_two_vendors_claim_a_host_or_word() -> None:
    assert len({vendor.kind for vendor in VENDORS}) == len(VENDORS)
    for kind, hosts in HOSTS.items():
        for host in hosts:
            assert [vendor.kind for vendor in VENDORS if vendor.owns(host)] == [kind]
