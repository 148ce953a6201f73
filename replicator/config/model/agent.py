"""The tables of the agent: the agent itself, its HTTP server, webhooks and notifications."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from replicator.config.model.table import Table, setting
from replicator.config.secrets import Secret
from replicator.config.syntax import (
    ARGUMENT,
    DURATION,
    ENDPOINT,
    FILE,
    HEADER,
    LISTEN,
    NAME,
    PATH,
    SECRET,
    SENDER,
    SIZE,
    STATE,
    TEMPLATE,
    TIMEZONE,
)
from replicator.state.place import Place


class CacheTable(Table):
    """The spool: temporary storage for blobs that go to several destinations, and for parts of large ones."""

    path: Annotated[Path | None, PATH] = setting(
        "Folder of the spool. Default: `$CACHE_DIRECTORY`, else `$XDG_CACHE_HOME/replicator`, else "
        "`~/.cache/replicator`.",
        None,
    )
    max_bytes: Annotated[int, SIZE] = setting(
        "Maximum size of the spool. When it is full, blobs are streamed to each destination.", "20GB"
    )


class AgentTable(Table):
    """This agent. Every key has a default, so the table is optional."""

    name: Annotated[str | None, NAME] = setting(
        "Name of this data center in reports. Default: the host name.", None
    )
    serves: list[str] | None = setting(
        "Replicate only to these sites, so that all data centers can share one config. Default: all sites.",
        None,
        min_length=1,
    )
    state: Annotated[Place | None, STATE] = setting(
        "State database: `sqlite:///` and an absolute path, or `postgresql://USER@HOST/DATABASE` without a password. "
        "Default: `state.db` in `$STATE_DIRECTORY`, else in `$XDG_STATE_HOME/replicator`, else in "
        "`~/.local/state/replicator`. See [the state](state.md).",
        None,
    )
    state_password: Annotated[Secret | None, SECRET] = setting(
        "Password of the PostgreSQL role in `state`.", None
    )
    cache: CacheTable = setting(
        "Spool for blobs that go to several destinations, and for large blobs that are read in parts.",
        default_factory=CacheTable,
    )
    listen: Annotated[tuple[str, int], LISTEN] = setting(
        "Address where `run` serves metrics, health, webhooks, API and status page. An address other than loopback "
        "requires `http.token`.",
        "127.0.0.1:9650",
    )
    timezone: Annotated[ZoneInfo, TIMEZONE] = setting(
        "Time zone of `cron` and of bandwidth windows that set none.", "UTC"
    )
    index: Literal["passing", "full"] = setting(
        "Images whose labels, platforms and layers `search` knows. `passing`: those that were copied. `full`: all; the "
        "configs of the others are read from the destinations.",
        "passing",
    )
    stuck_after: Annotated[float, DURATION] = setting(
        "End a run that has made no progress for this long: no answer to a request, no byte moved, no tag done. The run "
        "fails, and the rule runs again later. Must exceed `timeouts.commit` of every site.",
        "30m",
    )
    metrics_per_repository: int = setting(
        "Export per-repository series for at most this many lagging repositories, furthest behind first. See "
        "[metrics](metrics.md).",
        0,
        ge=0,
        le=10_000,
    )


class ServerTLSTable(Table):
    """The agent's TLS certificate."""

    cert: Annotated[Path, FILE] = setting("PEM file with the certificate and its intermediate certificates.")
    key: Annotated[Path, FILE] = setting("PEM file with the private key, not encrypted.")


class HTTPTable(Table):
    """Access to `agent.listen`."""

    token: Annotated[Secret | None, SECRET] = setting(
        "Token required for every change and, beyond loopback, for everything except health checks. Sent as "
        "`Authorization: Bearer TOKEN`, or as the password of Basic authentication.",
        None,
    )
    tls: ServerTLSTable | None = setting("Serve HTTPS with this certificate. Default: plain HTTP.", None)
    metrics_open: bool = setting("Serve `/metrics` without a token.", False)
    hosts: list[str] = setting(
        "Additional host names of the agent. Its addresses, the loopback names and the host name are always accepted; "
        "requests with any other `Host` are refused.",
        default_factory=list,
    )


class FleetTable(Table):
    """Several agents with one config that divide the work."""

    enabled: bool = setting(
        "Share the rules with all agents whose `agent.state` is the same PostgreSQL database. Each agent needs its own "
        "`agent.name`. With `agent.serves`, an agent works on these destinations only, and on others once no agent has "
        "served them for a minute.",
        False,
    )
    shards: int = setting(
        "Number of parts (shards) that the repositories of a rule are divided into; one agent at a time works on a "
        "shard. Must be the same for all agents.",
        64,
        ge=1,
        le=256,
    )
    jobs: int = setting("Number of shards that this agent works on at the same time.", 8, ge=1, le=64)
    heartbeat: Annotated[float, DURATION] = setting(
        "Interval between heartbeats. After three intervals without one (at least 5 s), the others take over an agent's "
        "work; if its process has ended, after two. Longer intervals reduce the load on the database of a large fleet.",
        "3s",
    )
    split_bytes: Annotated[int, SIZE] = setting(
        "If this much of a repository, or 200 tags, is missing at a destination, the repository becomes a separate job "
        "that any agent can take, so that the rest of its shard does not wait for it.",
        "4GiB",
    )


class HMACTable(Table):
    """A signature over the request body."""

    header: Annotated[str | None, HEADER] = setting(
        "Header with the hexadecimal HMAC, with or without a prefix such as `sha256=`. Default: that of `kind`.",
        None,
    )
    algorithm: Literal["sha256", "sha1"] | None = setting(
        "Hash of the HMAC. Default: that of `kind`, else `sha256`.", None
    )
    secret: Annotated[Secret, SECRET] = setting("Signing key.")


class SecretHeaderTable(Table):
    """A header with a secret, such as an API key."""

    name: Annotated[str | None, HEADER] = setting("Name of the header. Default: that of `kind`.", None)
    value: Annotated[Secret, SECRET] = setting("Value of the header.")


class OIDCTable(Table):
    """The OpenID Connect token that Google's Pub/Sub sends with each push."""

    audience: str = setting(
        "Audience of the push subscription, such as the URL of the webhook.", min_length=1
    )
    email: str = setting("Service account of the push subscription.", min_length=3)
    issuer: str = setting("Issuer of the token.", "https://accounts.google.com", min_length=1)
    keys_url: Annotated[str, ENDPOINT] = setting(
        "URL of the issuer's public keys (a JWK set).", "https://www.googleapis.com/oauth2/v3/certs"
    )
    keys_file: Annotated[Path | None, FILE] = setting(
        "File with these keys, for agents that cannot reach `keys_url`. Read at most once a minute.", None
    )


class WebhookTable(Table):
    """A webhook, `POST /webhooks/NAME`: a site's notifications trigger its rules immediately. One authentication is required."""

    site: str = setting("Site that sends the notifications.")
    kind: Annotated[str | None, SENDER] = setting(
        "Kind of notifications to accept: `acr`, `alibaba`, `artifactory`, `distribution`, `dockerhub`, `ecr`, `ghcr`, "
        "`gitea`, `gitlab`, `google`, `harbor`, `nexus`, `quay` or `zot`. Default: all; the kind is detected.",
        None,
    )
    hosts: list[str] = setting(
        "Additional names of the registry in its notifications, if it does not use the host of the site's URL. "
        "Notifications of other registries are refused.",
        default_factory=list,
    )
    token: Annotated[Secret | None, SECRET] = setting(
        "Value of the sender's `Authorization` header: `Bearer TOKEN`, the token alone, or the password of Basic.",
        None,
    )
    header: SecretHeaderTable | None = setting("Another header with a secret.", None)
    url_token: Annotated[Secret | None, SECRET] = setting(
        "Value of the query parameter `token`, for senders that cannot set headers. Proxies may log it.",
        None,
    )
    hmac: HMACTable | None = setting("Signature over the request body.", None)
    oidc: OIDCTable | None = setting("OpenID Connect token, sent as Bearer.", None)


class NotifyTable(Table):
    """A receiver of notifications about failure, recovery and staleness. Successful runs are not reported."""

    url: Annotated[Secret | None, SECRET] = setting(
        "URL that the JSON is posted to, such as a Slack incoming webhook. Treated as a secret.",
        None,
    )
    template: Annotated[Any, TEMPLATE] = setting(
        "JSON to post. `{event}`, `{rule}`, `{source}`, `{destination}`, `{agent}`, `{time}`, `{lag}`, "
        "`{error}` and `{summary}` in its strings are replaced.",
        '{"text": "{summary}"}',
    )
    command: list[Annotated[str, ARGUMENT]] | None = setting(
        "Command and arguments to run instead of posting, without a shell. It gets the facts as JSON on stdin.",
        None,
        min_length=1,
    )
    env: dict[str, Annotated[Secret, SECRET]] = setting(
        "Environment variables to add. Commands get only a few harmless ones otherwise (`PATH`, `HOME`, the locale "
        "...), never the agent's own secrets.",
        default_factory=dict,
    )
    on: list[Literal["failure", "recovery", "stale"]] = setting(
        "Events to report. Default: all three.",
        default_factory=lambda: ["failure", "recovery", "stale"],
        min_length=1,
    )
    stale_after: Annotated[float, DURATION] = setting("Lag above which a destination is stale.", "1h")
    timeout: Annotated[float, DURATION] = setting(
        "Time limit of one attempt. There are three attempts.", "10s"
    )
