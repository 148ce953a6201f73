"""What each kind of notification is read as; and that no body, however odd, is more than refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.model.strictjson import read_object
from replicator.notifications.format import Delivery, Hint, read_events, same_host
from replicator.notifications.reading import epoch, split_reference
from replicator.sites.registry.vendors.known import KINDS
from replicator.sites.registry.vendors.senders import FORMATS, MEDIA_TYPES, format_of
from tests.fakes.notifications import DIGEST, PUSHED_AT, VENDORS, Sent

CASES = [
    pytest.param(kind, sent, id=f"{kind}-{number}")
    for kind, vendor in VENDORS.items()
    for number, sent in enumerate(vendor.sent)
]


def delivery(sent: Sent, url: str | None = "https://hub.example") -> Delivery:
    headers = {name.lower(): value for name, value in sent.headers.items()}
    return Delivery(headers, read_object(sent.raw), url)


def facts(hint: Hint | None) -> Any:
    return hint and (hint.repository, hint.tag, hint.digest, hint.registry, hint.at)


@pytest.mark.parametrize(("kind", "sent"), CASES)
def test_announces(kind: str, sent: Sent) -> None:
    arrived = delivery(sent, VENDORS[kind].url)
    sender = format_of(arrived, kind)
    assert sender is FORMATS[kind]
    assert sent.media_type.partition(";")[0] in sender.media_types <= MEDIA_TYPES
    assert [facts(hint) for hint in read_events(sender, arrived)] == list(sent.announced)


@pytest.mark.parametrize(("kind", "sent"), CASES)
def test_kind_is_told_from_the_delivery(kind: str, sent: Sent) -> None:
    sender = format_of(delivery(sent), None)
    assert sender is not None
    assert sender.kind == kind or (kind, sender.kind) == ("gitlab", "distribution")


def test_kind_of_the_site_is_asked_first() -> None:
    arrived = delivery(VENDORS["distribution"].sent[0])
    told = [
        format_of(arrived, None, likely=kind)
        for kind in ("gitlab", "distribution", "harbor", "ecr_public", "")
    ]
    assert [each and each.kind for each in told] == ["gitlab", *["distribution"] * 4]


def test_each_vendor_with_notifications_has_payloads() -> None:
    assert set(FORMATS) == set(VENDORS) == set(KINDS) - {"ecr-public"}


@pytest.mark.parametrize(
    ("url", "repository", "alias"),
    [
        ("https://acme.jfrog.io", "docker-local/team/app", "team/app"),
        ("https://docker-local.acme.example", "team/app", None),
        ("https://docker-local-acme.example", "team/app", None),
        ("https://acme.jfrog.io/artifactory/api/docker/docker-local", "team/app", None),
        ("https://acme.jfrog.io/artifactory/api/docker/other", None, None),
    ],
)
def test_artifactory_names_images_as_it_is_published(
    url: str, repository: str | None, alias: str | None
) -> None:
    arrived = delivery(VENDORS["artifactory"].sent[0], url)
    (hint,) = read_events(FORMATS["artifactory"], arrived)
    assert (hint and hint.repository, hint and hint.alias) == (repository, alias)


def test_nexus_by_path_has_another_name() -> None:
    (hint,) = read_events(FORMATS["nexus"], delivery(VENDORS["nexus"].sent[0]))
    assert hint is not None
    assert (hint.repository, hint.alias) == ("team/app", "docker-hosted/team/app")


@pytest.mark.parametrize(
    ("kind", "named", "url", "is_same"),
    [
        ("harbor", "harbor.example", "https://harbor.example:443", True),
        ("harbor", "harbor.example:8443", "https://harbor.example:443", False),
        ("harbor", "harbor.example.evil", "https://harbor.example", False),
        ("harbor", "[", "https://harbor.example", False),
        ("distribution", "10.0.0.1:5000", "https://reg.example", True),
        ("dockerhub", "docker.io", "https://index.docker.io", True),
        ("dockerhub", "docker.io", "https://mirror.example", False),
        ("dockerhub", "registry.example", "https://registry.example", True),
        ("ecr", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "https://123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com", True),
        ("ecr", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "https://123456789012.dkr-ecr.eu-west-1.on.aws", True),
        ("ecr", "123456789012.dkr.ecr.cn-north-1.amazonaws.com", "https://123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", True),
        ("ecr", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "https://123456789012.dkr.ecr.eu-west-2.amazonaws.com", False),
        ("ecr", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "https://ecr.internal", False),
        ("ecr", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "https://123456789012.dkr.ecr.eu-west-1.evil.example", False),
        ("ecr", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "https://999999999999.dkr.ecr.eu-west-1.amazonaws.com", False),
        ("alibaba", "registry.cn-hangzhou.aliyuncs.com", "https://acme-registry.cn-hangzhou.cr.aliyuncs.com", True),
        ("alibaba", "registry.cn-hangzhou.aliyuncs.com", "https://registry.cn-beijing.aliyuncs.com", False),
        ("alibaba", "registry.cn-hangzhou.aliyuncs.com", "https://images.internal", False),
        ("artifactory", "acme.jfrog.io", "https://acme.jfrog.io", True),
        ("artifactory", "acme.jfrog.io", "https://docker-local-acme.jfrog.io", True),
        ("artifactory", "art.example", "https://docker.art.example", True),
        ("artifactory", "acme.jfrog.io", "https://emca.jfrog.io", False),
        ("nexus", "docker-hosted", "https://nexus.example:5001", True),
        ("nexus", "docker-hosted", "https://nexus.example/repository/docker-other", False),
    ],
)  # fmt: skip
def test_registry_is_the_site(kind: str, named: str, url: str, *, is_same: bool) -> None:
    assert FORMATS[kind].is_same(named, url) is is_same


def test_registry_of_an_odd_host_is_no_site() -> None:
    assert not same_host("a:99999999", "https://a")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-02T03:04:05Z", PUSHED_AT),
        ("2026-01-02T04:04:05.000+0100", PUSHED_AT),
        ("2026-01-02T03:04:05.123456789Z", PUSHED_AT + 0.123456),
        ("2026-01-02T03:04:05", None),
        ("0001-01-01T00:00:00Z", None),
        ("9" * 400, None),
        (1767323045, PUSHED_AT),
        (1e300, None),
        (10**400, None),
        (True, None),
        ([], None),
        (None, None),
    ],
)
def test_times(written: Any, read: float | None) -> None:
    assert epoch(written) == (None if read is None else pytest.approx(read, abs=1e-5))


def test_references() -> None:
    assert split_reference(f"h.example:5000/a/b@{DIGEST}") == ("h.example:5000", "a/b", DIGEST)
    assert split_reference("https://h.example/a:v1") == ("h.example", "a", "v1")
    assert split_reference("a") == (None, None, None)


@pytest.mark.parametrize(
    "body",
    [
        b'{"events": [], "events": [{}]}',
        b'{"events": [{"action": "push", "action": "pull", "target": {"repository": "a", "tag": "b"}}]}',
        b'{"events": [{"Action": "push", "action": "push", "target": {"repository": "a", "tag": "b"}}]}',
        b'{"events": [{"action": "push", "target": {"repository": "a", "tag": "b", "tag": "c"}}]}',
    ],
)
def test_member_that_is_named_twice_announces_nothing(body: bytes) -> None:
    arrived = Delivery({}, read_object(body), None)
    assert read_events(FORMATS["distribution"], arrived) == [None]


def _odd(value: Any, odd: Any, at: int, seen: list[int]) -> Any:
    """The value with its `at`-th part, counted from outside, replaced."""
    seen[0] += 1
    if seen[0] == at:
        return odd
    if isinstance(value, dict):
        return {name: _odd(inner, odd, at, seen) for name, inner in value.items()}
    if isinstance(value, list):
        return [_odd(inner, odd, at, seen) for inner in value]
    return value


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
    | st.sampled_from(["a" * 300, "[", "http://[", "\ud800", "a/b:c@d", "//", "\u0000", "https://h/", DIGEST]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["tag", "name", "type"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(
    case=st.sampled_from([sent for vendor in VENDORS.values() for sent in vendor.sent]),
    odd=ODD,
    at=st.integers(1, 40),
    url=st.sampled_from([None, *(vendor.url for vendor in VENDORS.values())]),
)
def test_whatever_is_odd_in_a_notification_it_is_ignored_at_worst(
    case: Sent, odd: Any, at: int, url: str | None
) -> None:
    document = _odd(case.body, odd, at, [0])
    if not isinstance(document, dict):
        return
    headers = {name.lower(): value for name, value in case.headers.items()}
    arrived = Delivery(headers, read_object(json.dumps(document).encode()), url)
    for kind in (None, *FORMATS):
        sender = format_of(arrived, kind)
        if sender is None:
            continue
        for hint in read_events(sender, arrived):
            if hint is not None and hint.registry is not None and url is not None:
                sender.is_same(hint.registry, url)


@given(st.dictionaries(st.sampled_from(["events", "type", "specversion", "event_data", "message", "package", "push_data",
       "repository", "action", "target", "request", "timestamp", "domain", "data", "detail", "detail-type"]), ODD))  # fmt: skip
def test_any_object_is_read_or_refused(document: dict[str, Any]) -> None:
    arrived = Delivery({}, read_object(json.dumps(document).encode()), None)
    for kind in (None, *FORMATS):
        sender = format_of(arrived, kind)
        if sender is not None:
            read_events(sender, arrived)
