"""Hostile S3 endpoints, as source and as destination: they cost their own buckets, and learn no credentials of others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.demo.images import image, load
from tests.acceptance.program import Program, rule
from tests.fakes.registry import FakeRegistry
from tests.fakes.s3 import moto_server, raw_client
from tests.hostile.measured import measured
from tests.hostile.server import (
    CHUNKED,
    Asked,
    Malice,
    bomb,
    broken_framing,
    dribble,
    endless,
    hostile,
    reset,
    says,
    silent,
)
from tests.hostile.test_sources import OK, SIGNATURE, TIMEOUTS, assert_clean

SECRET_KEY = "planted/secret+key/0815"
SESSION_TOKEN = "planted-session-token-0815"
STEERING = "\x9b31m\u202eevil\r\n2026-01-01T00:00:00Z INFO forged line"


async def quotes_keys(asked: Asked) -> None:
    """S3's refusal, quoting the request's headers and what it should not know."""
    sent = " ".join(f"{name}={value}" for name, value in asked.headers.items())
    text = f"<Error><Code>AccessDenied</Code><Message>{sent} {SECRET_KEY} {STEERING}</Message></Error>"
    await asked.answer(403, text.encode(), Content_Type="application/xml", X_Amz_Request_Id=SECRET_KEY)


def page(body: str) -> bytes:
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{body}</ListBucketResult>".encode()


BUCKETS: dict[str, Malice] = {
    "quoting": quotes_keys,
    "framing": broken_framing(b"-1\r\n"),
    "endless": endless(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "endless-error": endless(b"HTTP/1.1 500 X\r\n\r\n", b"<" * 65536),
    "endless-head": endless(OK, b"X-A: " + b"a" * 60_000 + b"\r\n"),
    "interim-flood": endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100),
    "metadata": says(307, b"", Location=f"http://169.254.169.254/x?X-Amz-Signature={SIGNATURE}"),
    "lists": says(200, page("<Contents/>" * 1_000_000)),
    "nested": says(200, b"<a>" * 1_000_000),
    "entities": says(200, b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'),
    "names": says(200, page(f"<CommonPrefixes><Prefix>../../{STEERING}/</Prefix></CommonPrefixes>")),
    "web-page": says(200, b"<html><body>Welcome</body></html>", Content_Type="text/html"),
    "bomb": bomb(100_000_000),
    "reset": reset,
    "dribbled": dribble(OK + b"Content-Length: 100000\r\n\r\n", b" "),
    "silent": silent,
}
SLOW = frozenset({"silent", "dribbled", "framing", "interim-flood"})
"""Their retries wait for deadlines."""


async def test_a_hostile_bucket_costs_only_what_goes_to_it_or_comes_from_it(tmp_path: Path) -> None:
    await _sync(tmp_path, lambda name: name not in SLOW)


@pytest.mark.soak
async def test_a_bucket_that_lets_us_wait_costs_only_what_goes_to_it_or_comes_from_it(tmp_path: Path) -> None:
    await _sync(tmp_path, lambda name: name in SLOW)


def _site(name: str, endpoint: str) -> str:
    return (
        f'[site.{name}]\nurl = "s3://{name}"\nendpoint = "{endpoint}"\nregion = "us-east-1"\n'
        f'access_key = "AKIAEXAMPLE"\nsecret_key = "{SECRET_KEY}"\nsession_token = "{SESSION_TOKEN}"\n{TIMEOUTS}'
    )


async def _sync(folder: Path, chosen: Callable[[str], bool]) -> None:
    """A rule from a registry to each bucket and one from each bucket to a registry; then once more, from the good one."""
    names = [name for name in (*BUCKETS, "elsewhere") if chosen(name)]
    with moto_server() as endpoint:
        async with raw_client(endpoint) as client:
            await client.create_bucket(Bucket="good")
        async with (
            FakeRegistry() as hub,
            FakeRegistry() as fra,
            hostile(endpoint) as front,
            hostile() as other,
        ):
            other.on("", says(200, page("")))
            for name, malice in BUCKETS.items():
                front.on(f" /{name}([/?]|$)", malice)
            front.on(" /elsewhere", says(307, b"", Location=f"{other.url}/elsewhere?sig={SIGNATURE}"))
            load(hub.store, "platform/app", "v1", image("app"))
            rules = rule("good-out", destinations=["good"]) + _reads("good")
            for name in names:
                rules += rule(f"{name}-out", destinations=[name]) + _reads(name)
            sites = "".join(_site(name, front.url) for name in ("good", *names))
            Program(folder).write_config({"hub": hub.url, "fra": fra.url}, sites + rules)
            first = await measured(folder, "sync", "--json", within=150)
            if "platform/app" not in fra.store.repositories:  # the bucket was read before it was written
                await measured(folder, "sync", "--rule", "good-in", "--json", within=60)
            assert fra.store.content("platform/app").tags
            assert list(fra.store.repositories) == ["platform/app"]
    report = json.loads(first.stdout)
    failed = {
        each["rule"]: {one["site"] for there in each["destinations"] for one in there["failures"]}
        for each in report["rules"]
        if not each["rule"].startswith("good")
    }
    # An error page is an empty answer to a HEAD: what is written there is not known to be wrong before it is read.
    assert {name: sites for name, sites in failed.items() if name.endswith("-in")} == {
        f"{name}-in": {name} for name in names
    }
    assert {name: sites for name, sites in failed.items() if name.endswith("-out")} == {
        f"{name}-out": {name} for name in names
    }
    assert other.seen == []
    assert_clean(first, folder)
    for secret in (SECRET_KEY, SESSION_TOKEN):
        assert secret not in first.text
        assert secret.encode() not in (folder / "state.db").read_bytes()
    # A client of botocore takes 12 MB and a tenth of a second of the loop; there is one for each bucket.
    assert (first.peak < 450 << 20, first.stall < 4.0) == (True, True)


def _reads(name: str) -> str:
    return rule(f"{name}-in").replace('source = "hub"', f'source = "{name}"')


CHECKS = ("quoting", "endless-error", "endless-head", "metadata", "lists", "nested", "web-page", "bomb")


async def test_check_and_copy_end_at_a_hostile_bucket(tmp_path: Path) -> None:
    environ = {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_SESSION_TOKEN": SESSION_TOKEN,
        "AWS_REGION": "us-east-1",
    }
    async with FakeRegistry() as hub, hostile() as front:
        load(hub.store, "platform/app", "v1", image("app"))
        for name in CHECKS:
            front.on(f" /{name}([/?]|$)", BUCKETS[name])
        Program(tmp_path).write_config({}, "".join(_site(name, front.url) for name in CHECKS))
        costs = [await measured(tmp_path, "check", within=100)]
        assert all(name in costs[0].text for name in CHECKS)
        environ["AWS_ENDPOINT_URL"] = front.url
        good = f"{hub.url.removeprefix('http://')}/platform/app:v1"
        for ends in (good, "s3://quoting//platform/app:v1"), ("s3://quoting//platform/app:v1", good):
            costs.append(await measured(tmp_path, "copy", *ends, within=100, environ=environ))
            assert "quoting" in costs[-1].stderr
    for cost in costs:
        assert cost.code == 1
        assert cost.stall < 2.0
        for evil in (SECRET_KEY, SESSION_TOKEN, SIGNATURE, "\x9b", "\u202e"):
            assert evil not in cost.text
