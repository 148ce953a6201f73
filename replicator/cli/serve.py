"""`replicator serve SITE|DIR`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from replicator.cli.logs import log
from replicator.cli.names import complete_place
from replicator.cli.options import Invocation, everywhere
from replicator.cli.rules import read_config
from replicator.cli.runner import draining, run_async
from replicator.cli.watch import Watch
from replicator.config.certificate import server_context
from replicator.config.syntax import parse_listen
from replicator.daemon.http.auth import is_loopback
from replicator.errors import ConfigError, SiteError
from replicator.events import Warned
from replicator.metrics import Metrics, ServeMetrics
from replicator.serve.answered import Answered
from replicator.serve.content import Content
from replicator.serve.layout import site_of
from replicator.serve.server import DEFAULT_CONNECTIONS, Listener, RegistryServer
from replicator.serve.users import Users
from replicator.sites.layouts.settings import Layout
from replicator.sites.objects.settings import LocalSettings, S3Settings
from replicator.sites.open import open_store
from replicator.sites.registry.settings import RegistrySettings

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    try:
        return parse_listen(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@dataclass(frozen=True)
class Options:
    """The options of the command, under the same names."""

    listen: tuple[str, int]
    layout: Layout | None
    htpasswd: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    max_connections: int


@click.command("serve")
@click.argument("place", metavar="SITE|DIR", shell_complete=complete_place)
@click.option(
    "--listen",
    metavar="ADDR:PORT",
    default="127.0.0.1:5000",
    show_default=True,
    callback=_address,
    help="Address to listen on; port 0 means any free port.",
)
@click.option(
    "--layout",
    type=click.Choice(["distribution", "oci"]),
    help="Storage layout of the images.  [default: the site's, else detected]",
)
@click.option("--htpasswd", type=_FILE, help="Require a user and password from this file (htpasswd -B).")
@click.option("--tls-cert", type=_FILE, help="Serve HTTPS with this certificate and its chain (PEM).")
@click.option("--tls-key", type=_FILE, help="Private key of the certificate (PEM).")
@click.option(
    "--max-connections",
    type=click.IntRange(min=1),
    default=DEFAULT_CONNECTIONS,
    show_default=True,
    help="Maximum number of clients; idle ones give way, else further ones are answered with 503.",
)
@everywhere
@click.pass_obj
def command(invocation: Invocation, /, place: str, **options: Any) -> int:
    """Serve a bucket or directory as a read-only registry for docker, podman, containerd, skopeo and crane.

    The argument is a site of the config or a directory: the storage of a registry, a directory with one OCI layout per
    repository, or a single OCI layout. A name with a / is always a directory. Metrics are at /metrics. SIGTERM and
    SIGINT stop gracefully: transfers in progress have 25 s to finish, then the exit code is 0. A second signal stops
    immediately.
    """
    given = Options(**options)
    if (given.tls_cert is None) != (given.tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key must be used together")
    return run_async(_serve(invocation, place, given))


async def _serve(invocation: Invocation, place: str, options: Options) -> int:
    watch = Watch.start(invocation, quiet=True)
    settings, layout = _settled(place, invocation, watch)
    users = Users(options.htpasswd) if options.htpasswd else None
    listener = Listener(*options.listen, users, _tls(options), options.max_connections)
    store = open_store(settings, events=watch.events, clock=watch.clock)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.aclose)
        folder = settings.path.name if isinstance(settings, LocalSettings) else settings.name
        site, found = await site_of(store, options.layout or layout, folder=folder, events=watch.events)
        told = _Told(watch, options.max_connections)
        server = RegistryServer(
            Content(site, clock=watch.clock), audience=told, report=_report, expose=told.expose
        )
        told.server = server
        stop = asyncio.Event()
        stack.enter_context(draining(stop.set, level=logging.INFO))
        try:
            url = await stack.enter_async_context(server.listening(listener))
        except OSError as error:
            host, port = options.listen
            raise ConfigError([f"--listen {host}:{port}: {error.strerror or error}"]) from None
        log(logging.INFO, "serving", site=site.name, layout=found, url=url)
        if users is None and not is_loopback(listener.host):
            watch.events.emit(
                Warned(None, f"no --htpasswd: everyone who can reach {url} can pull everything")
            )
        await stop.wait()
    return 0


def _settled(
    place: str, invocation: Invocation, watch: Watch
) -> tuple[LocalSettings | S3Settings, Layout | None]:
    """The store to serve, and its layout if the config sets one. Raises ConfigError."""
    path = Path(place)
    directory = LocalSettings(place, path.absolute())
    if "/" in place or place in {".", ".."}:
        if not path.is_dir():
            raise ConfigError([f"{place}: directory not found"])
        return directory, None
    try:
        loaded = read_config(invocation, watch)
    except ConfigError:
        if path.is_dir() and invocation.config is None:
            return directory, None
        raise
    settings = loaded.sites.get(place)
    if settings is None:
        if path.is_dir():
            return directory, None
        sites = ", ".join(sorted(loaded.sites)) or "none"
        raise ConfigError([f"{place}: neither a site (the config has {sites}) nor a directory"])
    if isinstance(settings, RegistrySettings):
        raise ConfigError([f"{place}: is already a registry; only directories and buckets can be served"])
    return settings.store, settings.layout


def _tls(options: Options) -> ssl.SSLContext | None:
    if options.tls_cert is None or options.tls_key is None:
        return None
    try:
        return server_context(options.tls_cert, options.tls_key)
    except ValueError as error:
        raise ConfigError([f"--tls-cert {error}"]) from None


def _report(operation: str, error: Exception) -> None:
    """Logs a failure on the server's side."""
    if isinstance(error, SiteError):
        log(
            logging.ERROR,
            error.cause,
            site=error.site,
            repository=error.repository,
            operation=error.operation,
            reason=error.reason,
            answering=operation,
        )
    else:
        log(logging.ERROR, str(error), answering=operation)


class _Told:
    """Logs and counts requests."""

    def __init__(self, watch: Watch, limit: int) -> None:
        self._metrics = Metrics((), lambda: ())
        self._serving = ServeMetrics(self._metrics.registry, self._connections, limit)
        self.server: RegistryServer | None = None
        watch.events.subscribe(self._metrics)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """The answer of `/metrics`."""
        return self._metrics.negotiate(accept)

    def sent(self, operation: str, count: int) -> None:
        """Counts bytes."""
        self._serving.sent(operation, count)

    def answered(self, answered: Answered) -> None:
        """Counts and logs a request."""
        self._serving.answered(answered.operation, answered.status, answered.seconds)
        log(
            logging.INFO,
            "request",
            remote=answered.remote,
            user=answered.user or None,
            method=answered.method,
            path=answered.path,
            status=answered.status,
            bytes=answered.size,
            seconds=round(answered.seconds, 4),
            broken_off=None if answered.whole else True,
        )

    def _connections(self) -> int:
        return self.server.connections if self.server else 0
