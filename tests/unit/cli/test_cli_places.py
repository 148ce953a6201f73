import ssl

import pytest
import trustme

from replicator.cli.options import Invocation
from replicator.cli.places import looks_like_host, registry_at, site_settings
from replicator.cli.platforms import child_for
from replicator.cli.watch import Watch
from replicator.demo.images import AMD64, ARM64, image, index
from replicator.demo.registry import DemoRegistry
from replicator.errors import ConfigError, NotFound
from replicator.model.descriptor import Platform
from replicator.model.names import DOCKER_HUB
from replicator.policy.platforms import parse_platform
from replicator.sites.registry.settings import RegistrySettings


def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_docker_hub_is_reached_at_its_own_host() -> None:
    settings = await registry_at(DOCKER_HUB, insecure=False)
    assert (settings.name, settings.url) == ("docker.io", "https://registry-1.docker.io")


async def test_other_hosts_are_https_and_not_asked_first() -> None:
    settings = await registry_at("registry.invalid:5000", insecure=False)
    assert settings.url == "https://registry.invalid:5000"
    assert settings.tls.verify


async def test_loopback_may_speak_plain_http() -> None:
    async with DemoRegistry.serve() as registry:
        host = registry.url.removeprefix("http://")
        assert (await registry_at(host, insecure=False)).url == registry.url


@pytest.mark.parametrize("insecure", [False, True])
async def test_loopback_that_speaks_tls_is_verified_unless_insecure(*, insecure: bool) -> None:
    async with DemoRegistry.serve(tls=server_context()) as registry:
        host = registry.url.removeprefix("https://")
        settings = await registry_at(host, insecure=insecure)
    assert settings.url == registry.url
    assert settings.tls.verify is not insecure


async def test_docker_hub_is_known_by_all_its_names_where_a_site_is_named() -> None:
    settings = await site_settings(Invocation(), "index.docker.io", Watch(display=False), insecure=False)
    assert isinstance(settings, RegistrySettings)
    assert (settings.name, settings.url) == ("docker.io", "https://registry-1.docker.io")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("localhost:99999", "has a port outside 1 to 65535"),
        ("[::1", "invalid host name"),
        ("ghcr.io/app", "invalid host name"),
    ],
)
async def test_what_is_no_host_is_refused_where_a_site_is_named(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        await site_settings(Invocation(), text, Watch(display=False), insecure=False)


@pytest.mark.parametrize(
    ("text", "is_host"),
    [("localhost", True), ("localhost:5000", True), ("ghcr.io", True), ("hub", False), ("[::1]:5000", True)],
)
def test_hosts_are_told_from_names_as_docker_does(text: str, *, is_host: bool) -> None:
    assert looks_like_host(text) is is_host


V6, V7 = Platform("arm", "linux", "v6"), Platform("arm", "linux", "v7")
V1, V3 = Platform("amd64", "linux", "v1"), Platform("amd64", "linux", "v3")
OLD = Platform("amd64", "windows", os_version="10.0.17763.6893")
NEW = Platform("amd64", "windows", os_version="10.0.20348.3207")


@pytest.mark.parametrize(
    ("there", "asked", "chosen"),
    [
        ([AMD64, ARM64], "linux/arm64", 1),
        ([AMD64, ARM64], "linux/arm64/v8", 1),
        ([V6, V7], "linux/arm", 1),
        ([V6, V7], "linux/arm/v6", 0),
        ([AMD64, V6], "linux/arm", 1),
        ([V3, V1], "linux/amd64", 1),
        ([OLD, NEW], "windows(10.0.20348)/amd64", 1),
        ([OLD, NEW], "windows/amd64", 0),
    ],
)
def test_child_is_chosen_by_platform(there: list[Platform], asked: str, chosen: int) -> None:
    whole = index([image(str(each), platform=each) for each in there])
    child = child_for(whole.manifest, parse_platform(asked), site="hub", repository="app")
    assert child.digest == whole.children[chosen].digest


@pytest.mark.parametrize("asked", ["linux/arm/v5", "windows/amd64"])
def test_platform_that_is_missing_is_an_error_that_names_the_others(asked: str) -> None:
    whole = index(
        [image("amd64"), image("v6", platform=V6), image("proof", platform=Platform("unknown", "unknown"))]
    )
    with pytest.raises(NotFound, match=r"it has linux/amd64, linux/arm/v6$"):
        child_for(whole.manifest, parse_platform(asked), site="hub", repository="app")
