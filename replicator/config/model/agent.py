"""The tables of the agent: itself, its HTTP side, webhooks, and whom it tells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from replicator.config.model.table import Table, setting
from replicator.config.secrets import Secret
from replicator.config.syntax import (
    ARGUMENT,
    DURATION,
    FILE,
    HEADER,
    LISTEN,
    NAME,
    PATH,
    SECRET,
    SIZE,
    STATE,
    TEMPLATE,
    TIMEZONE,
)


class CacheTable(Table):
    """Where blobs lie for a moment on their way to several destinations."""

    path: Annotated[Path | None, PATH] = setting(
        "Folder of the spool. Default: `$CACHE_DIRECTORY`, else `$XDG_CACHE_HOME/replicator`, else `~/.cache/replicator`.",
        None,
    )
    max_bytes: Annotated[int, SIZE] = setting(
        "Bytes that the spool may hold; when it is full, blobs stream.", "20GB"
    )


class AgentTable(Table):
    """This agent. All keys have defaults, so the table may be left out."""

    name: Annotated[str | None, NAME] = setting(
        "This data center, in reports. Default: the host's name.", None
    )
    serves: list[str] | None = setting(
        "Replicate only to these sites, so that all sites can share one config. Default: all sites.",
        None,
        min_length=1,
    )
    state: Annotated[Path | None, STATE] = setting(
        "Where the agent remembers what it did: `sqlite:///` and an absolute path. Default: `state.db` in "
        "`$STATE_DIRECTORY`, else in `$XDG_STATE_HOME/replicator`, else in `~/.local/state/replicator`.",
        None,
    )
    cache: CacheTable = setting("Spool for blobs that feed several destinations.", default_factory=CacheTable)
    listen: Annotated[tuple[str, int], LISTEN] = setting(
        "Where `run` serves metrics, health, webhooks, API and status page. Beyond loopback it needs `http.token`.",
        "127.0.0.1:9650",
    )
    timezone: Annotated[ZoneInfo, TIMEZONE] = setting(
        "Time zone of `cron` and of bandwidth windows that name none.", "UTC"
    )
    metrics_per_repository: int = setting(
        "So many repositories that are behind have series of their own in `/metrics`, those furthest behind first; the "
        "rest is counted. See [metrics](metrics.md).",
        0,
        ge=0,
        le=10_000,
    )


class ServerTLSTable(Table):
    """The certificate that the agent shows."""

    cert: Annotated[Path, FILE] = setting("PEM file of the certificate and what leads up to its CA.")
    key: Annotated[Path, FILE] = setting("PEM file of its private key.")


class HTTPTable(Table):
    """What `run` asks of those who connect to `agent.listen`."""

    token: Annotated[Secret | None, SECRET] = setting(
        "Token for whatever changes something, and, beyond loopback, for everything but health: as "
        "`Authorization: Bearer`, or as the password of Basic.",
        None,
    )
    tls: ServerTLSTable | None = setting("Serve HTTPS with this certificate. Default: plain HTTP.", None)
    metrics_open: bool = setting("`true`: `/metrics` needs no token.", False)
    hosts: list[str] = setting(
        "Names under which the agent is reached, beside loopback's, its addresses and the host's own; requests that "
        "change something under another name are refused.",
        default_factory=list,
    )


class HMACTable(Table):
    """A signature over the body, for senders that sign."""

    header: Annotated[str, HEADER] = setting(
        "Header that holds the hexadecimal HMAC-SHA256, plain or after `sha256=`."
    )
    secret: Annotated[Secret, SECRET] = setting("Key of the signature.")


class WebhookTable(Table):
    """A webhook, `POST /webhooks/NAME`: a site's own notifications make its rules look at once."""

    site: str = setting("Site that sends them.")
    token: Annotated[Secret | None, SECRET] = setting(
        "What the sender has in `Authorization`, as `Bearer TOKEN` or as it is.", None
    )
    hmac: HMACTable | None = setting("A signature over the body, instead of a token.", None)


class NotifyTable(Table):
    """Whom to tell when replication breaks, recovers or falls behind. Success is never told."""

    url: Annotated[Secret | None, SECRET] = setting(
        "Where to POST JSON (Slack's incoming webhooks and what understands them). Often a secret itself.",
        None,
    )
    template: Annotated[Any, TEMPLATE] = setting(
        "The JSON that is posted; `{event}`, `{rule}`, `{source}`, `{destination}`, `{agent}`, `{time}`, `{lag}`, "
        "`{error}` and `{summary}` in its strings are filled in.",
        '{"text": "{summary}"}',
    )
    command: list[Annotated[str, ARGUMENT]] | None = setting(
        "Command and arguments to run instead, without a shell; it gets the facts as JSON on stdin.",
        None,
        min_length=1,
    )
    on: list[Literal["failure", "recovery", "stale"]] = setting(
        "What to tell. Default: all three.",
        default_factory=lambda: ["failure", "recovery", "stale"],
        min_length=1,
    )
    stale_after: Annotated[float, DURATION] = setting("Lag from which a destination is stale.", "1h")
    timeout: Annotated[float, DURATION] = setting("How long one attempt may take; there are three.", "10s")
