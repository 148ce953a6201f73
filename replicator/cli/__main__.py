"""The program: finds the command, and turns every way of ending into an exit code.

Only click is imported here: `replicator --version` has to answer at once.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence

import click

from replicator.cli.options import Entry, Invocation, LateGroup, everywhere
from replicator.errors import ConfigError, ReplicatorError, StateError

_COMMANDS = {
    "sync": Entry("replicator.cli.sync", "Bring the destinations of all rules in step, then exit."),
    "plan": Entry("replicator.cli.plan", "Show what sync would do, changing nothing."),
    "copy": Entry("replicator.cli.copy", "Copy one image, or all tags of a repository, without a config."),
    "run": Entry("replicator.cli.run", "Keep the destinations in step, as a daemon."),
    "check": Entry("replicator.cli.check", "Read the config, then reach every site."),
    "list": Entry(
        "replicator.cli.listing", "Show the repositories of a site, or the tags of one repository."
    ),
    "diff": Entry("replicator.cli.diff", "Compare two sites tag by tag, without any rule."),
    "inspect": Entry("replicator.cli.inspect", "Describe one image: platforms, layers, config, referrers."),
    "images": Entry("replicator.cli.lists", "Print the images that lists name, with file and line."),
    "status": Entry(
        "replicator.cli.status", "Show lag, last success and failures of each rule, from the state."
    ),
    "serve": Entry("replicator.cli.serve", "Serve a bucket or directory as a read-only registry."),
    "export": Entry("replicator.cli.export", "Write what rules select into an archive, where no wire leads."),
    "import": Entry("replicator.cli.imports", "Put all images of an archive into a site."),
    "inventory": Entry("replicator.cli.inventory", "List every blob a site has, for export --have."),
    "config": Entry(
        "replicator.cli.config",
        "JSON Schema of the config, the effective config, or another tool's config as TOML.",
    ),
    "demo": Entry("replicator.cli.demo", "See it work on this machine alone; nothing else is needed."),
}


@click.group(
    cls=LateGroup,
    entries=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@everywhere
def cli() -> None:
    """Keeps container registries in step across data centers.

    Exit codes: 0 done; 1 something failed (the rest was still done); 2 usage, config, or state in use; 3 drift
    (plan --exit-code); 130 or 143 when ended by SIGINT or SIGTERM.
    """


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns the exit code. Raises nothing, prints no traceback (but with -vv)."""
    invocation = Invocation()
    try:
        code = cli.main(list(arguments), prog_name="replicator", obj=invocation, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader of our output left (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the last place: what is not ours becomes one line, too
        return _failed(invocation, error)
    return code if isinstance(code, int) else 0


def main() -> None:
    """The entry point."""
    gc.disable()  # a tenth of the start is spent looking for garbage among what is being imported; see `run_async`
    sys.exit(run(sys.argv[1:]))


def _failed(invocation: Invocation, error: Exception) -> int:
    """Says what went wrong, a line for each problem; returns the exit code."""
    import json  # noqa: PLC0415 - only here, and never for --version
    import logging  # noqa: PLC0415

    from replicator.cli.logs import leads_to_journal, priority  # noqa: PLC0415

    errors = list(_leaves(error))
    lines = [line for each in errors for line in _lines(each)]
    lead = priority(logging.ERROR) if leads_to_journal() else ""
    for line in lines:
        as_json = invocation.log_format == "json"
        text = json.dumps({"level": "error", "message": line}) if as_json else f"error: {line}"
        click.echo(f"{lead}{text}", err=True)
    if invocation.json:
        click.echo(json.dumps({"version": 1, "outcome": "failed", "error": "\n".join(lines)}))
    if invocation.verbose > 1:
        import traceback  # noqa: PLC0415 - only here

        traceback.print_exception(error)
    return 2 if all(isinstance(each, ConfigError | StateError) for each in errors) else 1


def _leaves(error: Exception) -> Iterator[Exception]:
    """The errors themselves, out of whatever groups task groups put them in."""
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
    return [f"internal error, please report it (-vv shows where): {type(error).__name__}: {error}"]


if __name__ == "__main__":
    main()
