"""Whatever others say, no secret of ours and nothing that steers a terminal comes into what an agent shows or keeps.

Secrets and escape sequences are planted in every field that a registry, a bucket, a manifest, a name or a command's stderr
controls; then log, page, API, metrics, notifications, what hooks are told, and the state are searched for them.
"""

from __future__ import annotations

import asyncio
import base64
import html
import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from replicator.demo.images import image, load
from replicator.errors import Corrupt, SiteError
from replicator.events import Warned
from replicator.model.manifest import parse_manifest
from replicator.scrub import remember
from replicator.sites.objects.s3.errormap import BucketAddress, s3_error
from replicator.sites.registry.errormap import read_error
from replicator.sites.registry.location import resolve_location
from tests.acceptance.agent import write_agent
from tests.acceptance.program import Program, rule
from tests.fakes.registry import FakeRegistry
from tests.hostile.measured import probed
from tests.hostile.server import hostile, quotes, says
from tests.hostile.test_buckets import SECRET_KEY, SESSION_TOKEN, quotes_keys
from tests.hostile.test_clients import PATIENCE_SECONDS, address_of
from tests.hostile.test_sources import ESCAPES, PASSWORD, SIGNATURE

SAYS = f"import sys; sys.stderr.write({PASSWORD!r} + ' ' + {ESCAPES!r} + ' ' + {SECRET_KEY!r} + chr(10)); "
KEEPS = SAYS + "open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10)); sys.exit(1)"


def assert_nothing_planted(where: str, text: str) -> None:
    """Of our secrets in any encoding, and of what steers a terminal or forges a line."""
    basic = base64.b64encode(f"mirror:{PASSWORD}".encode()).decode()
    for secret in (
        PASSWORD,
        quote(PASSWORD, safe=""),
        basic,
        basic.encode().hex(),
        SIGNATURE,
        SECRET_KEY,
        SESSION_TOKEN,
    ):
        for form in (secret, html.escape(secret), json.dumps(secret)[1:-1], secret.upper()):
            assert form not in text, where
    for evil in ("\x1b", "\x9b", "\u202e", "&#27;"):
        assert evil not in text, where
    assert not any(line.startswith("2026-01-01T00:00:00Z INFO forged") for line in text.splitlines()), where


def _decoded(document: str) -> str:
    """The JSON with every character as itself."""
    return json.dumps(json.loads(document), ensure_ascii=False) if document else ""


async def test_an_agent_shows_and_keeps_nothing_that_is_planted(tmp_path: Path) -> None:
    told = tmp_path / "told.jsonl"
    command = json.dumps([sys.executable, "-c", KEEPS, str(told)])
    async with FakeRegistry() as hub, FakeRegistry() as fra, hostile(hub.url) as front:
        for name in ("quoted", "signed", "names", "typed", "good"):
            load(hub.store, f"platform/{name}", "v1", image(name))
        planted = f"{PASSWORD} {ESCAPES} https://u:{SIGNATURE}@h/?_state={SIGNATURE}"
        front.on("/v2/platform/quoted/", quotes(403))
        front.on(
            "/v2/platform/signed/manifests",
            says(307, b"", Location=f"http://169.254.169.254/?sig={SIGNATURE}"),
        )
        names = {"name": "x", "tags": ["v1", planted, "v1\x1b[2J"]}
        front.on("/v2/platform/names/tags/list", says(200, json.dumps(names).encode()))
        typed = {
            "schemaVersion": 2,
            "mediaType": planted,
            planted: planted,
            "layers": planted,
            "config": {"digest": planted},
        }
        front.on(
            "/v2/platform/typed/manifests",
            says(200, json.dumps(typed).encode(), Content_Type="application/json"),
        )
        front.on(" /bucket([/?]|$)", quotes_keys)
        hooks = (
            f'interval = "1s"\nhooks = {{ before = {command}, before_required = false, after = {command} }}'
        )
        bucket = (
            f'[site.b]\nurl = "s3://bucket"\nendpoint = "{front.url}"\nregion = "us-east-1"\naccess_key = "AKIAEXAMPLE"\n'
            f'secret_key = "{SECRET_KEY}"\nsession_token = "{SESSION_TOKEN}"\n'
        )
        login = f'{front.url}"\nusername = "mirror"\npassword = "{PASSWORD}'
        notify = f"[notify.pager]\ncommand = {command}\n"
        rules = rule(more=hooks) + rule("bucket").replace('source = "hub"', 'source = "b"')
        write_agent(Program(tmp_path), {"hub": login, "fra": fra.url}, bucket + rules + notify)
        async with probed(tmp_path, "run", "--log-format", "text") as running:
            host, port = await address_of(running, "listening")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not told.exists() or '"failure"' not in told.read_text():  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.05)
            shown: dict[str, str] = {}
            async with aiohttp.ClientSession() as session:
                for path in PATHS:
                    async with session.get(f"http://{host}:{port}{path}") as answer:
                        body = await answer.text()
                        shown[path] = f"{answer.headers} {_decoded(body) if '/api/' in path else body}"
                        assert answer.status == 200, path
            cost = await running.end()
    with closing(sqlite3.connect(tmp_path / "state.db")) as state:
        shown["state"] = "\n".join(state.iterdump())
    shown["log"] = cost.stderr
    shown["told"] = "".join(map(_decoded, told.read_text().splitlines()))
    for where, text in shown.items():
        assert_nothing_planted(where, text)
    # It was all there to be found: each of the faults is named.
    for name in ("quoted", "signed", "typed"):
        assert any(f"platform/{name}" in text for text in shown.values()), name
    assert "403" in shown["told"]
    assert "***" in shown["log"]


PATHS = [
    "/",
    "/metrics",
    *(
        "/api/v1/status",
        "/api/v1/rules",
        "/api/v1/rules/platform",
        "/api/v1/runs",
        "/api/v1/sites",
        "/api/v1/lag",
    ),
    "/api/v1/search?q=platform",
]


# --- the same of any text: what is planted where, in whatever order ---


def _body(text: str) -> bytes:
    return json.dumps({"errors": [{"code": text, "message": text, "detail": {text: text}}]}).encode()


def _location(text: str) -> str:
    try:
        registry = URL("https://registry.example.com")
        return str(resolve_location(text, asked=registry / "v2/a/blobs/uploads/1", registry=registry)[:0])
    except ValueError as error:
        return str(Corrupt("hub", "start upload", str(error)))


def _manifest(text: str) -> str:
    shapes: list[dict[str, Any]] = [
        {"schemaVersion": 2, "mediaType": text, text: text},
        {"schemaVersion": text, "layers": []},
        {
            "schemaVersion": 2,
            "config": {"digest": text, "size": 1, "mediaType": text},
            "layers": [{"digest": text}],
        },
    ]
    found = []
    for shape in shapes:
        try:
            parse_manifest(json.dumps(shape).encode(), text)
        except ValueError as error:
            found.append(str(Corrupt("hub", "read manifest", str(error))))
    return " ".join(found)


def _refusal(text: str) -> str:
    told = {"Code": text, "Message": text, "Region": text, "Endpoint": text}
    meta = {"HTTPStatusCode": 403, "HTTPHeaders": {"x-amz-bucket-region": text, "retry-after": text}}
    found = []
    for code in (text, "AccessDenied", "PermanentRedirect", "NoSuchKey", "SlowDown"):
        error = ClientError({"Error": told | {"Code": code}, "ResponseMetadata": meta}, text)
        found.append(str(s3_error(BucketAddress("b", "b", "http://b"), f"read {text}", error)))
    return " ".join(found)


def _event(text: str) -> str:
    return Warned("hub", text).text


FIELDS: dict[str, Callable[[str], str]] = {
    "registry error": lambda text: " ".join((read_error(_body(text)).text, *read_error(_body(text)).codes)),
    "web page": lambda text: read_error(f"<title>{text}</title>".encode("utf-8", "replace")).text,
    "manifest": _manifest,
    "Location": _location,
    "S3 error": _refusal,
    "event": _event,
    "operation": lambda text: str(SiteError("hub", text, text)),
}

SECRETS = st.sampled_from(
    [PASSWORD, quote(PASSWORD, safe=""), base64.b64encode(f"mirror:{PASSWORD}".encode()).decode(), SECRET_KEY]
)
PLANTED = st.lists(
    SECRETS
    | st.sampled_from(
        [ESCAPES, "\x1b", "\u202e", "\r\n", f"https://u:{SIGNATURE}@h/?_state={SIGNATURE}", " "]
    )
    | st.text(max_size=5),
    max_size=8,
).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FIELDS)), PLANTED)
def test_no_field_brings_what_is_planted_into_an_error_or_event(field: str, text: str) -> None:
    for secret in (PASSWORD, SECRET_KEY, base64.b64encode(f"mirror:{PASSWORD}".encode()).decode()):
        remember(secret, lasting=True)
    assert_nothing_planted(field, FIELDS[field](text))
