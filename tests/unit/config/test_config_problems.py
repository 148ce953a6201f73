from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.config.document import suggest
from replicator.config.load import load
from replicator.config.model import AgentTable, RuleTable, SiteTable
from replicator.errors import ConfigError

HOME = {"HOME": "/home/me"}
SITES = '[site.hub]\nurl = "https://hub.example.com"\n[site.fra]\nurl = "https://fra.example.com"\n'
RULE = '[[rule]]\nname = "platform"\nsource = "hub"\ndestinations = ["fra"]\nrepositories = ["platform/**"]\n'


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, HOME)
    return list(caught.value.problems)


EVERYTHING_WRONG = r"""
[agent]
state = "sqlite:///state.db"
lisen = "127.0.0.1:9650"

[site.hub]
url = "https://hub.example.com"
username = "mirror"
password = { file = "absent.password" }
limits = { bytes_per_second = "50 megs" }

[site.fra]
url = "https://${FRA_HOST}"

[[rule]]
name = "platform"
source = "hup"
destinations = ["fra", "fra"]
repositories = ["platform/**", ""]
intervall = "5m"
recheck = "1 day"
tags = { include = ["re:v(", ""], semver = ">=one", latest = "10" }

[[rule]]
name = "platform"
source = "fra"
mirrors = ["fra"]
destinations = ["fra"]
repositories = ["!scratch/**"]
"""


def test_all_mistakes_are_reported_at_once_with_file_key_and_what_would_be_right(tmp_path: Path) -> None:
    main, broken = tmp_path / "replicator.toml", tmp_path / "conf.d" / "broken.toml"
    main.write_text(EVERYTHING_WRONG)
    broken.parent.mkdir()
    broken.write_text('[site.x]\nurl = "https://x.example.com\n')
    expected = {
        "agent.state": "absolute path of a file, with four slashes",
        "agent.lisen": "unknown key; did you mean 'listen'?",
        "site.hub.password": "absent.password cannot be read: No such file or directory",
        "site.hub.limits.bytes_per_second": "invalid size '50 megs': write a number with a unit",
        "site.fra.url": "the environment variable FRA_HOST is not set",
        "rule.platform.source": "unknown site 'hup' (it may be defined in the file that could not be read); did you mean 'hub'?",
        "rule.platform.destinations[1]": "the site 'fra' is listed twice",
        "rule.platform.repositories[1]": "an empty pattern",
        "rule.platform.intervall": "unknown key; did you mean 'interval'?",
        "rule.platform.recheck": "invalid duration '1 day'",
        "rule.platform.tags.include[0]": "invalid regular expression 're:v(': missing ), unterminated subpattern",
        "rule.platform.tags.include[1]": "an empty pattern",
        "rule.platform.tags.semver": "invalid version 'one'",
        "rule.platform.tags.latest": "must be a whole number",
        "rule.platform.name": f"a rule with this name is already defined in {main}",
        "rule.platform.mirrors[0]": "the site 'fra' is the source of this rule; mirrors must be",
        "rule.platform.destinations[0]": "the site 'fra' is the source of this rule",
        "rule.platform.repositories": "contains only exclusions",
    }
    found = problems(main)
    syntax = [text for text in found if text.startswith(f"{broken}:")]
    assert [re.sub(r"TOML: .*", "TOML", text) for text in syntax] == [f"{broken}:2:29: is not valid TOML"]
    rest = dict(text.removeprefix(f"{main}: ").split(": ", 1) for text in found if text not in syntax)
    assert rest.keys() == expected.keys()
    assert {key: part for key, part in expected.items() if part not in rest[key]} == {}
    assert len(found) == len(expected) + 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[rules]", "rules: unknown key; did you mean 'rule'?"),
        ("agent = 5", "agent: must be a table; write [agent]"),
        ("site = []", "site: must be a table of tables; write [site.NAME]"),
        ("[site.x.auth]\nkind = 'aws'", "site.x.auth.kind: must be 'ecr', 'acr', 'google' or 'github'"),
        (
            "[site.x.auth]\nrole_arn = 'arn:aws:iam::123456789012:role/x'",
            'site.x.auth.role_arn: requires kind = "ecr"',
        ),
        ("[site.x.auth]\nkind = 'ecr'\ntenant = 'x'", 'site.x.auth.tenant: requires kind = "acr"'),
        ("[site.x.auth]\nkind = 'ecr'\nrole_arn = 'mirror'", "site.x.auth.role_arn: "),
        ("[site.x.auth]\nkind = 'ecr'\nexternal_id = 'abc'", "site.x.auth.external_id: requires role_arn"),
        ("[site.x.auth]\nkind = 'github'\napp_id = '1'", "site.x.auth.kind: requires installation_id"),
        (
            "[site.x]\nusername = 'a'\nauth = { kind = 'acr' }",
            "site.x.auth.kind: cannot be combined with username",
        ),
        ("[site.x]\nurl = 'https://quay.io'\ncreate = 3", "site.x.create: must be a table"),
        ("[site.x]\nurl = 'https://quay.io'\ncreate = true", "site.x.create: requires token for Quay"),
        (
            "[site.x]\nurl = 'https://ghcr.io'\ncreate = true",
            "site.x.create: does not apply to GitHub Container",
        ),
        ("[site.x]\nurl = 's3://bucket'\ncreate = true", "site.x.create: applies only to a registry"),
        (
            "[site.x]\nurl = 'https://h'\nkind = 'harbor'\ncreate = { immutability = 'MUTABLE' }",
            "site.x.create.immutability: applies only to AWS ECR, Google Artifact Registry, but this registry is Harbor",
        ),
        (
            "[site.x]\nurl = 'https://h'\ncreate = { quota = '5GB' }",
            'site.x.create.quota: applies only to Harbor; set kind = "harbor"',
        ),
        (
            "[site.x]\nurl = 'https://h'\nkind = 'ecr'\ncreate = { exclusions = ['*'], kms_key = 'k' }",
            "site.x.create.exclusions: requires immutability",
        ),
        (
            "[site.x]\nurl = 'https://h'\nkind = 'ecr'\ncreate = { kms_key = 'k' }",
            'site.x.create.kms_key: requires encryption = "KMS"',
        ),
        (
            "[site.x]\nurl = 'https://h'\nkind = 'ecr'\ncreate = { immutability = 'MUTABLE', exclusions = ['a b'] }",
            "site.x.create.exclusions[0]: invalid pattern 'a b'",
        ),
        (
            "[site.x]\nurl = 'https://h'\nkind = 'ecr'\ncreate = { policy = 'absent.json' }",
            "site.x.create.policy: ",
        ),
        (
            "[site.x]\nurl = 'https://h'\nkind = 'ecr'\ncreate = { policy = 'replicator.toml' }",
            "site.x.create.policy: /",
        ),
        ("[site]\nurl = 'https://x'", "site.url: must be a table; write [site.NAME]"),
        ("[rule]\nname = 'x'", "rule: must be a list of tables; write [[rule]]"),
        ("[site.'a b']\nurl = 'https://x'", "site.\"a b\": invalid name 'a b'"),
        ("[site.'../x']\nurl = 'https://x'", "site.\"../x\": invalid name '../x'"),
        ("[site.x]", "site.x.url: is missing: A registry: `https://` or `http://`, host"),
        ("[site.x]\nurl = 5", "site.x.url: must be a string"),
        (
            "[site.x]\nurl = 'x.example.com'",
            "site.x.url: must start with https:// or http:// (a registry), s3:// (a bucket) or file:// (a directory); write https",
        ),
        (
            "[site.x]\nurl = '/srv/images'",
            "site.x.url: must start with https:// or http:// (a registry), s3:// (a bucket) or file:// (a directory); write file:///srv",
        ),
        ("[site.x]\nurl = 'ftp://x'", "site.x.url: must start with https:// or http://"),
        (
            "[site.x]\nurl = 's3://'",
            "site.x.url: has no valid bucket name; write s3://BUCKET or s3://BUCKET/PREFIX",
        ),
        ("[site.x]\nurl = 's3://k:s@bucket'", "site.x.url: contains credentials; set access_key"),
        (
            "[site.x]\nurl = 's3://bucket/a/../b'",
            "site.x.url: the prefix 'a/../b' has an empty part, '.', '..'",
        ),
        ("[site.x]\nurl = 'file://srv'", "site.x.url: must be the absolute path of a directory"),
        ("[site.x]\nurl = 'file:///srv/../etc'", "site.x.url: has '..' or a NUL character in its path"),
        (
            "[site.x]\nurl = 's3://bucket'\nusername = 'me'\npassword = 'p'",
            "site.x.username: applies only to a registry, but s3:// is a bucket; remove it",
        ),
        (
            "[site.x]\nurl = 'https://x.example.com'\nlayout = 'oci'",
            "site.x.layout: applies only to a bucket or directory, but https:// is a registry; remove it",
        ),
        (
            "[site.x]\nurl = 'file:///srv'\nregion = 'x'",
            "site.x.region: applies only to a bucket, but file:// is a directory; remove it",
        ),
        ("[site.x]\nurl = 's3://bucket'\nlayout = 'tar'", "site.x.layout: must be 'distribution' or 'oci'"),
        ("[site.x]\nurl = 's3://bucket'\naccess_key = 'a'", "site.x.access_key: requires secret_key; set"),
        (
            "[site.x]\nurl = 's3://bucket'\naccess_key = 'a'\nsecret_key = 'b'\nprofile = 'c'",
            "site.x.profile: cannot be combined with access_key; keep one of them",
        ),
        ("[site.x]\nurl = 's3://bucket'\nkms_key = 'k'", 'site.x.kms_key: requires sse = "aws:kms"'),
        (
            "[site.x]\nurl = 's3://bucket'\nendpoint = 'minio:9000'",
            "site.x.endpoint: must start with https://",
        ),
        (
            "[site.x]\nurl = 'https://u:p@x'",
            "site.x.url: contains credentials; set username and password instead",
        ),
        ("[site.x]\nurl = 'https://x?y=1'", "site.x.url: has a query or fragment"),
        ("[site.x]\nurl = 'https://x:99999'", "site.x.url: is not a valid URL: host or port is malformed"),
        ("[site.x]\nurl = 'https:///v2'", "site.x.url: has no host"),
        ("[site.x]\nurl = 'https://x y'", "site.x.url: contains a space or control character"),
        ("[site.x]\nurl = 'https://x'\nurl2 = 1", "site.x.url2: unknown key; did you mean 'url'?"),
        ("[site.x]\nurl = 'https://x${'", "site.x.url: contains ${ without NAME"),
        (
            "[site.x]\nurl = 'https://x'\nproxy = 'socks5://x'",
            "site.x.proxy: must start with http:// or https://",
        ),
        ("[site.x]\nurl = 'https://x'\nusername = 'u'", "site.x.username: requires password"),
        ("[site.x]\nurl = 'https://x'\npassword = 'p'", "site.x.password: requires username"),
        (
            "[site.x]\nurl = 'https://x'\nusername = 'u'\npassword = 'p'\nbearer_token = 't'",
            "site.x.bearer_token: cannot be combined with password",
        ),
        (
            "[site.x]\nurl = 'https://x'\nusername = 'u'\nbearer_token = 't'",
            "site.x.username: cannot be combined with bearer_token",
        ),
        ("[site.x]\nurl = 'https://x'\ntls = { ca = 'absent.pem' }", "site.x.tls.ca: "),
        (
            "[site.x]\nurl = 'http://x'\ntls = { verify = false }",
            "site.x.tls: cannot be combined with an http:// url",
        ),
        ("[site.x]\nurl = 'https://x'\ntls = { cert = '/dev/null' }", "site.x.tls.cert: requires key"),
        ("[site.x]\nurl = 'https://x'\ntls = true", "site.x.tls: must be a table"),
        (
            "[site.x]\nurl = 'https://x'\nlimits = { concurrency = 0 }",
            "site.x.limits.concurrency: must be at least 1",
        ),
        (
            "[site.x]\nurl = 'https://x'\nlimits = { concurrency = '8' }",
            "site.x.limits.concurrency: must be a whole number",
        ),
        (
            "[site.x]\nurl = 'https://x'\nlimits = { requests_per_second = nan }",
            "site.x.limits.requests_per_second: must be a",
        ),
        (
            "[site.x]\nurl = 'https://x'\nlimits = { rate = 1 }",
            "site.x.limits.rate: unknown key; known: bytes_per_sec",
        ),
        (
            "[site.x]\nurl = 'https://x'\nquota = { below = 'halt' }",
            "site.x.quota.below: must be 'wait' or 'stop'",
        ),
        ("[site.x]\nurl = 'https://x'\ndocker_config = 'no'", "site.x.docker_config: must be true or false"),
        (
            "[site.x]\nurl = 'https://x'\ncapabilities = { mounts = true }",
            "site.x.capabilities.mounts: unknown capability",
        ),
        (
            "[site.x]\nurl = 'https://x'\ncapabilities = { mount = 1.5 }",
            "site.x.capabilities.mount: 1.5 is not true or false",
        ),
        (
            "[agent]\nstate = 'mysql://db/x'",
            "agent.state: must be a URL with the scheme sqlite or postgresql",
        ),
        ("[agent]\nstate = 'postgresql://db'", "agent.state: must name a host and a database"),
        ("[agent]\nstate = 'postgresql:///x'", "agent.state: must name a host and a database"),
        ("[agent]\nstate = 'postgresql://[db/x'", "agent.state: is not a URL"),
        (
            "[agent]\nstate = 'postgresql://me:hidden@db/x'",
            "agent.state: must not contain a password; set state_password",
        ),
        ("[agent]\nstate = 'postgresql://db/x?password=hidden'", "agent.state: must not contain a password"),
        ("[agent]\nstate = 'postgresql://db/x?options=-c'", "agent.state: unknown parameter 'options'"),
        (
            "[agent]\nstate_password = 'hidden'",
            "agent.state_password: is only for a state on PostgreSQL; set state, or remove it",
        ),
        (
            "[fleet]\nenabled = true",
            "fleet.enabled: requires a state that agents can share; set state = ",
        ),
        (
            "[agent]\nstate = 'sqlite:////state.db'\n[fleet]\nenabled = true",
            "fleet.enabled: requires a state that agents can share; set state = ",
        ),
        ("[agent]\nstate = '/var/lib/state.db'", "agent.state: must be a URL with the scheme sqlite"),
        ("[agent]\nstate = 'sqlite:////'", "agent.state: must be the absolute path of a file"),
        ("[agent]\nserves = []", "agent.serves: is empty; add at least one item"),
        ("[agent]\nserves = ['fra']", "agent.serves[0]: unknown site 'fra'; there are none"),
        ("[agent]\nname = ''", "agent.name: invalid name ''"),
        (
            "[agent]\ncache = { path = 'cache' }",
            "agent.cache.path: 'cache' is relative; write an absolute path",
        ),
        ("[[rule]]\n" + SITES, "rule[0].name: is missing"),
        (SITES + RULE + "tags = 'v*'", "rule.platform.tags: must be a list"),
        (SITES + RULE + "tags = ['v*']", "rule.platform.tags[0]: must be a table"),
        (SITES + RULE + "tags = [{}, { latest = 0 }]", "rule.platform.tags[1].latest: must be at least 1"),
        (SITES + RULE + "tags = { include = [] }", "rule.platform.tags.include: is empty"),
        (
            SITES + RULE + "tags = { sort = 'age' }",
            "rule.platform.tags.sort: must be 'semver', 'alpha' or 'created'",
        ),
        (
            SITES + RULE + "tags = { lates = 1 }",
            "rule.platform.tags.lates: unknown key; did you mean 'latest'?",
        ),
        (SITES + RULE + "tags = { include = ['sha256:abc'] }", "rule.platform.tags.include[0]: "),
        (
            SITES + RULE + "tags = { include = ['v1@sha256:abc'] }",
            "rule.platform.tags.include[0]: invalid digest 'sha256:abc'",
        ),
        (
            SITES + RULE + f"tags = {{ exclude = ['sha256:{'a' * 64}'] }}",
            "rule.platform.tags.exclude[0]: 'sha256:aaaa",
        ),
        (
            SITES + RULE + "rename = { tags = { regex = [{ match = '(' }] } }",
            "rule.platform.rename.tags.regex[0].match: invalid regular expression '('",
        ),
        (
            SITES + RULE + r"rename = { regex = [{ match = 'a(b)', replace = '\2' }] }",
            r"rule.platform.rename.regex[0].replace: '\\2' does not match 'a(b)': invalid group reference",
        ),
        (
            SITES + RULE + r"rename = { regex = [{ match = '(?x)a # c', replace = '\g<n>' }] }",
            "rule.platform.rename.regex[0].replace: ",
        ),
        (
            SITES + RULE + "cron = '* * * * *'\ninterval = '5m'",
            "rule.platform.cron: cannot be combined with interval; keep one of them",
        ),
        (
            SITES + RULE + "referrers = 'some'",
            "rule.platform.referrers: must be 'all', 'root' or 'none'",
        ),
        (
            SITES + RULE + "referrers = { require = ['spdx'] }",
            "rule.platform.referrers.require[0]: unknown kind 'spdx': write one of signature, attestation, sbom",
        ),
        (
            SITES + RULE + "referrers = { mode = 'none', require = ['signature'] }",
            'rule.platform.referrers.require: cannot be combined with mode = "none"',
        ),
        (SITES + RULE + "cron = '61 * * * *'", "rule.platform.cron: invalid cron expression '61 * * * *'"),
        (SITES + RULE + "cron = '* * * *'", "rule.platform.cron: invalid cron expression '* * * *'"),
        (SITES + RULE + "cron = '0 0 31 2 *'", "rule.platform.cron: invalid cron expression '0 0 31 2 *'"),
        (SITES + RULE + "timezone = 'UTC'", "rule.platform.timezone: applies only to cron"),
        (
            SITES + RULE + "cron = '0 0 * * *'\ntimezone = 'Europe/Berln'",
            "rule.platform.timezone: unknown time zone 'Europe/Berln'",
        ),
        (SITES + RULE + "hooks = { before = 'x' }", "rule.platform.hooks.before: must be a list"),
        ("[agent]\nlisten = '9650'\n" + SITES, "agent.listen: invalid address '9650'"),
        (
            "[agent]\nlisten = '0.0.0.0:9650'\n" + SITES,
            "agent.listen: is not a loopback address, which requires a token",
        ),
        (SITES + "[webhook.x]\nsite = 'hup'\ntoken = 'a'", "webhook.x.site: unknown site 'hup'"),
        (
            SITES + "[webhook.x]\nsite = 'hub'",
            "webhook.x: has no authentication; set one of token, header, url_token, hmac",
        ),
        (
            SITES + "[webhook.x]\nsite = 'hub'\ntoken = 'a'\nhmac = { header = 'X-S', secret = 'b' }",
            "webhook.x.hmac: cannot be combined with token",
        ),
        (
            SITES + "[webhook.x]\nsite = 'hub'\nkind = 'harbour'\ntoken = 'a'",
            "webhook.x.kind: unknown kind 'harbour'; write one of acr, alibaba,",
        ),
        (
            SITES + "[webhook.x]\nsite = 'hub'\nhmac = { secret = 'b' }",
            "webhook.x.hmac: requires header, unless kind is one that signs: artifactory, ghcr, gitea, nexus",
        ),
        (
            SITES + "[webhook.x]\nsite = 'hub'\nkind = 'quay'\nheader = { value = 'b' }",
            "webhook.x.header: requires name, unless kind is one of artifactory, gitlab",
        ),
        (
            SITES
            + "[webhook.x]\nsite = 'hub'\noidc = { audience = 'a', email = 'a@b', keys_url = 'http://evil.example/k' }",
            "webhook.x.oidc.keys_url: must be https://",
        ),
        (
            SITES + "[webhook.x]\nsite = 'hub'\noidc = { audience = 'a' }",
            "webhook.x.oidc.email: is missing",
        ),
        (SITES + "[notify.x]", "notify.x: has no receiver; set url or command"),
        (
            SITES + "[notify.x]\nurl = 'https://x.example.com'\ntemplate = '{\"a\": \"{rul}\"}'",
            "notify.x.template: has the unknown placeholder {rul}; known: event, rule",
        ),
        (SITES + "[notify.x]\nurl = 'u'\ntemplate = '{'", "notify.x.template: is not valid JSON"),
        (
            SITES + "[notify.x]\nurl = 'nonsense'",
            "notify.x.url: is not a valid URL; write https://HOST/PATH",
        ),
        (SITES + "[notify.x]\nurl = '${ABSENT}'", "notify.x.url: the environment variable ABSENT is not set"),
        (SITES + "[notify.x]\nurl = 'ftp://chat.example.com/x'", "notify.x.url: is not a valid URL"),
        (SITES + "[notify.x]\nurl = 'https:///x'", "notify.x.url: is not a valid URL"),
        (SITES + "[notify.x]\nurl = 'https://chat:port/x'", "notify.x.url: is not a valid URL"),
        (
            SITES.replace('com"\n[site.fra]', 'com"\nlimits.bytes_per_second = "fast"\n[site.fra]'),
            "site.hub.limits.bytes_per_second: invalid size 'fast'",
        ),
        (
            SITES
            + "limits.bytes_per_second = { windows = [{ from = '8:00', to = '24:00', limit = '1MB' }] }",
            "site.fra.limits.bytes_per_second.windows[0].from: invalid time of day '8:00'",
        ),
        (
            SITES
            + "limits.bytes_per_second = { windows = [{ form = '08:00', to = '24:00', limit = '1MB' }] }",
            "site.fra.limits.bytes_per_second.windows[0].form: unknown key; did you mean 'from'?",
        ),
        (
            SITES + "limits.bytes_per_second = { windows = [{ from = '08:00', to = '24:00' }] }",
            "site.fra.limits.bytes_per_second.windows[0].limit: is missing",
        ),
        (SITES + RULE + "interval = '0s'", "rule.platform.interval: invalid duration '0s'"),
        (
            SITES + RULE.replace("'platform'", "'a/b'").replace('"platform"', '"a/b"'),
            "rule.\"a/b\".name: invalid name 'a/b'",
        ),
    ],
)
def test_a_mistake_is_named_by_its_key_and_put_right(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "replicator.toml"
    path.write_text(text)
    assert any(found.startswith(f"{path}: {problem}") for found in problems(path)), problems(path)


def test_a_state_whose_variable_is_not_set_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "replicator.toml"
    agent = "[agent]\nstate = '${ABSENT}'\nstate_password = 'hidden'\n"
    path.write_text(f"{agent}[fleet]\nenabled = true\n{SITES}{RULE}")
    (problem,) = problems(path)
    assert "agent.state: the environment variable ABSENT is not set" in problem


@pytest.mark.parametrize("key", ["delete"])
def test_keys_of_later_versions_are_unknown(tmp_path: Path, key: str) -> None:
    path = tmp_path / "replicator.toml"
    path.write_text(SITES + RULE + f"{key} = true")
    (problem,) = problems(path)
    assert f"rule.platform.{key}: unknown key" in problem


def test_two_sources_for_one_target_are_a_problem_where_it_is_certain(tmp_path: Path) -> None:
    path = tmp_path / "replicator.toml"
    exact = RULE.replace("platform/**", "a/x") + 'rename = { strip = "a/" }\n'
    other = (
        RULE.replace("platform/**", "b/x").replace('"platform"', '"other"') + 'rename = { strip = "b/" }\n'
    )
    path.write_text(SITES + exact + other)
    (problem,) = problems(path)
    assert problem.startswith(f"{path}: rules 'platform' and 'other' both write fra: ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff", "is not valid UTF-8"),
        (b"a = ", "is not valid TOML: Invalid value"),
        (
            rb'a = "re:v\d+"',
            r"Unescaped '\' in a string; put it in single quotes, as in 're:v\d+', or write \\",
        ),
        (b"a = " + b"[" * 5000, "is not valid TOML"),
    ],
)
def test_a_file_that_is_no_toml_is_a_problem(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "replicator.toml"
    path.write_bytes(data)
    (problem,) = problems(path)
    assert problem.startswith(str(path))
    assert message in problem


def test_a_variable_that_is_not_set_is_the_only_problem_of_its_key(tmp_path: Path) -> None:
    path = tmp_path / "replicator.toml"
    rule = RULE.replace('["fra"]', '["${A}"]').replace('"hub"', '"${B}"')
    path.write_text(SITES + rule + 'interval = "${C}"\ntags = { semver = "${D}" }\n')
    keys = ["source", "destinations[0]", "interval", "tags.semver"]
    assert sorted(text.split(": ")[1] for text in problems(path)) == sorted(
        f"rule.platform.{key}" for key in keys
    )


def test_the_nearest_word_is_suggested_else_all() -> None:
    assert suggest("destination", ["destinations", "source"]) == "did you mean 'destinations'?"
    assert suggest("zzz", ["b", "a"]) == "known: a, b"


_texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
_values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | _texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=6,
)
_tables = st.dictionaries(
    st.sampled_from(sorted({*AgentTable.model_fields, *SiteTable.model_fields, *RuleTable.model_fields})),
    _values,
    max_size=6,
)


@settings(deadline=None)  # the first example builds the models
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "agent": _tables | _values,
            "site": st.dictionaries(st.text("ab", min_size=1), _tables | _values, max_size=2) | _values,
            "rule": st.lists(_tables, max_size=2) | _values,
        },
    )
)
def test_whatever_toml_says_the_answer_is_a_config_or_its_problems(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("any") / "replicator.toml"
    path.write_text(tomlkit.dumps(document))
    try:
        found = list(load(path, HOME).files)
    except ConfigError as error:
        found = [Path(text.partition(":")[0]) for text in error.problems]
    assert set(found) == {path}


def test_rules_that_copy_the_same_tags_in_a_circle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "replicator.toml"
    back = '[[rule]]\nname = "back"\nsource = "fra"\ndestinations = ["hub"]\nrepositories = ["{}"]\n'
    path.write_text(SITES + RULE + back.format("**"))
    (problem,) = problems(path)
    assert problem.startswith(
        f"{path}: rules 'platform' and 'back' copy platform/x:latest from 'hub' in a circle: "
    )
    assert "two-way sites will be a rule of their own" in problem
    path.write_text(SITES + RULE + back.format("other/**"))
    load(path, HOME)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('platforms = ["linux/x86_64"]', "platforms[0]: invalid platform 'linux/x86_64': write linux/amd64"),
        ("platforms = []", "platforms:"),
        (
            'platform_mode = "rewrite"',
            "platform_mode: applies only to platforms; set platforms or remove platform_mode",
        ),
        ('platforms = ["linux/amd64"]\nplatform_mode = "both"', "platform_mode:"),
        ('platforms = ["linux/amd64"]\nmissing_platform = "drop"', "missing_platform:"),
    ],
)
def test_platforms_that_cannot_be_meant(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "replicator.toml"
    path.write_text(SITES + RULE + line)
    (found,) = problems(path)
    assert problem in found
