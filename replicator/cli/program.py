"""The program: finds the command, and turns every outcome into an exit code.

Only click is imported here, because `replicator --version` must answer immediately.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

import click

from replicator.cli.options import Entry, Invocation, LateGroup, everywhere
from replicator.errors import ConfigError, ReplicatorError, StateError

_COMMANDS = {
    "sync": Entry("replicator.cli.sync", "Bring the destinations of all rules up to date, then exit."),
    "plan": Entry("replicator.cli.plan", "Show what sync would do, without changing anything."),
    "copy": Entry("replicator.cli.copy", "Copy one image, or all tags of a repository, without a config."),
    "run": Entry("replicator.cli.run", "Keep the destinations up to date, as a daemon."),
    "init": Entry("replicator.cli.init", "Write a first config, and check its sites."),
    "check": Entry("replicator.cli.check", "Validate the config and check access to every site."),
    "list": Entry(
        "replicator.cli.listing", "Show the repositories of a site, or the tags of one repository."
    ),
    "search": Entry("replicator.cli.search", "Find images by name, digest, layer, platform, label or age."),
    "where": Entry("replicator.cli.where", "Show which sites hold an image, and under which names."),
    "diff": Entry("replicator.cli.diff", "Compare two sites tag by tag, without any rule."),
    "inspect": Entry("replicator.cli.inspect", "Describe one image: platforms, layers, config, referrers."),
    "verify-signature": Entry(
        "replicator.cli.verifysignature", "Explain which signatures of an image count, and why others do not."
    ),
    "images": Entry("replicator.cli.lists", "Print the images that lists name, with file and line."),
    "why": Entry("replicator.cli.why", "Explain why an image is, or is not, at its destinations."),
    "status": Entry("replicator.cli.status", "Show lag, last success and failures of each rule."),
    "fleet": Entry("replicator.cli.fleet", "List the agents that share the rules, or drain one of them."),
    "state": Entry("replicator.cli.state", "Move the state from SQLite to PostgreSQL, or back."),
    "serve": Entry("replicator.cli.serve", "Serve a bucket or directory as a read-only registry."),
    "export": Entry(
        "replicator.cli.export", "Export the images selected by rules to an archive, for air-gapped sites."
    ),
    "import": Entry("replicator.cli.imports", "Import all images of an archive into a site."),
    "inventory": Entry("replicator.cli.inventory", "List all blobs of a site, for export --have."),
    "config": Entry(
        "replicator.cli.config",
        "Print the JSON Schema or the effective config, or convert another tool's config.",
    ),
    "completion": Entry("replicator.cli.completion", "Print the completion script of a shell."),
    "demo": Entry("replicator.cli.demo", "Demonstrate replication on this machine, without any server."),
}


@click.group(
    cls=LateGroup,
    entries=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@everywhere
def cli() -> None:
    """Keep container registries in step across data centers.

    Exit codes: 0 success; 1 something failed (the rest was done); 2 usage, config, or state in use; 3 drift
    (plan --exit-code, diff, why); 130 or 143 after SIGINT or SIGTERM.
    """


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns the exit code. Never raises; prints a traceback only with -vv."""
    invocation = Invocation()
    try:
        code = cli.main(list(arguments), prog_name="replicator", obj=invocation, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader of our output has exited (`| head`). Python would report it again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the last resort: an unexpected error becomes one line, too
        return _failed(invocation, error)
    return code if isinstance(code, int) else 0


def _failed(invocation: Invocation, error: Exception) -> int:
    """Prints what went wrong, one line per problem; returns the exit code."""
    import json  # noqa: PLC0415 - only here, and never for --version
    import logging  # noqa: PLC0415

    from replicator.cli.logs import leads_to_journal, priority  # noqa: PLC0415

    errors = list(_leaves(error))
    lines = [line for each in errors for line in _lines(each)]
    lead = priority(logging.ERROR) if leads_to_journal() else ""
    for line in lines:
        as_json = invocation.log_format == "json"
        text = json.dumps({"level": "error", "message": line}) if as_json else f"error: {line}"
        _say(f"{lead}{text}", err=True)
    if invocation.json:
        _say(json.dumps({"version": 1, "outcome": "failed", "error": "\n".join(lines)}))
    if invocation.verbose > 1:
        import traceback  # noqa: PLC0415 - only here

        _say("".join(traceback.format_exception(error)).rstrip(), err=True)
    return 2 if all(isinstance(each, ConfigError | StateError) for each in errors) else 1


def _say(text: str, *, err: bool = False) -> None:
    """Prints a line about a failure. Where that is impossible, as on a full disk, the exit code has to do."""
    with contextlib.suppress(OSError):
        click.echo(text, err=err)


def _leaves(error: Exception) -> Iterator[Exception]:
    """The errors themselves, taken out of the exception groups of task groups."""
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _lines(error: Exception) -> Sequence[str]:
    if isinstance(error, ConfigError):
        return error.problems
    if isinstance(error, ReplicatorError):
        return [str(error)]
    if isinstance(error, OSError):
        return [f"{error.filename}: {error.strerror}" if error.filename else str(error)]
    return [f"internal error, please report it (-vv shows the traceback): {type(error).__name__}: {error}"]
