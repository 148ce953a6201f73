from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from msgspec.structs import replace

from replicator.config.load import load
from replicator.config.settings import AgentSettings, Loaded, ServerTLS
from replicator.errors import ConfigError
from replicator.flow.settings import LimitSettings
from replicator.model.digest import Digest
from replicator.policy.rule import Pin, Rename, TagSelection
from replicator.sites.layouts.settings import LayoutSettings
from replicator.sites.objects.settings import LocalSettings, S3Settings
from replicator.sites.registry.settings import Login, RegistrySettings
from replicator.sites.registry.vendors.creation import CreateSettings
from replicator.sites.timeouts import Timeouts

HOME = {"HOME": "/home/me"}
SITES = '[site.hub]\nurl = "https://hub.example.com"\n[site.fra]\nurl = "https://fra.example.com"\n'
RULE = '[[rule]]\nname = "platform"\nsource = "hub"\ndestinations = ["fra"]\nrepositories = ["platform/**"]\n'


def config(folder: Path, text: str, name: str = "replicator.toml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    return path


def loaded(folder: Path, text: str, **environ: str) -> Loaded:
    return load(config(folder, text), {**HOME, **environ})


def problems(folder: Path, text: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, **environ)
    return caught.value.problems


def test_the_smallest_config_has_all_defaults(tmp_path: Path) -> None:
    found = loaded(tmp_path, SITES + RULE)
    assert found.sites["hub"] == RegistrySettings("hub", "https://hub.example.com")
    (rule,) = found.rules
    assert (rule.name, rule.source, rule.destinations, rule.mirrors) == ("platform", "hub", ("fra",), ())
    assert rule.tags == (TagSelection(),)
    assert (rule.rename_repository, rule.rename_tag) == (Rename(), Rename())
    assert (rule.recheck, rule.verify_every, rule.interval) == (86400.0, 7 * 86400.0, None)
    assert found.agent.name == os.uname().nodename
    assert found.agent.serves == ("hub", "fra")
    assert found.agent.cache_max_bytes == 20_000_000_000
    assert found.warnings == ()
    assert found.files == (tmp_path / "replicator.toml",)


def test_buckets_and_directories_arrive_with_every_key(tmp_path: Path) -> None:
    text = """
        [site.near]
        url = "s3://bucket/some/prefix/"
        endpoint = "http://127.0.0.1:9000/"
        region = "eu-central-1"
        path_style = false
        access_key = { env = "KEY" }
        secret_key = { env = "KEY" }
        session_token = { env = "KEY" }
        sse = "aws:kms"
        kms_key = "k"
        storage_class = "STANDARD_IA"
        limits = { concurrency = 3, requests_per_second = 5, bytes_per_second = "1MB" }
        timeouts = { read = "2s" }
        max_blob_bytes = "1GB"
        [site.plain]
        url = "s3://bucket"
        layout = "oci"
        profile = "p"
        [site.shelf]
        url = "file:///srv/mirror/"
        [site.disk]
        url = "file:///srv/registry"
        layout = "distribution"
    """
    sites = loaded(tmp_path, SITES + RULE + text, KEY="k").sites
    near = sites["near"]
    assert isinstance(near, LayoutSettings)
    assert isinstance(near.store, S3Settings)
    assert near.store.keys is not None
    assert near.store.keys.session_token is not None
    assert near.store.keys.secret_key() == near.store.keys.session_token() == "k"
    assert replace(near.store, keys=None) == S3Settings(
        "near",
        "bucket",
        "some/prefix",
        endpoint="http://127.0.0.1:9000",
        region="eu-central-1",
        path_style=False,
        sse="aws:kms",
        kms_key="k",
        storage_class="STANDARD_IA",
        limits=LimitSettings(3, 5, 1_000_000),
        timeouts=Timeouts(read=2.0),
        max_blob_bytes=1_000_000_000,
    )
    assert near.layout == "distribution"
    assert sites["plain"] == LayoutSettings(S3Settings("plain", "bucket", profile="p"), "oci")
    assert sites["shelf"] == LayoutSettings(LocalSettings("shelf", Path("/srv/mirror")), "oci")
    assert sites["disk"] == LayoutSettings(LocalSettings("disk", Path("/srv/registry")), "distribution")


def test_every_key_of_a_rule_arrives(tmp_path: Path) -> None:
    digest = Digest("sha256:" + "a" * 64)
    text = f"""
        [site.near]
        url = "https://near.example.com/prefix/"
        [[rule]]
        name = "all"
        source = "hub"
        mirrors = ["near"]
        destinations = ["fra"]
        repositories = ["a/**", "b", "!a/secret"]
        interval = "5m"
        recheck = "1h30m"
        [rule.tags]
        include = ["v*", "re:x+", "v1@{digest}", "{digest}"]
        exclude = ["*-rc"]
        semver = ">=1.2"
        sort = "created"
        latest = 3
        newer_than = "1d"
        min_tags = 2
        immutable = ["v1.*"]
        [rule.rename]
        strip = "a/"
        prefix = "m/"
        suffix = "-x"
        regex = [{{ match = '^q(\\d)', replace = 'r\\1' }}]
        [rule.rename.tags]
        prefix = "t-"
    """
    found = loaded(tmp_path, SITES + text)
    assert found.sites["near"].url == "https://near.example.com/prefix"
    (rule,) = found.rules
    assert [glob.text for glob in rule.repositories.include] == ["a/**", "b"]
    assert [glob.text for glob in rule.repositories.exclude] == ["a/secret"]
    assert (rule.mirrors, rule.interval, rule.recheck) == (("near",), 300.0, 5400.0)
    (tags,) = rule.tags
    assert [pattern.text for pattern in tags.include] == ["v*", "re:x+"]
    assert tags.pins == (Pin(digest, "v1"), Pin(digest))
    assert [pattern.text for pattern in tags.exclude] == ["*-rc"]
    assert [pattern.text for pattern in tags.immutable] == ["v1.*"]
    assert tags.semver is not None
    assert (tags.semver.text, tags.sort, tags.latest, tags.newer_than, tags.min_tags) == (
        ">=1.2",
        "created",
        3,
        86400,
        2,
    )
    rename = rule.rename_repository
    assert (rename.strip, rename.prefix, rename.suffix) == ("a/", "m/", "-x")
    assert [(item.regex.pattern, item.replace) for item in rename.replacements] == [(r"^q(\d)", r"r\1")]
    assert rule.rename_tag == Rename(prefix="t-")


def test_every_key_of_a_site_arrives(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    text = """
        [site.hub]
        url = "https://hub.example.com:5000"
        username = "mirror"
        password = { env = "SECRET" }
        docker_config = false
        tls = { ca = "ca.pem", cert = "ca.pem", key = "ca.pem", verify = false }
        proxy = ""
        limits = { concurrency = 4, requests_per_second = 0.5, bytes_per_second = "1MiB" }
        quota = { reserve = 7, below = "stop" }
        redirects = "any"
        private_addresses = true
        max_blob_bytes = "5GB"
        auth = { realm = "http://auth.example.com:5001/token" }
        timeouts = { connect = "5s", first_byte = "10m", read = "2m", commit = "1h", minimum_rate = "5kB" }
        capabilities = { mount = false, upload = "patch" }
    """
    site = loaded(tmp_path, text, SECRET="hush").sites["hub"]
    assert isinstance(site, RegistrySettings)
    assert site.login is not None
    assert site.login.password is not None
    assert (site.login.username, site.login.password()) == ("mirror", "hush")
    assert (site.url, site.docker_config, site.proxy) == ("https://hub.example.com:5000", False, "")
    assert dataclasses.astuple(site.tls)[:-1] == (*[tmp_path / "ca.pem"] * 3, False)
    assert msgspec.structs.astuple(site.limits) == (4, 0.5, 1024**2)
    assert msgspec.structs.astuple(site.quota) == (7, "stop")
    assert (site.redirects, site.private_addresses) == ("any", True)
    assert site.max_blob_bytes == 5_000_000_000
    assert site.realm == "http://auth.example.com:5001/token"
    assert msgspec.structs.astuple(site.timeouts) == (5, 600, 120, 3600, 5000)
    assert site.capabilities == {"mount": False, "upload": "patch"}


def test_a_token_for_creation_in_plain_text_or_over_http_is_a_warning(tmp_path: Path) -> None:
    text = """
[site.gitlab]
url = "https://registry.example.com"
kind = "gitlab"
create = { token = "secret", api = "http://gitlab.example.com" }
"""
    told = load(config(tmp_path, SITES + text + RULE), HOME).warnings
    assert [warning.partition("replicator.toml: ")[2] for warning in told] == [
        "site.gitlab.create: api sends the token unencrypted; use https://",
        'site.gitlab.create.token: is a plain-text secret; move it to a file: { file = "PATH" }',
    ]


def test_a_password_of_the_state_or_a_signing_key_in_plain_text_is_a_warning(tmp_path: Path) -> None:
    state = "[agent]\nstate = 'postgresql://me@db/x'\nstate_password = "
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    sign = f'[rule.sign]\nkey = """\n{pem}"""\n'
    told = load(config(tmp_path, f'{state}"hidden"\n{SITES}{RULE}{sign}'), HOME).warnings
    assert [warning.partition("replicator.toml: ")[2] for warning in told] == [
        'agent.state_password: is a plain-text secret; move it to a file: { file = "PATH" }',
        'rule.platform.sign.key: is a plain-text secret; move it to a file: { file = "PATH" }',
    ]
    config(tmp_path, "hidden", "secret")
    config(tmp_path, pem, "key.pem")
    filed = '[rule.sign]\nkey = { file = "key.pem" }\n'
    assert load(config(tmp_path, f'{state}{{ file = "secret" }}\n{SITES}{RULE}{filed}'), HOME).warnings == ()


def test_every_key_of_create_arrives(tmp_path: Path) -> None:
    policy = config(tmp_path, '{"Version": "2012-10-17"}', "policy.json")
    lifecycle = config(tmp_path, '{"rules": []}', "lifecycle.json")
    text = """
[site.ecr]
url = "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com"
[site.ecr.create]
immutability = "IMMUTABLE"
exclusions = ["sha256-*"]
scan_on_push = false
encryption = "KMS_DSSE"
kms_key = "k"
tags = { team = "platform" }
policy = "policy.json"
lifecycle = "lifecycle.json"
[site.harbor]
url = "https://harbor.example.com"
kind = "harbor"
create = { public = true, quota = "5GB" }
[site.gar]
url = "https://europe-docker.pkg.dev"
create = { location = "europe" }
[site.gitlab]
url = "https://registry.example.com"
kind = "gitlab"
create = { token = { env = "TOKEN" }, api = "https://gitlab.example.com" }
[site.off]
url = "https://quay.io"
create = false
[site.also-off]
url = "https://quay.io"
create = { enabled = false }
[site.on]
url = "https://harbor.example.org"
create = true
"""
    loaded = load(config(tmp_path, SITES + text + RULE), {**HOME, "TOKEN": "secret"})

    def create(name: str) -> CreateSettings | None:
        site = loaded.sites[name]
        assert isinstance(site, RegistrySettings)
        return site.create

    assert create("ecr") == CreateSettings(
        is_asked=True,
        immutability="IMMUTABLE",
        exclusions=("sha256-*",),
        scan_on_push=False,
        encryption="KMS_DSSE",
        kms_key="k",
        tags={"team": "platform"},
        policy=policy.read_text(),
        lifecycle=lifecycle.read_text(),
    )
    assert create("harbor") == CreateSettings(is_asked=True, public=True, quota=5_000_000_000)
    assert create("gar") == CreateSettings(is_asked=True, location="europe")
    gitlab = create("gitlab")
    assert gitlab is not None
    assert gitlab.token is not None
    assert (gitlab.token(), gitlab.api) == ("secret", "https://gitlab.example.com")
    assert (create("off"), create("also-off")) == (None, None)
    assert create("on") == CreateSettings(is_asked=True)
    assert create("fra") == CreateSettings()


@pytest.mark.parametrize("key", ["identity_token", "bearer_token"])
def test_a_token_is_a_login_without_a_user(tmp_path: Path, key: str) -> None:
    text = f'[site.hub]\nurl = "https://hub.example.com"\n{key} = {{ env = "T" }}'
    site = loaded(tmp_path, text, T="token").sites["hub"]
    assert isinstance(site, RegistrySettings)
    login = site.login
    assert isinstance(login, Login)
    read = getattr(login, key)
    assert read() == "token"
    assert (login.username, login.password) == ("", None)


def test_tags_may_be_a_list_of_tables(tmp_path: Path) -> None:
    found = loaded(tmp_path, SITES + RULE + 'tags = [{ include = ["a"] }, { latest = 1 }]')
    assert [len(tags.include) for tags in found.rules[0].tags] == [1, 0]
    assert found.rules[0].tags[1].latest == 1


def test_files_of_conf_d_are_merged_in_the_order_of_their_names(tmp_path: Path) -> None:
    config(tmp_path, '[site.ber]\nurl = "https://ber.example.com"', "conf.d/20.toml")
    config(tmp_path, RULE.replace('"fra"', '"ber"').replace("platform", "second"), "conf.d/10.toml")
    config(tmp_path, "not TOML at all", "conf.d/ignored.txt")
    found = loaded(tmp_path, SITES + RULE)
    assert [rule.name for rule in found.rules] == ["platform", "second"]
    assert list(found.sites) == ["hub", "fra", "ber"]
    assert [file.name for file in found.files] == ["replicator.toml", "10.toml", "20.toml"]


def test_a_name_taken_in_another_file_is_an_error_naming_both(tmp_path: Path) -> None:
    config(tmp_path, "[agent]\n" + SITES + RULE, "conf.d/10.toml")
    main, other = tmp_path / "replicator.toml", tmp_path / "conf.d/10.toml"
    found = problems(tmp_path, "[agent]\n" + SITES + RULE)
    assert [text.split(":")[0] for text in found] == [str(other)] * 4
    assert all(str(main) in text for text in found)
    assert [text.split(": ")[1] for text in found] == ["agent", "site.hub", "site.fra", "rule.platform.name"]


def test_variables_expand_in_string_values_alone(tmp_path: Path) -> None:
    text = SITES.replace("hub.example", "${HOST}.example") + RULE + 'rename = { prefix = "$${HOST}$" }'
    found = loaded(tmp_path, text, HOST="h1")
    assert found.sites["hub"].url == "https://h1.example.com"
    assert found.rules[0].rename_repository.prefix == "${HOST}$"


def test_the_config_is_looked_for_where_the_design_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = config(tmp_path, '[agent]\nname = "given"', "given.toml")
    named = config(tmp_path, '[agent]\nname = "named"', "named.toml")
    environ = {**HOME, "REPLICATOR_CONFIG": str(named)}
    with pytest.raises(ConfigError, match=r"no config file found: tried \$REPLICATOR_CONFIG"):
        load(None, HOME)
    config(tmp_path, '[agent]\nname = "here"')
    assert load(None, HOME).agent.name == "here"
    assert load(None, environ).agent.name == "named"
    assert load(given, environ).agent.name == "given"


def test_a_config_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        load(None, {**HOME, "REPLICATOR_CONFIG": str(tmp_path / "absent.toml")})


@pytest.mark.parametrize(
    ("environ", "state", "cache"),
    [
        ({"STATE_DIRECTORY": "/s:/t", "CACHE_DIRECTORY": "/c:/d", **HOME}, "/s/state.db", "/c"),
        (
            {"XDG_STATE_HOME": "/xs", "XDG_CACHE_HOME": "/xc", **HOME},
            "/xs/replicator/state.db",
            "/xc/replicator",
        ),
        (
            {"XDG_STATE_HOME": "relative", **HOME},
            "/home/me/.local/state/replicator/state.db",
            "/home/me/.cache/replicator",
        ),
    ],
    ids=["systemd", "xdg", "home"],
)
def test_state_and_cache_default_to_systemd_then_xdg(
    tmp_path: Path, environ: dict[str, str], state: str, cache: str
) -> None:
    agent = load(config(tmp_path, SITES), environ).agent
    assert (agent.state, agent.cache_path) == (Path(state), Path(cache))


def test_without_any_home_the_state_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no default without \$STATE_DIRECTORY.*set agent\.state"):
        load(config(tmp_path, SITES), {})
    text = '[agent]\nname = "x"\nserves = ["fra"]\nstate = "sqlite:////a/b.db"\ncache = { path = "/c", max_bytes = "1B" }\n'
    agent = load(config(tmp_path, text + SITES), {}).agent
    assert agent == AgentSettings(
        "x", ("fra",), Path("/a/b.db"), Path("/c"), 1, ("127.0.0.1", 9650), ZoneInfo("UTC")
    )


@pytest.mark.parametrize("renewed", ["ca.pem", "cert.pem", "key.pem"])
def test_files_renewed_in_their_place_make_a_site_another_one(tmp_path: Path, renewed: str) -> None:
    """An agent keeps a site open across reloads for as long as its settings are equal."""
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("old")
    text = SITES.replace(
        "[site.fra]", 'tls = { ca = "ca.pem", cert = "cert.pem", key = "key.pem" }\n[site.fra]'
    )
    before = loaded(tmp_path, text)
    assert loaded(tmp_path, text).sites == before.sites
    (tmp_path / "new").write_text("new")
    (tmp_path / "new").replace(tmp_path / renewed)  # as certbot, and Kubernetes' secrets
    after = loaded(tmp_path, text)
    assert after.sites["hub"] != before.sites["hub"]
    assert after.sites["fra"] == before.sites["fra"]


def test_certificate_of_the_agent_and_its_key_belong_together(tmp_path: Path) -> None:
    authority = trustme.CA()
    ours, other = (authority.issue_cert("agent.example.com") for _ in range(2))
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    text = SITES + '[http.tls]\ncert = "cert.pem"\nkey = "key.pem"'
    assert loaded(tmp_path, text).http.tls == ServerTLS(tmp_path / "cert.pem", tmp_path / "key.pem")
    key = load_pem_private_key(ours.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    for content, what in (
        (other.private_key_pem.bytes(), "key values mismatch"),
        (encrypted, "unencrypted key"),
    ):
        (tmp_path / "key.pem").write_bytes(content)
        with pytest.raises(ConfigError, match=rf"http\.tls: .*{what}"):
            loaded(tmp_path, text)


def test_what_should_not_be_left_so_is_a_warning(tmp_path: Path) -> None:
    text = """
        [site.hub]
        url = "https://hub.example.com"
        username = "u"
        password = "literal secret"
        tls = { verify = false }
        [site.plain]
        url = "http://plain.example.com"
        bearer_token = { env = "T" }
        [site.local]
        url = "http://127.0.0.1:5000"
        username = "u"
        password = "${T}"
        [notify.chat]
        url = "https://chat.example.com/literal secret"
        [notify.other]
        url = { env = "T" }
    """
    found = loaded(tmp_path, text, T="t").warnings
    assert [text.split(": ")[1] for text in found] == [
        "site.hub.password",
        "site.hub.tls",
        "site.plain.url",
        "notify.chat.url",
    ]
    assert "literal secret" not in "".join(found)
