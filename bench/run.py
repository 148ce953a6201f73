"""`make bench`: runs the scenarios and prints the table of ratios.

`python -m bench.run [--only NAME]... [--program NAME]... [--repeat N] [--render FILE]`
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from bench import buckets, rows
from bench.bulklisting import NAME as BULK_LISTING
from bench.bulklisting import bulk_listing
from bench.compare import Bench, Setting, compare
from bench.compatibility import NAME as COMPATIBILITY
from bench.compatibility import compatibility
from bench.core import NAME as CORE
from bench.core import core
from bench.cores import NAME as CORES
from bench.cores import THRESHOLD, cores, threshold
from bench.corpus import LARGE_SET, MANY_SMALL, SMALL_SET
from bench.directories import from_directory, to_directory
from bench.inmemory import DISTANCES, distant
from bench.largeindex import NAME as LARGE_INDEX
from bench.largeindex import large_index
from bench.manytags import many_tags
from bench.memory import capped, memory
from bench.peers import OURS, PROGRAMS
from bench.referrers import NAME as REFERRERS
from bench.referrers import referrers
from bench.search import NAME as SEARCH
from bench.search import search
from bench.serving import serving
from bench.signatures import NAME as SIGNATURES
from bench.signatures import signatures
from bench.startup import startup
from bench.webhooks import webhooks

MEMORY_BYTES = 4_000_000_000
RESULTS = Path(__file__).parent / "results"

SETTINGS = (
    Setting("small-set", SMALL_SET, 0.9, repeat=5),
    Setting("small-set-tls", SMALL_SET, 0.8, tls=True, repeat=5),
    Setting("large-set", LARGE_SET, 0.85),
    Setting("large-set-tls", LARGE_SET, 0.75, tls=True),
    Setting("many-small", MANY_SMALL, 0.6, again=0.5),
    Setting("fan-out", SMALL_SET, 0.5, destinations=3),
)

Scenario = Callable[[Bench], Awaitable[list[rows.Row]]]
SCENARIOS: dict[str, Scenario] = {
    **{setting.name: partial(compare, setting=setting) for setting in SETTINGS},
    **{distance.name: partial(distant, distance=distance) for distance in DISTANCES},
    "to-directory": to_directory,
    "from-directory": from_directory,
    buckets.SERVER_SIDE: buckets.server_side,
    buckets.UNCHANGED: buckets.unchanged,
    "memory": memory,
    "capped": capped,
    CORES: cores,
    THRESHOLD: threshold,
    "tags-100k": many_tags,
    LARGE_INDEX: large_index,
    BULK_LISTING: bulk_listing,
    REFERRERS: referrers,
    CORE: core,
    SEARCH: search,
    "startup": startup,
    "serve": serving,
    "webhook": webhooks,
    COMPATIBILITY: compatibility,
    SIGNATURES: signatures,
}


def storage() -> Path:
    """Where the registries keep their content: in memory if there is enough, so that no disk's fsync is measured."""
    memory = Path("/dev/shm")  # noqa: S108  # a folder of our own is made in it
    if memory.is_dir() and shutil.disk_usage(memory).free >= MEMORY_BYTES:
        return memory
    return Path(tempfile.gettempdir())


def tell(text: str) -> None:
    """Progress, aside from the results."""
    print(text, file=sys.stderr, flush=True)


async def main(arguments: argparse.Namespace) -> int:
    """Runs what was asked for; 1 where one of the programs failed."""
    compileall.compile_dir("replicator", quiet=1)  # as an installed package is; a tree that was edited is not
    versions = {program.name: program.version() for program in PROGRAMS}
    chosen = arguments.program or [program.name for program in PROGRAMS]
    taking_part = [program for program in PROGRAMS if program.name in chosen and versions[program.name]]
    for name in (name for name in chosen if not versions[name]):
        tell(f"{name} is not installed and takes no part")
    about: dict[str, object] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "storage": str(storage()),
        "programs": {program.name: versions[program.name] for program in taking_part},
    }
    found: list[rows.Row] = []
    with tempfile.TemporaryDirectory(prefix="replicator-bench-", dir=storage()) as folder:
        bench = Bench(Path(folder), taking_part, tell, arguments.repeat)
        for name in arguments.only or (name for name in SCENARIOS if name != COMPATIBILITY):
            tell(f"== {name}")
            found += await SCENARIOS[name](bench)
            rows.save(found, arguments.out, about)
    print(rows.render(found))
    return 1 if any(row.failure for row in found if row.program == OURS) else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), help="this scenario (repeatable)")
    names = [program.name for program in PROGRAMS]
    parser.add_argument("--program", action="append", choices=names, help="this program (repeatable)")
    parser.add_argument("--repeat", type=int, help="how often, instead of each scenario's own number")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "latest.json", help="where the results go as JSON"
    )
    parser.add_argument(
        "--render", type=Path, metavar="FILE", help="only print the table of an earlier run's JSON"
    )
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    if options.render:
        print(rows.render(rows.load(options.render)))
    else:
        sys.exit(asyncio.run(main(options)))
