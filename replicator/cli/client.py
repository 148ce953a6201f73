"""A client of a running agent's API, for `--remote`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec

from replicator import __version__
from replicator.daemon.http.api.shapes import (
    Accepted,
    RuleInfo,
    Rules,
    RunDetail,
    RunInfo,
    RunsList,
    Status,
    SyncOrder,
    WhyOrder,
)
from replicator.daemon.http.auth import is_loopback
from replicator.daemon.http.problems import ProblemDetails
from replicator.daemon.runs import RUNS_KEPT
from replicator.errors import AuthFailed, ConfigError, Denied, NotFound, Rejected, SiteError, Unavailable
from replicator.runs.why import Answer
from replicator.sites.registry.errormap import network_failure

ANSWER_SECONDS: Final = 30.0
TURN_SECONDS: Final = 0.25
_TURNS_BETWEEN_LOOKS: Final = 20
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024

_T = TypeVar("_T")


class RemoteAgent:
    """A running agent. Each method raises `AuthFailed`, `Denied`, `NotFound`, `Rejected` or `Unavailable`."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def rules(self) -> list[RuleInfo]:
        """The agent's rules and their status."""
        return (await self._ask("status", "GET", "/api/v1/rules", Rules)).rules

    async def sync(self, order: SyncOrder) -> Accepted:
        """Requests runs of rules. Returns before they start; `finished` waits for runs of whole rules."""
        return await self._ask("sync", "POST", "/api/v1/sync", Accepted, order)

    async def why(self, reference: str, at: str | None, *, fresh: bool) -> Answer:
        """Why an image is, or is not, at its destinations; with `fresh`, the agent asks the sites."""
        if fresh:
            return await self._ask("why", "POST", "/api/v1/why", Answer, WhyOrder(reference, at))
        query = urlencode({"reference": reference} | ({} if at is None else {"at": at}))
        return await self._ask("why", "GET", f"/api/v1/why?{query}", Answer)

    async def finished(self, accepted: Accepted) -> list[RunDetail]:
        """Waits for the accepted runs to end at each of their destinations, and returns them.

        Runs for single events are ignored, because they do not cover the rule.

        Raises:
            Rejected: a run will never happen, because the agent was restarted or the rule was paused or removed.
        """
        missing = {(each.rule, place) for each in accepted.rules for place in each.destinations}
        done: dict[str, RunDetail] = {}
        for turn in itertools.count():
            # Asked before the list of runs, so that a run that ends in between is in that list.
            lost = await self._lost(accepted, missing) if turn % _TURNS_BETWEEN_LOOKS == 0 else None
            for run in await self._whole_since(accepted):
                served = missing & {(run.rule, place) for place in run.destinations}
                if served:
                    missing -= served
                    done[run.id] = await self._ask("sync", "GET", f"/api/v1/runs/{quote(run.id)}", RunDetail)
            if not missing:
                break
            if lost is not None:
                raise Rejected(self._url, "sync", lost)
            await asyncio.sleep(TURN_SECONDS)
        return list(done.values())

    async def _lost(self, accepted: Accepted, missing: set[tuple[str, str]]) -> str | None:
        """Why a missing run will never happen; None if it still may."""
        told = await self._ask("sync", "GET", "/api/v1/status", Status)
        if told.started_at > accepted.at:
            return "the agent was restarted after it accepted the request; send the request again"
        rules = {rule.rule: rule for rule in told.rules}
        for name in sorted({rule for rule, _ in missing}):
            rule = rules.get(name)
            if rule is None or (rule.paused and not rule.running):
                return f"rule {name}: {'removed' if rule is None else 'paused'} after the agent accepted the request"
        return None

    async def _whole_since(self, accepted: Accepted) -> Iterator[RunInfo]:
        """Runs of whole rules that started after the request was accepted and have ended, earliest first."""
        told = await self._ask("sync", "GET", f"/api/v1/runs?limit={RUNS_KEPT}", RunsList)
        since = accepted.at
        return reversed(
            [
                run
                for run in told.runs
                if run.repositories is None
                and run.shard is None
                and run.ended_at is not None
                and run.started_at >= since
            ]
        )

    async def _ask(self, operation: str, method: str, path: str, kind: type[_T], body: object = None) -> _T:
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if data is None else {"Content-Type": "application/json"}
        with _mapped(self._url, operation):
            async with self._session.request(
                method, self._url + path, data=data, headers=headers, allow_redirects=False
            ) as answer:
                told = await _read(answer)
                if answer.status >= 300:
                    raise _refusal(self._url, operation, answer.status, told)
        try:
            return msgspec.json.decode(told, type=kind)
        except msgspec.DecodeError as error:
            raise Rejected(
                self._url, operation, f"the answer is not from a replicator agent: {error}"
            ) from None


@asynccontextmanager
async def remote_agent(url: str, token: str | None) -> AsyncIterator[RemoteAgent]:
    """The agent at this URL (`http://HOST:PORT`; without a scheme it is http). Asks nothing yet.

    Raises:
        ConfigError: the URL is invalid.
    """
    base = _base(url)
    headers = {"User-Agent": f"replicator/{__version__}", "Accept": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield RemoteAgent(base, session)


def _base(url: str) -> str:
    full = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(full)
        good = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
        good = good and not (parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        good = False
    if not good:
        raise ConfigError(["--remote: is not a valid URL; write http://HOST:PORT"])
    return full.rstrip("/")


def sends_in_the_clear(url: str) -> bool:
    """Whether a token sent to this URL is unencrypted."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


@contextmanager
def _mapped(url: str, operation: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise Unavailable(url, operation, f"no answer within {ANSWER_SECONDS:.0f} s") from None
    except aiohttp.ClientConnectionError as error:
        raise Unavailable(url, operation, network_failure(error, urlsplit(url).netloc).cause) from error
    except aiohttp.ClientError as error:
        raise Unavailable(url, operation, str(error) or type(error).__name__) from error


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _refusal(url: str, operation: str, status: int, body: bytes) -> SiteError:
    try:
        cause = msgspec.json.decode(body, type=ProblemDetails).detail
    except msgspec.DecodeError:
        cause = f"HTTP status {status}"
    match status:
        case 401:
            return AuthFailed(url, operation, cause)
        case 403:
            return Denied(url, operation, cause)
        case 404:
            return NotFound(url, operation, cause)
        case 503:
            return Unavailable(url, operation, cause)
        case _:
            return Rejected(url, operation, cause, status=status)
