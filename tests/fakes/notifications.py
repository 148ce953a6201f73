"""Notifications as the registries send them, written from their documentation and source: what each announces."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DIGEST = f"sha256:{'ab' * 32}"
CHILD = f"sha256:{'cd' * 32}"
PUSHED_AT = 1_767_323_045.0
"""2026-01-02T03:04:05Z"""
TIME = "2026-01-02T03:04:05Z"


@dataclass(frozen=True)
class Sent:
    """A delivery and what it announces: (repository, tag, digest, registry, time); None is an ignored event."""

    body: Any
    announced: Sequence[tuple[str, str, str | None, str | None, float | None] | None] = (None,)
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"

    @property
    def raw(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Vendor:
    """A kind of sender, the URL of a site of it, and what it sends. The first one announces `team/app:1.4.2`."""

    url: str
    sent: Sequence[Sent]
    foreign: Sent | None = None
    """One of another registry, if the payload names its registry."""
    repository: str = "team/app"


def _distribution(action: str = "push", **target: Any) -> dict[str, Any]:
    return {
        "id": "320678d8-ca14-430f-8bb6-4ca139cd83f7",
        "timestamp": "2026-01-02T03:04:05Z",
        "action": action,
        "target": {
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "size": 1609,
            "digest": DIGEST,
            "length": 1609,
            "repository": "team/app",
            "url": f"https://reg.example/v2/team/app/manifests/{DIGEST}",
            **target,
        },
        "request": {"id": "6df", "addr": "10.0.0.7:42", "host": "10.1.2.3:5000", "method": "PUT", "useragent": "docker/27"},
        "actor": {"name": "ci"},
        "source": {"addr": "node1:5000", "instanceID": "a53d"},
    }  # fmt: skip


def _harbor(kind: str = "PUSH_ARTIFACT", tag: str = "1.4.2", host: str = "harbor.example") -> dict[str, Any]:
    resource = {"digest": DIGEST, "tag": tag, "resource_url": f"{host}/team/app:{tag}"}
    return {
        "type": kind,
        "occur_at": 1767323045,
        "operator": "robot$ci",
        "event_data": {
            "resources": [resource],
            "repository": {
                "date_created": 1767000000,
                "name": "app",
                "namespace": "team",
                "repo_full_name": "team/app",
                "repo_type": "private",
            },
        },
    }


def _harbor_cloudevent(kind: str = "harbor.artifact.pushed") -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "4b2f89a6-548d-4c12-9993-a1f5790b97d2",
        "requestid": "2eedfab8-61d3-4f3c-8ec3-8f82d1ec4c84",
        "source": "/projects/2/webhook/policies/15",
        "type": kind,
        "datacontenttype": "application/json",
        "time": TIME,
        "operator": "robot$ci",
        "data": _harbor()["event_data"],
    }


def _quay(host: str = "quay.io", **more: Any) -> dict[str, Any]:
    return {
        "repository": "team/app",
        "namespace": "team",
        "name": "app",
        "docker_url": f"{host}/team/app",
        "homepage": f"https://{host}/repository/team/app",
        **more,
    }


def _acr(action: str = "push", host: str = "myreg.azurecr.io", **target: Any) -> dict[str, Any]:
    return {
        "id": "cb8c3971-9adc-488b-xxxx-43cbb4974ff5",
        "timestamp": "2026-01-02T03:04:05.0000000Z",
        "action": action,
        "target": {
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "size": 524,
            "digest": DIGEST,
            "length": 524,
            "repository": "team/app",
            **target,
        },
        "request": {"id": "3cbb6949", "host": host, "method": "PUT", "useragent": "docker/27"},
    }


def _hub(repository: str = "team/app", host: str = "hub.docker.com") -> dict[str, Any]:
    return {
        "callback_url": "https://registry.hub.docker.com/u/team/app/hook/2141b5bi5i5b02bec211i4eeih0242eg11000a/",
        "push_data": {
            "pushed_at": 1767323045.0,
            "pusher": "alice",
            "tag": "1.4.2",
            "images": [],
            "media_type": "application/vnd.oci.image.index.v1+json",
        },
        "repository": {
            "comment_count": 0,
            "date_created": 1.417494799e9,
            "is_official": False,
            "is_private": True,
            "is_trusted": False,
            "name": "app",
            "namespace": "team",
            "owner": "team",
            "repo_name": repository,
            "repo_url": f"https://{host}/r/{repository}",
            "star_count": 0,
            "status": "Active",
        },
    }


def _alibaba(region: str = "cn-hangzhou") -> dict[str, Any]:
    return {
        "push_data": {"digest": DIGEST, "pushed_at": "2026-01-02 11:04:05", "tag": "1.4.2"},
        "repository": {
            "date_created": "2025-10-28 21:31:42",
            "name": "app",
            "namespace": "team",
            "region": region,
            "repo_authentication_type": "NO_CERTIFIED",
            "repo_full_name": "team/app",
            "repo_origin_type": "NO_CERTIFIED",
            "repo_type": "PUBLIC",
        },
    }


def gcr(
    action: str = "INSERT", host: str = "us-west1-docker.pkg.dev", *, tagged: bool = True
) -> dict[str, Any]:
    """A message of the topic `gcr`."""
    name = f"{host}/proj/repo/team/app"
    tag = {"tag": f"{name}:1.4.2"} if tagged else {}
    return {"action": action, "digest": f"{name}@{DIGEST}", **tag}


def wrapped(message: Any) -> dict[str, Any]:
    """A message as Pub/Sub pushes it by default."""
    data = message if isinstance(message, str) else base64.b64encode(json.dumps(message).encode()).decode()
    return {
        "message": {
            "data": data,
            "messageId": "136969346945",
            "message_id": "136969346945",
            "publishTime": "2026-01-02T03:04:05Z",
            "publish_time": "2026-01-02T03:04:05Z",
        },
        "subscription": "projects/proj/subscriptions/replicator",
    }


def _ecr(kind: str = "PUSH", account: str = "123456789012", **detail: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "13cde686-328b-6117-af20-0e5566167482",
        "detail-type": "ECR Image Action",
        "source": "aws.ecr",
        "account": account,
        "time": TIME,
        "region": "us-west-2",
        "resources": [],
        "detail": {
            "result": "SUCCESS",
            "repository-name": "team/app",
            "image-digest": DIGEST,
            "action-type": kind,
            "image-tag": "1.4.2",
            **detail,
        },
    }


def _ecr_cloudevent(kind: str = "com.amazon.ecr.image.push") -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "13cde686-328b-6117-af20-0e5566167482",
        "type": kind,
        "source": "urn:aws:ecr:us-west-2:123456789012:repository/team/app",
        "subject": "team/app:1.4.2",
        "time": TIME,
        "datacontenttype": "application/json",
        "data": {
            "repositoryName": "team/app",
            "imageDigest": DIGEST,
            "imageTag": "1.4.2",
            "registryId": "123456789012",
        },
    }


def _github(
    key: str = "registry_package", host: str = "ghcr.io", tag: str = "1.4.2", **package: Any
) -> dict[str, Any]:
    return {
        "action": "published",
        key: {
            "id": 1,
            "name": "app",
            "namespace": "Team",
            "ecosystem": "CONTAINER",
            "package_type": "CONTAINER",
            "owner": {"login": "Team", "type": "Organization"},
            "package_version": {
                "id": 2,
                "version": DIGEST,
                "name": DIGEST,
                "created_at": TIME,
                "updated_at": TIME,
                "package_url": f"{host}/team/app:{tag}",
                "container_metadata": {"tag": {"name": tag, "digest": DIGEST}, "labels": {}, "manifest": {}},
            },
            "registry": {
                "about_url": "https://docs.github.com/packages",
                "name": "GitHub CONTAINER registry",
            },
            **package,
        },
        "repository": {"full_name": "Team/app"},
        "sender": {"login": "ci"},
    }


def _jfrog(
    kind: str = "pushed", origin: str = "https://acme.jfrog.io", domain: str = "docker", **data: Any
) -> dict[str, Any]:
    return {
        "domain": domain,
        "event_type": kind,
        "data": {
            "repo_key": "docker-local",
            "path": "team/app/1.4.2/list.manifest.json",
            "name": "list.manifest.json",
            "sha256": DIGEST.removeprefix("sha256:"),
            "size": 1609,
            "image_name": "team/app",
            "image_type": "docker",
            "tag": "1.4.2",
            "platforms": [{"architecture": "amd64", "os": "linux"}],
            **data,
        },
        "subscription_key": "replicator",
        "jpd_origin": origin,
        "source": "jfrog/ci",
    }


def _nexus(action: str = "CREATED", key: str = "docker-hosted", **component: Any) -> dict[str, Any]:
    return {
        "timestamp": "2026-01-02T03:04:05.000+0000",
        "nodeId": "52905B51-085CCABB-CEBBEAAD-16795588-FC927D93",
        "initiator": "admin/10.0.0.7",
        "repositoryName": key,
        "action": action,
        "component": {
            "id": "08909bf0c86cf6c9600aade89e1c5e25",
            "componentId": "bWF2ZW4tcmVsZWFzZXM6MDg5MDliZjBjODZjZjZjOTYwMGFhZGU4OWUxYzVlMjU",
            "format": "docker",
            "name": "team/app",
            "version": "1.4.2",
            **component,
        },
    }


def _gitea(action: str = "created", host: str = "git.example", **package: Any) -> dict[str, Any]:
    return {
        "action": action,
        "repository": None,
        "package": {
            "id": 7,
            "owner": {"id": 3, "login": "Team", "username": "Team"},
            "repository": None,
            "creator": {"login": "ci"},
            "type": "container",
            "name": "app",
            "version": "1.4.2",
            "html_url": f"https://{host}/Team/-/packages/container/app/1.4.2",
            "created_at": "2026-01-02T03:04:05Z",
            **package,
        },
        "organization": {"username": "Team"},
        "sender": {"login": "ci"},
    }


def _zot(**more: Any) -> dict[str, Any]:
    return {
        "name": "team/app",
        "reference": "1.4.2",
        "digest": DIGEST,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "manifest": '{"schemaVersion":2}',
        "actor": {"name": "ci"},
        "request": {"addr": "10.0.0.7:4", "method": "PUT", "useragent": "oras/1.2"},
        **more,
    }


def _binary(kind: str = "zotregistry.image.updated") -> dict[str, str]:
    return {
        "ce-specversion": "1.0",
        "ce-type": kind,
        "ce-source": "zotregistry.dev",
        "ce-id": "5d1f",
        "ce-time": TIME,
    }


def _structured(data: Any, kind: str = "zotregistry.image.updated") -> dict[str, Any]:
    return {
        "specversion": "1.0", "type": kind, "source": "zotregistry.dev", "id": "5d1f", "time": TIME,
        "datacontenttype": "application/json", "data": data,
    }  # fmt: skip


_GITEA = {"X-Gitea-Event": "package", "X-Gitea-Event-Type": "package", "X-GitHub-Event": "package"}
_CLOUDEVENTS = "application/cloudevents+json"


def _app(
    digest: str | None = DIGEST, registry: str | None = None, at: float | None = PUSHED_AT
) -> tuple[str, str, str | None, str | None, float | None]:
    return ("team/app", "1.4.2", digest, registry, at)


def _manifest(
    registry: str | None, at: float | None = PUSHED_AT
) -> tuple[str, str, str | None, str | None, float | None]:
    """A manifest that was pushed by its digest: the child of an index, or something that refers to an image."""
    return ("team/app", DIGEST, DIGEST, registry, at)


VENDORS: Mapping[str, Vendor] = {
    "distribution": Vendor(
        "https://reg.example",
        [
            Sent({"events": [_distribution(tag="1.4.2")]}, [_app(registry="10.1.2.3:5000")]),
            Sent(
                {"events": [None, _distribution(tag="1.4.2"), _distribution("pull", tag="1.4.2"), _distribution()]},
                [None, _app(registry="10.1.2.3:5000"), None, None],
                media_type="application/vnd.docker.distribution.events.v2+json",
            ),
            Sent({"events": None}, []),
        ],
    ),
    "gitlab": Vendor(
        "https://registry.gitlab.example",
        [
            Sent({"events": [_distribution(tag="1.4.2")]}, [_app(registry="10.1.2.3:5000")], {"X-Gitlab-Token": "x"}),
            Sent({"object_kind": "push", "event_name": "push"}, headers={"X-Gitlab-Event": "Push Hook"}),
        ],
    ),
    "harbor": Vendor(
        "https://harbor.example",
        [
            Sent(_harbor(), [_app(registry="harbor.example")]),
            Sent(_harbor_cloudevent(), [_app(registry="harbor.example")], media_type=_CLOUDEVENTS),
            Sent(_harbor(tag=DIGEST), [_manifest("harbor.example")]),
            Sent(_harbor("DELETE_ARTIFACT")),
            Sent(_harbor("SCANNING_COMPLETED")),
            Sent(_harbor_cloudevent("harbor.artifact.pulled"), media_type=_CLOUDEVENTS),
        ],
        Sent(_harbor(host="other.example")),
    ),
    "quay": Vendor(
        "https://quay.io",
        [
            Sent(_quay(updated_tags=["1.4.2"]), [_app(None, "quay.io", None)]),
            Sent(
                _quay(updated_tags=[None, "1.4.2", "not a tag"]), [None, _app(None, "quay.io", None), None]
            ),
            Sent(_quay(updated_tags=[])),
            Sent(_quay(vulnerability={"id": "CVE-2026-1", "priority": "High"})),
        ],
        Sent(_quay("quay.example", updated_tags=["1.4.2"])),
    ),
    "acr": Vendor(
        "https://myreg.azurecr.io",
        [
            Sent(
                _acr(tag="1.4.2"), [_app(registry="myreg.azurecr.io")], media_type="application/json; charset=utf-8"
            ),
            Sent({"id": "1", "timestamp": TIME, "action": "ping"}),
            Sent(_acr("ping")),
            Sent(_acr(), [_manifest("myreg.azurecr.io")]),
            Sent(_acr("delete", tag="1.4.2")),
            Sent(_acr("chart_push", tag="1.4.2")),
        ],
        Sent(_acr(host="other.azurecr.io", tag="1.4.2")),
    ),
    "dockerhub": Vendor(
        "https://registry-1.docker.io",
        [
            Sent(_hub(), [_app(None, "docker.io")]),
            Sent({**_hub(), "push_data": {"tag": "latest", "pushed_at": 1767323045}}, [("team/app", "latest", None, "docker.io", PUSHED_AT)]),
            Sent({**_hub(), "push_data": {"tag": None}}),
        ],
        Sent(_hub(host="registry.example")),
    ),
    "alibaba": Vendor(
        "https://registry-vpc.cn-hangzhou.aliyuncs.com",
        [Sent(_alibaba(), [_app(registry="registry.cn-hangzhou.aliyuncs.com", at=None)])],
        Sent(_alibaba("cn-beijing")),
    ),
    "google": Vendor(
        "https://us-west1-docker.pkg.dev",
        [
            Sent(wrapped(gcr()), [("proj/repo/team/app", "1.4.2", DIGEST, "us-west1-docker.pkg.dev", PUSHED_AT)]),
            Sent(
                gcr(),
                [("proj/repo/team/app", "1.4.2", DIGEST, "us-west1-docker.pkg.dev", PUSHED_AT)],
                {"x-goog-pubsub-publish-time": TIME, "x-goog-pubsub-message-id": "1"},
                "application/octet-stream",
            ),
            Sent(wrapped(gcr(tagged=False))),
            Sent(wrapped(gcr("DELETE"))),
            Sent(wrapped("no base64!")),
            Sent(wrapped(base64.b64encode(b"hello").decode())),
        ],
        Sent(wrapped(gcr(host="europe-docker.pkg.dev"))),
        "proj/repo/team/app",
    ),
    "ecr": Vendor(
        "https://123456789012.dkr.ecr.us-west-2.amazonaws.com",
        [
            Sent(_ecr(), [_app(registry="123456789012.dkr.ecr.us-west-2.amazonaws.com")]),
            Sent(
                _ecr_cloudevent(),
                [_app(registry="123456789012.dkr.ecr.us-west-2.amazonaws.com")],
                media_type=_CLOUDEVENTS,
            ),
            Sent(_ecr_cloudevent(), [_app(registry="123456789012.dkr.ecr.us-west-2.amazonaws.com")]),
            Sent(_ecr("DELETE")),
            Sent(_ecr(result="FAILURE")),
            Sent(_ecr(**{"image-tag": ""}), [_manifest("123456789012.dkr.ecr.us-west-2.amazonaws.com")]),
            Sent({**_ecr(), "detail-type": "ECR Image Scan"}),
            Sent(_ecr_cloudevent("com.amazon.ecr.image.delete"), media_type=_CLOUDEVENTS),
        ],
        Sent(_ecr(account="999999999999")),
    ),
    "ghcr": Vendor(
        "https://ghcr.io",
        [
            Sent(_github(), [_app(registry="ghcr.io")], {"X-GitHub-Event": "registry_package"}),
            Sent(_github("package"), [_app(registry="ghcr.io")], {"X-GitHub-Event": "package"}),
            Sent(_github(package_type="docker", ecosystem="docker"), [_app(registry="ghcr.io")]),
            Sent(_github(tag=""), [_manifest("ghcr.io")]),
            Sent(_github(package_type="npm")),
            Sent({**_github(), "action": "deleted"}),
            Sent({"zen": "Keep it logically awesome.", "hook_id": 1}, headers={"X-GitHub-Event": "ping"}),
        ],
        Sent(_github(host="containers.ghe.example")),
    ),
    "artifactory": Vendor(
        "https://docker-local-acme.jfrog.io",
        [
            Sent(_jfrog(), [_app(registry="acme.jfrog.io", at=None)]),
            Sent(_jfrog("promoted"), [_app(registry="acme.jfrog.io", at=None)]),
            Sent(_jfrog("deleted")),
            Sent(_jfrog("deployed", domain="artifact")),
            Sent(_jfrog(tag=DIGEST), [_manifest("acme.jfrog.io", None)]),
        ],
        Sent(_jfrog(origin="https://other.example")),
    ),
    "nexus": Vendor(
        "https://nexus.example/repository/docker-hosted",
        [
            Sent(_nexus(), [_app(None, "docker-hosted")], {"X-Nexus-Webhook-Id": "rm:repository:component"}),
            Sent(_nexus("UPDATED"), [_app(None, "docker-hosted")]),
            Sent(_nexus("DELETED")),
            Sent(_nexus(format="maven2")),
            Sent({**_nexus(), "asset": {"format": "docker"}, "component": None}),
        ],
        Sent(_nexus(key="docker-other")),
    ),
    "gitea": Vendor(
        "https://git.example",
        [
            Sent(_gitea(), [_app(None, "git.example")], _GITEA),
            Sent(_gitea("deleted"), headers=_GITEA),
            Sent(_gitea(version=DIGEST), [_manifest("git.example")], _GITEA),
            Sent(_gitea(type="npm"), headers=_GITEA),
            Sent({"ref": "refs/heads/main"}, headers={"X-Forgejo-Event": "push", "X-GitHub-Event": "push"}),
        ],
        Sent(_gitea(host="other.example"), headers=_GITEA),
    ),
    "zot": Vendor(
        "http://zot.example:5000",
        [
            Sent(_zot(), [_app()], _binary()),
            Sent(_structured(_zot()), [_app()], media_type=_CLOUDEVENTS),
            Sent(_zot(reference=DIGEST), [_manifest(None)], _binary()),
            Sent(_zot(manifest=None), headers=_binary("zotregistry.image.deleted")),
            Sent({"name": "team/app"}, headers=_binary("zotregistry.repository.created")),
            Sent(_structured(None), media_type=_CLOUDEVENTS),
        ],
    ),
}  # fmt: skip
