"""Configs of other tools, as they document them, and what they become."""

from __future__ import annotations

import base64
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from replicator.config.importers import Source, Tool, import_config, render
from replicator.config.load import load

ENVIRON = {"HOME": "/root", "HUB_TOKEN": "t"}


class Imported:
    """The TOML of a config, read back as TOML and as a config."""

    def __init__(
        self, *texts: str, tool: Tool | None = None, destination: str | None = None, scoped: bool = False
    ) -> None:
        sources = [Source(f"file{number}", text) for number, text in enumerate(texts)]
        draft = import_config(sources, tool, destination=destination, scoped=scoped)
        self.dropped = draft.dropped
        self.text = render(draft, "Imported.")
        self.toml: dict[str, Any] = tomllib.loads(self.text)

    @property
    def sites(self) -> dict[str, Any]:
        return dict(self.toml["site"])

    @property
    def rules(self) -> list[dict[str, Any]]:
        return list(self.toml.get("rule", []))

    def load(self, tmp_path: Path) -> None:
        """It is a config that can be used, once the passwords are there."""
        path = tmp_path / "replicator.toml"
        path.write_text(self.text)
        environ = ENVIRON | {
            site["password"]["env"]: "secret" for site in self.sites.values() if "password" in site
        }
        load(path, environ)


REGSYNC = r"""
version: 1
creds:
  - registry: localhost:5000
    tls: disabled
  - registry: docker.io
    user: '{{env "HUB_USER"}}'
    pass: '{{env "HUB_TOKEN"}}'
    reqPerSec: 2
defaults: {parallel: 2, interval: 60m}
sync:
  - {source: 'busybox:latest', target: 'localhost:5000/library/busybox:stable', type: image}
  - source: alpine
    target: localhost:5000/library/alpine
    type: repository
    tags: {allow: [latest, "3\\.\\d+"], deny: ["3\\.0"]}
    tagSets: [{semverRange: [">=3.18, <4"]}]
  - {source: quay.io, target: 'localhost:5000/quay', type: registry, repos: {allow: ["prometheus/.*"], deny: [prometheus/old]}}
"""


def test_regsync(tmp_path: Path) -> None:
    imported = Imported(REGSYNC)
    assert not imported.dropped
    assert imported.sites["localhost-5000"] == {"url": "http://localhost:5000"}
    assert imported.sites["docker-io"] == {
        "url": "https://registry-1.docker.io",
        "username": "${HUB_USER}",
        "password": {"env": "HUB_TOKEN"},
        "limits": {"requests_per_second": 2.0},
    }
    busybox, alpine, quay = imported.rules
    assert (busybox["repositories"], busybox["tags"], busybox["rename"], busybox["interval"]) == (
        ["library/busybox"],
        {"include": ["latest"]},
        {"tags": {"regex": [{"match": "^latest$", "replace": "stable"}]}},
        "60m",
    )
    assert alpine["tags"] == [
        {"include": ["latest", r"re:3\.\d+"], "exclude": [r"re:3\.0"]},
        {"semver": ">=3.18 <4"},
    ]
    assert "rename" not in alpine
    assert (quay["repositories"], quay["rename"]) == (
        ["prometheus/**", "!prometheus/old"],
        {"prefix": "quay/"},
    )


def test_the_variable_for_a_password_is_one_that_a_shell_can_set(tmp_path: Path) -> None:
    imported = Imported(
        "version: 1\n"
        "creds: [{registry: '10.0.0.1:5000', user: u, pass: p}, {registry: hub.example, user: u, pass: p}]\n"
        "sync: [{source: '10.0.0.1:5000/app:v1', target: 'hub.example/app:v1', type: image}]\n"
    )
    imported.load(tmp_path)
    names = {site["password"]["env"] for site in imported.sites.values()}
    assert names == {"REGISTRY_10_0_0_1_5000_PASSWORD", "HUB_EXAMPLE_PASSWORD"}


def test_what_regsync_can_and_we_cannot_is_said(tmp_path: Path) -> None:
    imported = Imported(
        "version: 1\nsync:\n- {source: a.io/x, target: b.io/x, type: repository, backup: old}\n"
        "- {source: a.io, target: b.io, type: registry, repos: {allow: ['(a|b)/c']}}\n"
    )
    assert [text for text in imported.dropped if "backup" in text]
    assert [text for text in imported.dropped if "(a|b)/c" in text]
    assert all(f"# NOT TAKEN OVER: {text}" in imported.text for text in imported.dropped)


@pytest.mark.parametrize(
    ("written", "platforms", "mode", "remark"),
    [
        (
            "sync: [{source: a.io/x, target: b.io/x, type: repository, platform: linux/amd64}]",
            ["linux/amd64"],
            "rewrite",
            "# regsync puts the image of the platform itself under the tag",
        ),
        (
            (
                "defaults: {platforms: [linux/amd64, linux/arm64/v8]}\n"
                "sync: [{source: 'a.io/x:v1', target: 'b.io/x:v1', type: image}]"
            ),
            ["linux/amd64", "linux/arm64/v8"],
            "sparse",
            "",
        ),
        (
            (
                "relay: skopeo\ntasks: [{name: t, source: {registry: a.io}, target: {registry: b.io}, "
                "mappings: [{from: x, platform: linux/arm/v7}]}]"
            ),
            ["linux/arm/v7"],
            "rewrite",
            "# dregsy puts",
        ),
        (
            (
                "registries: {a: {url: a.io}, b: {url: b.io}}\ndefaults: {platforms: [linux/amd64]}\n"
                "mappings: [{from: x, source: a, targets: [b]}]"
            ),
            ["linux/amd64"],
            "rewrite",
            "",
        ),
    ],
)
def test_platforms_are_taken_over(
    written: str, platforms: list[str], mode: str, remark: str, tmp_path: Path
) -> None:
    imported = Imported(f"version: 1\n{written}\n" if "relay" not in written else f"{written}\n")
    assert imported.dropped == []
    imported.load(tmp_path)
    [rule] = imported.rules
    assert (rule["platforms"], rule["platform_mode"]) == (platforms, mode)
    assert remark in imported.text


REGSYNC_PLATFORM = """version: 1
sync:
- {{source: a.io/x, target: b.io/x, type: repository, platform: {platform}}}
- {{source: a.io/y, target: b.io/y, type: repository, platform: ""}}
"""
DREGSY_PLATFORM = """relay: skopeo
tasks:
- name: t
  source: {{registry: a.io}}
  target: {{registry: b.io}}
  mappings: [{{from: x, platform: {platform}}}, {{from: y, platform: ""}}]
"""


@pytest.mark.parametrize("platform", ["local", "[linux/amd64]"])
@pytest.mark.parametrize("written", [REGSYNC_PLATFORM, DREGSY_PLATFORM])
def test_what_has_an_invalid_platform_is_not_taken_over_for_all(
    written: str, platform: str, tmp_path: Path
) -> None:
    imported = Imported(written.format(platform=platform))
    assert [text for text in imported.dropped if "invalid platform" in text]
    imported.load(tmp_path)
    [rule] = imported.rules
    assert (rule["repositories"], "platforms" in rule) == (["y"], False)


def test_dregsys_all_platforms_are_all(tmp_path: Path) -> None:
    imported = Imported(
        "relay: skopeo\ntasks: [{name: t, source: {registry: a.io}, target: {registry: b.io}, "
        "mappings: [{from: x, platform: all}]}]\n"
    )
    imported.load(tmp_path)
    [rule] = imported.rules
    assert "platforms" not in rule


SKOPEO = r"""
registry.example.com:
  images:
    busybox: []
    redis: ["1.0", "2.0"]
  images-by-tag-regex: {nginx: '^1\.13\.[12]-alpine-perl$', other: 'rc|beta'}
  images-by-semver: {alpine: ">= 3.12.0"}
  credentials: {username: john, password: this is a secret}
quay.io:
  tls-verify: false
  images: {coreos/etcd: [latest]}
"""


def test_skopeo(tmp_path: Path) -> None:
    imported = Imported(SKOPEO, destination="my.lan:5000/repo")
    imported.load(tmp_path)
    assert "this is a secret" not in imported.text
    assert imported.sites["quay-io"]["tls"] == {"verify": False}
    by_name = {rule["name"]: rule for rule in imported.rules}
    assert by_name["busybox"]["rename"] == {"prefix": "repo/"}
    assert "tags" not in by_name["busybox"]
    assert by_name["redis"]["tags"] == {"include": ["1.0", "2.0"]}
    assert by_name["nginx"]["tags"] == {"include": [r"re:1\.13\.[12]-alpine-perl"]}
    assert by_name["other"]["tags"] == {"include": ["re:.*(?:rc|beta).*"]}
    assert by_name["alpine"]["tags"] == {"semver": ">= 3.12.0"}
    assert by_name["etcd"]["rename"] == {"strip": "coreos/", "prefix": "repo/"}
    scoped = Imported(SKOPEO, destination="my.lan:5000/repo", scoped=True)
    renames = {rule["name"]: rule["rename"] for rule in scoped.rules}
    assert renames["etcd"] == {"prefix": "repo/quay.io/"}


IMAGES = """{
  // as image-syncer documents it
  "quay.io/coreos/kube-rbac-proxy": "registry.cn/ruohe/kube-rbac-proxy",
  "quay.io/a/b:v1,v2": ["registry.cn/a/b", "other.io/mirror/b"],
  "quay.io/a/c:v1": "registry.cn/a/c:stable",
  "quay.io/a/d:/^v[0-9]+$/": "registry.cn/a/d"
}"""
AUTH = '{"quay.io": {"username": "u", "password": "${QUAY}"}, "registry.cn": {"username": "v", "password": "w", "insecure": true}}'


def test_image_syncer(tmp_path: Path) -> None:
    imported = Imported(AUTH, IMAGES)
    imported.load(tmp_path)
    assert imported.sites["quay-io"]["password"] == {"env": "QUAY"}
    assert imported.sites["registry-cn"]["url"] == "http://registry.cn"
    assert [
        (rule["repositories"], rule["destinations"], rule.get("tags"), rule.get("rename"))
        for rule in imported.rules
    ] == [
        (["coreos/kube-rbac-proxy"], ["registry-cn"], None, {"strip": "coreos/", "prefix": "ruohe/"}),
        (["a/b"], ["registry-cn"], {"include": ["v1", "v2"]}, None),
        (["a/b"], ["other-io"], {"include": ["v1", "v2"]}, {"strip": "a/", "prefix": "mirror/"}),
        (
            ["a/c"],
            ["registry-cn"],
            {"include": ["v1"]},
            {"tags": {"regex": [{"match": "^v1$", "replace": "stable"}]}},
        ),
        (["a/d"], ["registry-cn"], {"include": ["re:v[0-9]+"]}, None),
    ]


def test_image_syncer_s_older_single_file() -> None:
    imported = Imported(
        '{"auth": {"a.io": {"username": "u", "password": "p"}}, "images": {"a.io/x/y": "b.io/x/y"}}'
    )
    assert imported.rules[0]["repositories"] == ["x/y"]
    assert imported.sites["a-io"]["username"] == "u"


DREGSY = r"""
relay: skopeo
tasks:
  - name: task1
    interval: 60
    source: {registry: source-registry.acme.com, auth: AUTH}
    target: {registry: dest-registry.acme.com, skip-tls-verify: true}
    mappings:
      - {from: test/image, to: archive/test/image, tags: ['0.1.0', 'semver: >=1.31.0 <1.31.9', 'regex: 1\.26\.[0-9]-(glibc|musl)']}
      - from: test/another-image
      - {from: 'regex: prod/.*', to: 'regex: ^prod/(.*), mirror/$1'}
"""


def test_dregsy(tmp_path: Path) -> None:
    auth = base64.b64encode(json.dumps({"username": "alex", "password": "secret"}).encode()).decode()
    imported = Imported(DREGSY.replace("AUTH", auth))
    imported.load(tmp_path)
    assert auth not in imported.text
    assert imported.sites["source-registry-acme-com"]["username"] == "alex"
    assert imported.sites["dest-registry-acme-com"]["tls"] == {"verify": False}
    image, another, prod = imported.rules
    assert (image["name"], image["interval"], image["rename"]) == ("task1", "60s", {"prefix": "archive/"})
    assert image["tags"] == [
        {"include": ["0.1.0"]},
        {"semver": ">=1.31.0 <1.31.9"},
        {"include": [r"re:.*(?:1\.26\.[0-9]-(glibc|musl)).*"]},
    ]
    assert "rename" not in another
    assert prod["repositories"] == ["prod/**"]
    assert prod["rename"] == {"regex": [{"match": "^prod/(.*)", "replace": r"mirror/\1"}]}


OCYNC = """
registries:
  chainguard: {url: cgr.dev, max_concurrent: 8}
  east: {url: east.example.com, auth_type: basic, credentials: {username: u, password: "${EAST}"}}
  west: {url: west.example.com}
target_groups: {prod: [east, west]}
defaults:
  source: chainguard
  targets: prod
  tags: {semver: ">=1.0, <3", sort: semver, latest: 10, exclude: ["*-dev"]}
mappings:
  - {from: chainguard/nginx, to: nginx}
  - {from: chainguard/python, tags: {include: [latest, "*-slim"], exclude: ["*-r0"]}}
"""


def test_ocync(tmp_path: Path) -> None:
    imported = Imported(OCYNC)
    imported.load(tmp_path)
    nginx, python = imported.rules
    assert nginx["destinations"] == ["east-example-com", "west-example-com"]
    assert nginx["rename"] == {"strip": "chainguard/"}
    assert nginx["tags"]["exclude"][:2] == ["*-dev", "*-rc*"]
    assert (nginx["tags"]["semver"], nginx["tags"]["latest"]) == (">=1.0 <3", 10)
    assert [table.get("include") for table in python["tags"]] == [None, ["*-slim"], ["latest"]]
    assert python["tags"][1]["exclude"] == ["*-r0"]
    assert imported.sites["cgr-dev"]["limits"] == {"concurrency": 8}


HARBOR = """[{
  "name": "to-backup", "enabled": true,
  "src_registry": null,
  "dest_registry": {"id": 2, "url": "https://backup.example.com", "insecure": true,
                    "credential": {"access_key": "robot", "access_secret": "s3cr3t"}},
  "dest_namespace": "mirror", "dest_namespace_replace_count": 1,
  "trigger": {"type": "scheduled", "trigger_settings": {"cron": "0 15 3 * * *"}},
  "filters": [{"type": "name", "value": "library/{a,b}/**"}, {"type": "tag", "value": "*-rc*", "decoration": "excludes"}],
  "replicate_deletion": true, "override": true
}]"""


def test_harbor(tmp_path: Path) -> None:
    imported = Imported(HARBOR)
    imported.load(tmp_path)
    assert "s3cr3t" not in imported.text
    (rule,) = imported.rules
    assert (rule["name"], rule["cron"], rule["repositories"]) == (
        "to-backup",
        "15 3 * * *",
        ["library/{a,b}/**"],
    )
    assert rule["tags"] == {"exclude": ["*-rc*"]}
    assert rule["rename"] == {"regex": [{"match": "^(?:[^/]+/){1}", "replace": "mirror/"}]}
    assert {text.partition(": ")[2][:9] for text in imported.dropped} == {"deletions", "the URL o"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "not valid YAML"),
        ("- 1\n", "not recognized"),
        (SKOPEO, "--destination"),
    ],
)
def test_what_cannot_be_imported_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Imported(text)


def test_what_stays_in_one_registry_is_named_and_left_out() -> None:
    text = "quay.io/a/b: quay.io/c/b\nquay.io/a/d: [quay.io/c/d, other.io/c/d]\n"
    imported = Imported(text)
    assert [(rule["repositories"], rule["destinations"]) for rule in imported.rules] == [
        (["a/d"], ["other-io"])
    ]
    assert [each.partition(":")[0] for each in imported.dropped] == ["a/b", "a/d"]


def test_a_digest_among_the_tags_of_skopeo_is_named() -> None:
    digest = "sha256:" + "0" * 64
    text = f"quay.io:\n  images:\n    a: ['1', '{digest}']\n    b: ['{digest}']\n"
    imported = Imported(text, destination="my.lan:5000")
    assert [(rule["repositories"], rule["tags"]) for rule in imported.rules] == [(["a"], {"include": ["1"]})]
    assert [digest in each for each in imported.dropped] == [True, True]


def test_rules_that_are_alike_become_one() -> None:
    lines = "".join(
        f"- {{source: a.io/team/{name}, target: b.io/mirror/{name}, type: repository}}\n" for name in "xyz"
    )
    imported = Imported(f"version: 1\nsync:\n{lines}")
    (rule,) = imported.rules
    assert rule["repositories"] == ["team/x", "team/y", "team/z"]
    assert rule["rename"] == {"strip": "team/", "prefix": "mirror/"}
