"""`replicator demo`."""

from __future__ import annotations

import click

from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.plan import look
from replicator.cli.rules import read_config, select_rules
from replicator.cli.runner import exit_code, run_async
from replicator.cli.sync import replicate
from replicator.cli.watch import Watch
from replicator.config.starter import site_url
from replicator.demo.run import Stage, filling, stage
from replicator.engine.result import RunResult
from replicator.report import failed, render_plan, render_run

_NEXT = """\
What to try next:
  replicator init                                      write a first config for sites of your own
  replicator copy alpine registry.example.com/alpine   copy one image, without a config
  replicator config schema                             show every key of the config
  replicator -c replicator.toml check                  check your own sites: credentials, permissions, capabilities
  replicator -c replicator.toml plan                   show what would be done
  replicator -c replicator.toml sync                   do it; the next run copies only what changed"""


@click.command("demo")
@click.option(
    "--fill",
    metavar="HOST[:PORT]",
    help="Only copy the demo's images to this registry, as platform/shop and platform/api: something to begin with.",
)
@everywhere
@click.pass_obj
def command(invocation: Invocation, fill: str | None) -> int:
    """Replicate a few images between three small registries inside this process: plan, sync, and sync again.

    Needs no server, network or account, and leaves nothing behind. With --json, prints the reports of both runs.
    """
    return run_async(_demo(invocation) if fill is None else _fill(invocation, site_url(fill)))


async def _fill(invocation: Invocation, url: str) -> int:
    async with filling(url) as playing:
        invocation.config = playing.config
        watch = Watch.start(invocation, quiet=True)
        loaded = read_config(invocation, watch)
        result, drain = await replicate(loaded, select_rules(loaded, (), ()), watch)
    if invocation.json:
        print_json(result)
    else:
        click.echo(render_run(result))
    return exit_code(result, drain)


async def _demo(invocation: Invocation) -> int:
    def say(text: str) -> None:
        if not invocation.json:
            click.echo(text)

    async with stage() as playing:
        say(_introduction(playing))
        invocation.config = playing.config
        say("$ replicator plan")
        watch = Watch.start(invocation)
        loaded = read_config(invocation, watch)
        rules = select_rules(loaded, (), ())
        say(render_plan(await look(loaded, rules, watch)))

        runs: list[RunResult] = []
        for remark in ("", "  (again: nothing has changed, nothing is copied)"):
            say(f"\n$ replicator sync{remark}")
            result, drain = await replicate(loaded, rules, Watch.start(invocation))
            say(render_run(result))
            if drain.code is not None:
                return drain.code
            runs.append(result)
    if invocation.json:
        print_json({"version": 1, "runs": runs})
    say(f"\n{_NEXT}")
    return 1 if any(map(failed, runs)) else 0


def _introduction(playing: Stage) -> str:
    urls = "\n".join(f"  {name}  {url}" for name, url in playing.urls.items())
    config = playing.config.read_text()
    return f"Three registries in this process; the first one has images:\n{urls}\n\nThe config:\n\n{config}"
