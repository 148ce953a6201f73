from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from urllib.parse import parse_qs, parse_qsl

import pytest
from aiohttp import web
from msgspec.structs import replace

from replicator.errors import Advice, AuthFailed, ConfigError, Corrupt, Denied, Throttled, Unavailable
from replicator.sites.registry.http import Call
from replicator.sites.registry.settings import Login
from tests.fakes.clock import FakeClock
from tests.fakes.scripted import Scripted, login, rig, scripted

PULL = Call("read manifest", "GET", "/v2/a/manifests/x", repository="a")
PUSH = Call("start upload", "POST", "/v2/a/blobs/uploads/", repository="a", actions="pull,push")
MOUNT = Call(
    "mount blob",
    "POST",
    "/v2/a/blobs/uploads/?mount=d&from=b",
    repository="a",
    actions="pull,push",
    also_pull="b",
)


class Registry:
    """A registry with a token service beside it, both at one port, and everything about them a field."""

    def __init__(self) -> None:
        self.valid: set[str] = set()
        self.made = 0
        self.answer: dict[str, object] = {"expires_in": 300}
        self.users: dict[str, str] | None = None
        self.identities: set[str] = set()
        self.only: str | None = None
        self.realm = "http://{host}/token"
        self.harbor = False
        self.asked: list[list[str]] = []
        self.accept: Callable[[web.Request], bool] = lambda _: True

    async def __call__(self, request: web.Request) -> web.Response:
        if request.path == "/token":
            return await self._token(request)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.valid:
            realm = self.realm.format(host=request.host)
            challenge = f'Bearer realm="{realm}",service="reg"'
            if self.harbor and "Authorization" in request.headers:
                challenge = 'Basic realm="harbor"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        return web.Response(status=200 if self.accept(request) else 403)

    async def _token(self, request: web.Request) -> web.Response:
        if self.only not in {None, request.method}:
            return web.Response(status=405)
        form = dict(parse_qsl((await request.read()).decode()))
        if request.method == "GET":
            self.asked.append(request.query.getall("scope", []))
            user = request.headers.get("Authorization", "").removeprefix("Basic ")
            name, _, password = base64.b64decode(user).decode().partition(":")
        else:
            self.asked.append(form["scope"].split())
            name, password = form.get("username", ""), form.get("password", "")
        if form.get("refresh_token") not in {None, *self.identities}:
            return web.json_response({"details": "bad identity"}, status=401)
        if self.users is not None and "refresh_token" not in form and self.users.get(name) != password:
            return web.json_response({"details": "incorrect username or password"}, status=401)
        self.made += 1
        self.valid.add(f"t{self.made}")
        return web.json_response({"token": f"t{self.made}"} | self.answer)


def _paths(server: Scripted) -> list[str]:
    return [seen.target.partition("?")[0] for seen in server.seen]


async def test_anonymous_gets_a_token_of_the_scope_it_needs() -> None:
    registry = Registry()
    async with scripted(registry, ping=False) as server, rig(server.url) as here:
        await here.transport.request(PULL)
    assert _paths(server) == ["/v2/", "/token", "/v2/a/manifests/x"]
    assert "Authorization" not in server.seen[0].headers
    assert "Authorization" not in server.seen[1].headers
    query = parse_qs(server.seen[1].target.partition("?")[2])
    assert query == {"service": ["reg"], "scope": ["repository:a:pull"], "client_id": ["replicator"]}


async def test_ping_and_token_are_asked_for_once_by_many_at_a_time() -> None:
    registry = Registry()
    async with (
        scripted(registry, ping=False) as server,
        rig(server.url) as here,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(30):
            group.create_task(here.transport.request(PULL))
    assert _paths(server).count("/v2/") == 1
    assert registry.made == 1


async def test_expired_token_is_refreshed_once_by_many_at_a_time() -> None:
    registry = Registry()
    async with scripted(registry, ping=False) as server, rig(server.url) as here:
        await here.transport.request(PULL)
        registry.valid.clear()
        async with asyncio.TaskGroup() as group:
            for _ in range(30):
                group.create_task(here.transport.request(PULL))
    assert registry.made == 2


async def test_token_is_refreshed_ahead_of_its_end() -> None:
    registry, clock = Registry(), FakeClock()
    async with scripted(registry, ping=False) as server, rig(server.url, clock=clock) as here:
        await here.transport.request(PULL)
        clock.advance(269)
        await here.transport.request(PULL)
        assert registry.made == 1
        clock.advance(2)
        await here.transport.request(PULL)
        assert registry.made == 2


@pytest.mark.parametrize(
    "told", [{}, {"expires_in": 0}, {"expires_in": None}, {"expires_in": "soon"}, {"expires_in": "60"}]
)
async def test_token_without_a_lifetime_lives_a_minute(told: dict[str, object]) -> None:
    registry, clock = Registry(), FakeClock()
    registry.answer = told | {"issued_at": "1999-01-01T00:00:00Z"}
    async with scripted(registry, ping=False) as server, rig(server.url, clock=clock) as here:
        await here.transport.request(PULL)
        clock.advance(47)
        await here.transport.request(PULL)
        assert registry.made == 1
        clock.advance(2)
        await here.transport.request(PULL)
    assert registry.made == 2


async def test_push_token_serves_to_pull_but_pulling_never_asks_for_push() -> None:
    """Quay creates the repository when a token to push to it is asked for."""
    registry = Registry()
    async with scripted(registry, ping=False) as server, rig(server.url) as here:
        await here.transport.request(PULL)
        await here.transport.request(PUSH)
        registry.valid.discard("t1")
        await here.transport.request(Call("x", "GET", "/v2/b/x", repository="b", actions="pull,push"))
        await here.transport.request(Call("x", "GET", "/v2/b/x", repository="b"))
    assert registry.asked == [["repository:a:pull"], ["repository:a:pull,push"], ["repository:b:pull,push"]]


async def test_mount_asks_for_both_repositories_in_one_token_the_pushed_one_first() -> None:
    registry = Registry()
    async with scripted(registry, ping=False) as server, rig(server.url) as here:
        await here.transport.request(MOUNT)
    assert registry.asked == [["repository:a:pull,push", "repository:b:pull"]]


async def test_mount_refused_for_its_merged_token_is_tried_with_a_single_scope() -> None:
    """cgr.dev answers 403 to a token that names other repositories too."""
    registry = Registry()
    registry.accept = lambda request: request.headers["Authorization"] == "Bearer t2"
    async with scripted(registry, ping=False) as server, rig(server.url) as here:
        await here.transport.request(MOUNT)
        await here.transport.request(MOUNT)
    assert registry.asked == [["repository:a:pull,push", "repository:b:pull"], ["repository:a:pull,push"]]


async def test_catalog_and_ping_have_scopes_of_their_own() -> None:
    registry = Registry()
    async with scripted(registry, ping=False) as server, rig(server.url) as here:
        await here.transport.request(Call("list repositories", "GET", "/v2/_catalog", actions="catalog"))
        await here.transport.request(Call("ping", "GET", "/v2/", actions=""))
    assert registry.asked == [["registry:catalog:*"], []]


async def test_password_is_sent_by_get_and_by_post_where_get_is_not_known() -> None:
    for method in ("GET", "POST"):
        registry = Registry()
        registry.users, registry.only = {"user": "s&cr=t+ü"}, method
        async with (
            scripted(registry, ping=False) as server,
            rig(server.url, login=login("user", "s&cr=t+ü")) as here,
        ):
            await here.transport.request(PULL)
        assert [seen.method for seen in server.to("/token")] == ["GET", "POST"][: 1 if method == "GET" else 2]


async def test_identity_token_is_sent_by_post_and_replaced_by_the_one_that_comes_back() -> None:
    registry, clock = Registry(), FakeClock()
    registry.identities = {"id1"}
    registry.answer = {"expires_in": 300, "refresh_token": "id2"}
    by_identity = Login(identity_token=lambda: "id1")
    async with (
        scripted(registry, ping=False) as server,
        rig(server.url, login=by_identity, clock=clock) as here,
    ):
        await here.transport.request(PULL)
        registry.identities = {"id2"}
        clock.advance(290)
        await here.transport.request(PULL)
    first, second = (dict(parse_qsl(seen.body.decode())) for seen in server.to("/token"))
    assert (first["grant_type"], first["refresh_token"]) == ("refresh_token", "id1")
    assert second["refresh_token"] == "id2"


async def test_ready_bearer_token_is_sent_as_it_is() -> None:
    registry = Registry()
    registry.valid = {"ready"}
    async with (
        scripted(registry, ping=False) as server,
        rig(server.url, login=Login(bearer_token=lambda: "ready")) as here,
    ):
        await here.transport.request(PULL)
    assert server.to("/token") == []


async def test_harbors_switch_to_basic_is_answered_from_the_first_challenge() -> None:
    """Harbor asks for Basic as soon as a request carries any Authorization, such as an expired token."""
    registry = Registry()
    registry.harbor, registry.users = True, {"user": "secret"}
    async with scripted(registry, ping=False) as server, rig(server.url, login=login()) as here:
        await here.transport.request(PULL)
        registry.valid.clear()
        await here.transport.request(PULL)
    sent = [seen.headers["Authorization"].split()[0] for seen in server.to("/v2/a")]
    assert sent == ["Bearer", "Bearer", "Bearer"]
    assert registry.made == 2


async def test_harbors_catalog_is_had_by_basic() -> None:
    registry = Registry()

    async def harbor(request: web.Request) -> web.Response:
        if request.path == "/v2/_catalog":
            is_basic = request.headers.get("Authorization", "").startswith("Basic ")
            return web.Response(
                status=200 if is_basic else 401, headers={"WWW-Authenticate": "Basic realm=harbor"}
            )
        return await registry(request)

    catalog = Call("list repositories", "GET", "/v2/_catalog", actions="catalog")
    async with scripted(harbor, ping=False) as server, rig(server.url, login=login()) as here:
        await here.transport.request(catalog)
        await here.transport.request(catalog)
        await here.transport.request(PULL)
    assert len(server.to("/v2/_catalog")) == 3
    assert server.seen[-1].headers["Authorization"].startswith("Bearer ")


# --- secrets that change ------------------------------------------------------------------------------------


class Rotated:
    """A secret that somebody replaces."""

    def __init__(self, *values: str) -> None:
        self.values = list(values)
        self.reads = 0

    def __call__(self) -> str:
        self.reads += 1
        return self.values[min(self.reads, len(self.values)) - 1]


async def test_secret_is_read_again_when_the_token_service_refuses_it() -> None:
    registry = Registry()
    registry.users = {"user": "new"}
    secret = Rotated("old", "new")
    async with scripted(registry, ping=False) as server, rig(server.url, login=Login("user", secret)) as here:
        await here.transport.request(PULL)
        await here.transport.request(PUSH)
    assert secret.reads == 2


async def test_secret_is_read_again_when_basic_is_refused() -> None:
    secret = Rotated("old", "new")
    good = "Basic " + base64.b64encode(b"user:new").decode()

    async def answer(request: web.Request) -> web.Response:
        is_good = request.headers.get("Authorization") == good
        return web.Response(status=200 if is_good else 401, headers={"WWW-Authenticate": "Basic realm=x"})

    async with (
        scripted(answer, ping=False) as server,
        rig(server.url, login=Login("user", secret)) as here,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(10):
            group.create_task(here.transport.request(PULL))
    assert secret.reads == 2


async def test_secret_that_stays_wrong_fails_once_read_again_and_is_not_told() -> None:
    registry = Registry()
    registry.users = {"user": "other"}
    secret = Rotated("s3cret")
    async with scripted(registry, ping=False) as server, rig(server.url, login=Login("user", secret)) as here:
        with pytest.raises(AuthFailed, match="incorrect username or password") as caught:
            await here.transport.request(PULL)
    assert caught.value.advice is Advice.STOP_SITE
    assert secret.reads == 2
    assert len(server.to("/token")) == 2  # the second for no scope: is it the login?
    assert "s3cret" not in str(caught.value)


async def test_wrong_basic_stops_the_site() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})

    async with scripted(answer, ping=False) as server, rig(server.url, login=login()) as here:
        with pytest.raises(AuthFailed) as caught:
            await here.transport.request(PULL)
    assert caught.value.advice is Advice.STOP_SITE
    assert len(server.to("/v2/a")) == 1


async def test_unreadable_secret_is_an_authentication_failure_that_names_the_place() -> None:
    def missing() -> str:
        raise ConfigError(["site.here.password.file: /run/x: no such file"])

    registry = Registry()
    async with (
        scripted(registry, ping=False) as server,
        rig(server.url, login=Login("user", missing)) as here,
    ):
        with pytest.raises(AuthFailed, match="/run/x: no such file"):
            await here.transport.request(PULL)


# --- refusals -----------------------------------------------------------------------------------------------


async def test_repository_not_visible_to_anonymous_does_not_stop_the_site() -> None:
    registry = Registry()

    async def hub(request: web.Request) -> web.Response:
        if request.path.startswith("/v2/a"):
            challenge = f'Bearer realm="http://{request.host}/token",service="reg",scope="repository:a:pull",error="x"'
            return web.json_response(
                {"errors": [{"code": "UNAUTHORIZED"}]}, status=401, headers={"WWW-Authenticate": challenge}
            )
        return await registry(request)

    async with scripted(hub, ping=False) as server, rig(server.url) as here:
        with pytest.raises(AuthFailed, match="not visible without credentials") as caught:
            await here.transport.request(PULL)
        assert caught.value.advice is Advice.GIVE_UP
        await here.transport.request(Call("x", "GET", "/v2/b/x", repository="b"))
    assert len(server.to("/v2/a")) == 1


async def test_denied_push_is_denied() -> None:
    registry = Registry()
    registry.accept = lambda request: request.method == "GET"
    async with scripted(registry, ping=False) as server, rig(server.url, login=login()) as here:
        with pytest.raises(Denied):
            await here.transport.request(PUSH)
    assert registry.made == 1


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (403, b"", Denied),
        (429, b"", Throttled),
        (500, b"", Unavailable),
        (200, b"<html>", Corrupt),
        (200, b"{}", Corrupt),
        (200, b'{"token": 5}', Corrupt),
        (200, b'{"token": "a\\r\\nX-Header: b"}', Corrupt),
        (200, b'{"token": "' + b"x" * 70_000 + b'"}', Corrupt),
        (302, b"", AuthFailed),
    ],
)
async def test_token_service_that_fails_is_an_error_of_its_own_kind(
    status: int, body: bytes, expected: type[Exception]
) -> None:
    registry = Registry()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/token":
            return web.Response(
                status=status, body=body, headers={"Location": "http://elsewhere.test/elsewhere"}
            )
        return await registry(request)

    async with scripted(answer, ping=False) as server, rig(server.url, login=login()) as here:
        with pytest.raises(expected) as caught:
            await here.transport.request(PULL)
    assert "get token" in str(caught.value)
    assert server.to("/elsewhere") == []
    assert server.to("/v2/a") == []


@pytest.mark.parametrize(
    "realm",
    ["ftp://auth.example/token", "http://user:pw@127.0.0.1/token", "/token", "http://[::1"],
)
async def test_unsafe_realm_gets_no_credentials(realm: str) -> None:
    registry = Registry()
    registry.realm = realm
    async with scripted(registry, ping=False) as server, rig(server.url, login=login()) as here:
        with pytest.raises(AuthFailed, match="is refused") as caught:
            await here.transport.request(PULL)
    assert "pw" not in str(caught.value)
    assert _paths(server) == ["/v2/"]


async def test_realm_on_another_host_gets_the_registrys_credentials_but_no_token_of_the_registry() -> None:
    service, registry = Registry(), Registry()
    service.users = {"user": "secret"}
    registry.valid = service.valid
    async with scripted(service, ping=False) as other:
        registry.realm = f"{other.url}/token?x=a%2Fb"
        async with scripted(registry, ping=False) as server, rig(server.url, login=login()) as here:
            await here.transport.request(PULL)
    [seen] = other.seen
    assert seen.target.startswith("/token?x=a%2Fb&service=reg&scope=repository%3Aa%3Apull&")
    assert seen.headers["Authorization"].startswith("Basic ")


# --- challenges that come late ------------------------------------------------------------------------------


async def test_challenge_that_comes_only_with_the_refusal_is_taken_up_by_all() -> None:
    """Artifactory with anonymous reading answers the ping with 200 and a push with a challenge."""
    registry = Registry()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/v2/" or (request.method == "GET" and request.path.startswith("/v2/b")):
            return web.json_response({})
        return await registry(request)

    async with scripted(answer, ping=False) as server, rig(server.url, login=login()) as here:
        await here.transport.request(Call("x", "GET", "/v2/b/x", repository="b"))
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(here.transport.request(PULL))
    assert registry.made == 1
    assert "Authorization" not in server.to("/v2/b")[0].headers


async def test_scope_under_the_registrys_own_name_for_the_repository_is_added() -> None:
    registry = Registry()

    async def answer(request: web.Request) -> web.Response:
        if request.path.startswith("/v2/a") and request.headers.get("Authorization") != "Bearer t2":
            scope = "repository:proxy/a:pull repository:proxy/a:pull,push"
            challenge = f'Bearer realm="http://{request.host}/token",service="reg",scope="{scope}"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        return await registry(request)

    async with scripted(answer, ping=False) as server, rig(server.url) as here:
        await here.transport.request(PULL)
    assert registry.asked == [["repository:a:pull"], ["repository:a:pull", "repository:proxy/a:pull"]]


async def test_open_registry_gets_no_credentials() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({})

    async with scripted(answer, ping=False) as server, rig(server.url, login=login()) as here:
        await here.transport.request(PULL)
    assert all("Authorization" not in seen.headers for seen in server.seen)


async def test_docker_config_is_used_where_no_login_is_set(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    registry.users = {"user": "secret"}
    async with scripted(registry, ping=False) as server:
        auth = base64.b64encode(b"user:secret").decode()
        monkeypatch.setenv(
            "DOCKER_AUTH_CONFIG", f'{{"auths": {{"127.0.0.1:{server.port}": {{"auth": "{auth}"}}}}}}'
        )
        monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        async with rig(server.url, docker_config=True) as here:
            await here.transport.request(PULL)


# --- what is about one repository, and what about the login ---


@pytest.mark.parametrize("status", [401, 403])
async def test_scope_that_is_refused_does_not_stop_the_site(status: int) -> None:
    registry = Registry()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/token" and "repository:a:pull" in request.query.getall("scope", []):
            return web.json_response({"details": "not for you"}, status=status)
        return await registry(request)

    async with scripted(answer, ping=False) as server, rig(server.url, login=login()) as here:
        with pytest.raises((AuthFailed, Denied)) as caught:
            await here.transport.request(PULL)
        assert caught.value.advice is Advice.GIVE_UP
        await here.transport.request(replace(PULL, url="/v2/b/manifests/x", repository="b"))


async def test_basic_refusal_of_one_repository_does_not_stop_the_site() -> None:
    async def answer(request: web.Request) -> web.Response:
        if "Authorization" not in request.headers or request.path.startswith("/v2/a/"):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return web.json_response({})

    async with scripted(answer, ping=False) as server, rig(server.url, login=login()) as here:
        for _ in range(2):
            with pytest.raises(AuthFailed) as caught:
                await here.transport.request(PULL)
            assert caught.value.advice is Advice.GIVE_UP
        await here.transport.request(replace(PULL, url="/v2/b/manifests/x", repository="b"))
        assert len(server.to("/v2/a/")) == 2
        assert (
            len([seen for seen in server.to("/v2/") if seen.target == "/v2/"]) == 2
        )  # the login is tried once


# --- token services that moved, and tokens that are not ripe ---


@pytest.mark.parametrize("location", ["/auth/token", "{url}/auth/token"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("with_login", [False, True])
async def test_redirect_of_a_token_service_within_its_origin_is_followed(
    status: int, location: str, *, with_login: bool
) -> None:
    registry = Registry()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            target = location.format(url=server.url) + f"?{request.query_string}"
            return web.Response(status=status, headers={"Location": target})
        if request.path == "/auth/token":
            return await registry(request.clone(rel_url=f"/token?{request.query_string}"))
        return await registry(request)

    async with scripted(answer, ping=False) as server:
        async with rig(server.url, login=login() if with_login else None) as here:
            assert (await here.transport.request(PULL)).status == 200
        assert ("Authorization" in server.to("/auth/token")[0].headers) is with_login


UNRIPE = {"says so": ',error="invalid_token"', "does not say": ""}


@pytest.mark.parametrize("error", UNRIPE.values(), ids=UNRIPE)
async def test_fresh_token_that_is_refused_at_first_is_tried_again_a_moment_later(error: str) -> None:
    clock = FakeClock()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/token":
            return web.json_response({"token": "t", "expires_in": 300})
        if "Authorization" not in request.headers or clock.monotonic() < 2.0:
            challenge = f'Bearer realm="{server.url}/token",service="s"{error}'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        return web.json_response({})

    async with scripted(answer, ping=False) as server:
        async with rig(server.url, login=login(), clock=clock) as here:
            assert (await here.transport.request(PULL)).status == 200
        assert len(server.to("/token")) == 1


async def test_nobody_waits_for_a_token_where_that_was_in_vain_before() -> None:
    clock = FakeClock()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/token":
            return web.json_response({"token": "t", "expires_in": 300})
        challenge = f'Bearer realm="{server.url}/token",service="s"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async with scripted(answer, ping=False) as server, rig(server.url, login=login(), clock=clock) as here:
        before = 0.0
        for name in "abc":
            before = clock.monotonic()
            with pytest.raises(AuthFailed) as caught:
                await here.transport.request(replace(PULL, url=f"/v2/{name}/manifests/x", repository=name))
            assert caught.value.advice is Advice.GIVE_UP
        assert clock.monotonic() == before
