"""The programs that are compared, each set up as one who knows it well would.

Every one copies all tags of all repositories of a source to the same names at one or more destinations.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.measure import Command
from bench.servers import Endpoint

TOOLS = Path(__file__).parent.parent / ".tools" / "bin"


@dataclass(frozen=True, slots=True)
class Task:
    """What is copied, from where to where; `folder` is the program's own, and kept between runs of one task."""

    source: Endpoint
    destinations: Sequence[Endpoint]
    repositories: Sequence[str]
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """How Go and Rust programs are told of the task's CA, and that HOME has no credentials for them."""
        trust = {"SSL_CERT_FILE": str(self.source.authority.ca)} if self.source.authority else {}
        return {"HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder), **trust}


class Program(Protocol):
    """One of the compared."""

    name: str
    width: int
    """How many of its commands run at once."""
    plain_http: bool
    """Whether it can talk to a registry without TLS."""

    def version(self) -> str | None:
        """Its version, or None where it is not installed."""

    def commands(self, task: Task) -> list[Command]:
        """What to run. May write a configuration into the task's folder first."""


class Replicator:
    """This project's own program, with the defaults of its configuration."""

    name = "replicator"
    plain_http = True
    width = 1

    def version(self) -> str | None:
        """Its version."""
        return _said(_ours(), "--version")

    def commands(self, task: Task) -> list[Command]:
        """One run of one rule."""
        sites = {
            "source": task.source,
            **{f"to{number}": one for number, one in enumerate(task.destinations)},
        }
        tables = {name: registry_table(site) for name, site in sites.items()}
        return [replicate(task.folder, tables, task.repositories)]


class Regsync:
    """regclient's regsync, `once`: one process, images in parallel, a wide pool of requests for each host."""

    name = "regsync"
    plain_http = True
    width = 1
    parallel = 32
    requests = 64

    def version(self) -> str | None:
        """Its version."""
        return _said(find(self.name), "version", "--format", "{{.VCSTag}}")

    def commands(self, task: Task) -> list[Command]:
        """One run over all repositories (JSON is YAML)."""
        hosts = [task.source, *task.destinations]
        body = {
            "version": 1,
            "creds": [
                {
                    "registry": one.host,
                    "tls": "enabled" if one.authority else "disabled",
                    "reqConcurrent": self.requests,
                    **({"regcert": one.authority.ca.read_text()} if one.authority else {}),
                }
                for one in hosts
            ],
            "defaults": {"parallel": self.parallel, "ratelimit": {"min": 0}},
            "sync": [
                {"source": f"{task.source.host}/{name}", "target": f"{one.host}/{name}", "type": "repository"}
                for one in task.destinations
                for name in task.repositories
            ],
        }
        config = task.folder / "regsync.yml"
        config.write_text(json.dumps(body))
        return [Command([find(self.name), "-v", "warn", "once", "-c", str(config)], task.environment)]


class Crane:
    """go-containerregistry's crane, `copy --all-tags`: a process for each repository, several at once."""

    name = "crane"
    plain_http = True
    width = 10
    jobs = 8

    def version(self) -> str | None:
        """Its version."""
        return _pinned(self.name) if shutil.which(find(self.name)) else None

    def commands(self, task: Task) -> list[Command]:
        """One copy of each repository."""
        plain = [] if task.source.authority else ["--insecure"]
        call = [find(self.name), "copy", "--all-tags", "--jobs", str(self.jobs), *plain]
        return [
            Command(
                [*call, f"{task.source.host}/{name}", f"{one.host}/{name}"],
                task.environment,
            )
            for one in task.destinations
            for name in task.repositories
        ]


class Skopeo:
    """Debian's skopeo, `sync --all`: a process for each repository, several at once."""

    name = "skopeo"
    plain_http = True
    width = 10

    def version(self) -> str | None:
        """Its version."""
        return _said(find(self.name), "--version")

    def commands(self, task: Task) -> list[Command]:
        """One sync of each repository; it appends the last part of the name to the destination."""
        verify = "true" if task.source.authority else "false"
        call = [
            find(self.name),
            "sync",
            "--all",
            "--preserve-digests",
            "--src",
            "docker",
            "--dest",
            "docker",
        ]
        call += [f"--src-tls-verify={verify}", f"--dest-tls-verify={verify}"]
        return [
            Command(
                [*call, f"{task.source.host}/{name}", f"{one.host}/{name.rpartition('/')[0]}"],
                task.environment,
            )
            for one in task.destinations
            for name in task.repositories
        ]


class Ocync:
    """ocync, `sync`: one process. Its crate is on no registry, so it takes part where it is on the PATH."""

    name = "ocync"
    plain_http = False  # it drops the scheme of a configured URL
    width = 1
    transfers = 50
    requests = 50

    def version(self) -> str | None:
        """Its version."""
        return _said(find(self.name), "version")

    def commands(self, task: Task) -> list[Command]:
        """One run over all repositories (JSON is YAML)."""
        targets = [f"to{number}" for number in range(len(task.destinations))]
        site = {"auth_type": "anonymous", "max_concurrent": self.requests}
        body = {
            "global": {"max_concurrent_transfers": self.transfers, "cache_dir": str(task.folder / "cache")},
            "registries": {
                "source": {"url": task.source.url, **site, "head_first": True},
                **{
                    name: {"url": one.url, **site}
                    for name, one in zip(targets, task.destinations, strict=True)
                },
            },
            "target_groups": {"all": targets},
            "defaults": {
                "source": "source",
                "targets": "all",
                "tags": {"glob": "*"},
                "artifacts": {"enabled": False},
            },
            "mappings": [{"from": name, "to": name} for name in task.repositories],
        }
        config = task.folder / "ocync.yaml"
        config.write_text(json.dumps(body))
        return [Command([find(self.name), "-q", "sync", "-c", str(config)], task.environment)]


def replicate(
    folder: Path, sites: Mapping[str, Sequence[str]], repositories: Sequence[str], *options: str
) -> Command:
    """Our `sync` of one rule, from the site called "source" to all others.

    Args:
        folder: where config, state and cache lie.
        sites: the lines of each site's table.
        repositories: what is copied, by name.
        options: more for the command line.
    """
    lines = [
        "[agent]",
        f'state = "sqlite:///{folder / "state.db"}"',
        f'cache = {{ path = "{folder / "cache"}" }}',
    ]
    for name, table in sites.items():
        lines += [f"[site.{name}]", *table]
    lines += [
        "[[rule]]",
        'name = "bench"',
        'source = "source"',
        f"destinations = {json.dumps([name for name in sites if name != 'source'])}",
        f"repositories = {json.dumps(list(repositories))}",
        # What comes due by the time of day alone would make each run another one.
        'recheck = "365d"',
        'verify_every = "3650d"',
        'referrers_recheck = "365d"',
    ]
    config = folder / "replicator.toml"
    config.write_text("\n".join(lines) + "\n")
    environment = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    return Command([_ours(), "sync", "-c", str(config), *options], environment)


def registry_table(registry: Endpoint) -> list[str]:
    """The lines of a registry's table."""
    trust = [f'tls = {{ ca = "{registry.authority.ca}" }}'] if registry.authority else []
    return [f'url = "{registry.url}"', *trust]


PROGRAMS: tuple[Program, ...] = (Replicator(), Regsync(), Crane(), Ocync(), Skopeo())
OURS = "replicator"


def _ours() -> str:
    return str(Path(sys.executable).with_name("replicator"))


def find(name: str) -> str:
    """The pinned build if there is one, else whatever the PATH has (which may be nothing)."""
    built = TOOLS / name
    return str(built) if built.exists() else name


def _said(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            arguments,
            check=True,
            capture_output=True,
            text=True,
            timeout=10,
            env={**os.environ, "NO_COLOR": "1"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()[0]


def _pinned(name: str) -> str | None:
    for line in (TOOLS.parent.parent / "tools.versions").read_text().splitlines():
        if line.split()[1:2] == [name]:
            return line.split()[3]
    return None
