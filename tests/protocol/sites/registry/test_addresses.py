"""What a registry may lead to is judged by the address that is connected to."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from replicator.errors import Advice, AuthFailed, Rejected, Unavailable
from replicator.sites.registry.addresses import AddressGuard, AddressRefused, GuardedResolver
from replicator.sites.registry.errormap import network_failure
from replicator.sites.registry.http import Call
from replicator.sites.registry.origin import is_known_redirect
from tests.fakes.scripted import login, rig, scripted


class Names(AbstractResolver):
    """Resolves as told, each time anew: the next list for each question."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = self._answers.pop(0)
        return [
            ResolveResult(hostname=host, host=one, port=port, family=family, proto=0, flags=0)
            for one in addresses
        ]

    async def close(self) -> None:
        return None


async def _resolved(guard: AddressGuard, *answers: Sequence[str], own: bool = False) -> list[list[str]]:
    resolver = GuardedResolver(guard, own=own, resolver=Names(*answers))
    return [[one["host"] for one in await resolver.resolve("name.test", 443)] for _ in answers]


PUBLIC = URL("https://registry.example.com")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "::1", "fd00::1", "64:ff9b::a00:1", "::ffff:192.168.0.1", "0.0.0.0"],  # noqa: S104
)
async def test_a_name_that_leads_inside_is_refused_where_the_registry_is_outside(address: str) -> None:
    with pytest.raises(AddressRefused, match="private_addresses = true allows it"):
        await _resolved(AddressGuard(PUBLIC), [address])
    assert await _resolved(AddressGuard(PUBLIC, private=True), [address]) == [[address]]


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200"])
@pytest.mark.parametrize("own", [False, True])
async def test_metadata_is_refused_always(address: str, *, own: bool) -> None:
    with pytest.raises(AddressRefused, match="metadata"):
        await _resolved(AddressGuard(URL("http://127.0.0.1"), private=True), [address], own=own)


async def test_a_name_that_is_rebound_is_judged_at_each_connection() -> None:
    guard = AddressGuard(PUBLIC)
    assert await _resolved(guard, ["8.8.8.8"]) == [["8.8.8.8"]]
    with pytest.raises(AddressRefused):
        await _resolved(guard, ["127.0.0.1"])


async def test_only_the_good_addresses_of_a_name_are_connected_to() -> None:
    assert await _resolved(AddressGuard(PUBLIC), ["10.0.0.1", "8.8.8.8"]) == [["8.8.8.8"]]


async def test_a_registry_found_at_a_private_address_may_lead_to_others_but_not_to_our_own_machine() -> None:
    guard = AddressGuard(PUBLIC)
    await _resolved(guard, ["10.0.0.9"], own=True)
    assert await _resolved(guard, ["10.1.2.3"]) == [["10.1.2.3"]]
    assert guard.refusal("private") is None
    with pytest.raises(AddressRefused, match="loopback"):
        await _resolved(guard, ["127.0.0.1"])


def test_a_refused_address_is_not_tried_again_and_says_what_allows_it() -> None:
    refused = aiohttp.ClientConnectorDNSError(
        aiohttp.client_reqrep.ConnectionKey("h", 443, True, True, None, None, None),
        AddressRefused("h is refused: it is a private address"),
    )
    failure = network_failure(refused, "h:443")
    assert (failure.cause, failure.advice) == ("h is refused: it is a private address", Advice.GIVE_UP)


async def test_metadata_is_not_asked_though_the_config_names_it() -> None:
    async with rig("http://169.254.169.254") as here:
        with pytest.raises(Unavailable, match="metadata") as caught:
            await here.transport.request(Call("ping", "GET", "/v2/", actions=""))
    assert caught.value.advice is Advice.GIVE_UP


@pytest.mark.parametrize("path", ["/v2/a/tags/list", "/v2/_catalog", "/v2/a/manifests/v1"])
async def test_what_no_digest_verifies_is_not_taken_from_another_host(path: str) -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        return web.json_response({"tags": ["evil"]})

    async with scripted(elsewhere, ping=False) as other:
        elsewhere_url = other.url.replace("127.0.0.1", "localhost")

        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{elsewhere_url}{path}"})

        async with scripted(answer) as server, rig(server.url) as here:
            with pytest.raises(Rejected, match='redirects = "any" allows it'):
                await here.transport.request(Call("read", "GET", path, repository="a"))
    assert other.seen == []


def test_the_front_of_kubernetes_is_known() -> None:
    assert is_known_redirect("registry.k8s.io", "europe-west3-docker.pkg.dev")
    assert not is_known_redirect("registry.k8s.io", "evil-pkg.dev")
    assert not is_known_redirect("registry.example.com", "europe-west3-docker.pkg.dev")


@pytest.mark.parametrize("named", [False, True])
async def test_an_http_realm_on_another_host_gets_the_credentials_only_where_the_config_names_it(
    *, named: bool
) -> None:
    async def token(request: web.Request) -> web.Response:
        return web.json_response({"token": "t"})

    async with scripted(token, ping=False) as service:
        realm = service.url.replace("127.0.0.1", "localhost")

        async def answer(request: web.Request) -> web.Response:
            if request.headers.get("Authorization") == "Bearer t":
                return web.json_response({})
            return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}/token"'})

        async with (
            scripted(answer, ping=False) as server,
            rig(server.url, login=login(), realm=f"{realm}/token" if named else None) as here,
        ):
            call = Call("list tags", "GET", "/v2/a/tags/list", repository="a")
            if named:
                assert (await here.transport.request(call)).status == 200
            else:
                with pytest.raises(AuthFailed, match=r'auth = \{ realm = "http://localhost:'):
                    await here.transport.request(call)
    assert len(service.seen) == int(named)
