"""Signatures that survive a mirror: an image signed in each form, copied by each program between registries.

`make bench only=signatures`: writes the table in `docs/trust.md`. cosign signs, and is asked at the destination.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.compare import Bench
from bench.peers import TOOLS as BUILT
from bench.programs import finished
from bench.rows import Row
from replicator.demo.images import AMD64, ARM64, image, index
from tests.acceptance.walker import fill
from tests.fakes.cosign import LEGACY, Cosign
from tests.fakes.distribution import Server, distribution
from tests.fakes.interop import distribution3, olareg
from tests.fakes.signing import PROVENANCE

NAME: Final = "signatures"
PAGE: Final = Path(__file__).parent.parent / "docs" / "trust.md"
BEGIN, END = "<!-- make bench only=signatures -->\n", "<!-- end -->\n"
SECONDS: Final = 30.0
CHILD: Final = image("signed", platform=AMD64)
IMAGE: Final = index([CHILD, image("on arm", platform=ARM64)])
REGISTRIES: Final = {"distribution 2.8": distribution, "distribution 3": distribution3, "olareg": olareg}
PAIRS: Final = (
    ("distribution 3", "distribution 2.8"),
    ("distribution 2.8", "olareg"),
    ("olareg", "distribution 3"),
    ("olareg", "olareg"),
)
"""Without the referrers API on both sides, on either, and on none."""


@dataclass(frozen=True, slots=True)
class Form:
    """What is attached to an image, how, and how cosign is asked for it."""

    words: str
    name: str
    attach: Callable[[Cosign, str], None]
    verify: Callable[[Cosign, str], bool]


FORMS: Final = (
    Form(
        "signature, bundle",
        "signed",
        lambda cosign, at: cosign.sign(f"{at}@{IMAGE.digest}"),
        lambda cosign, at: cosign.verifies(f"{at}@{IMAGE.digest}"),
    ),
    Form(
        "attestation, bundle",
        "attested",
        lambda cosign, at: cosign.attest(f"{at}@{IMAGE.digest}", PROVENANCE),
        lambda cosign, at: cosign.verifies_attestation(f"{at}@{IMAGE.digest}", PROVENANCE),
    ),
    Form(
        "signature of one platform, bundle",
        "child",
        lambda cosign, at: cosign.sign(f"{at}@{CHILD.digest}"),
        lambda cosign, at: cosign.verifies(f"{at}@{CHILD.digest}"),
    ),
    Form(
        "signature, `.sig` tag",
        "older-signed",
        lambda cosign, at: cosign.sign(f"{at}@{IMAGE.digest}", LEGACY),
        lambda cosign, at: cosign.verifies(f"{at}@{IMAGE.digest}", LEGACY),
    ),
    Form(
        "attestation, `.att` tag",
        "older-attested",
        lambda cosign, at: cosign.attest(f"{at}@{IMAGE.digest}", PROVENANCE, LEGACY),
        lambda cosign, at: cosign.verifies_attestation(f"{at}@{IMAGE.digest}", PROVENANCE, LEGACY),
    ),
)


@dataclass(frozen=True, slots=True)
class Copier:
    """A command line that copies an image from one reference to another, of two hosts."""

    words: str
    command: Callable[[str, str], list[str]]


def _regctl(*switches: str) -> Callable[[str, str], list[str]]:
    def command(one: str, other: str) -> list[str]:
        hosts = [
            word
            for reference in (one, other)
            for word in ("--host", f"reg={reference.partition('/')[0]},tls=disabled")
        ]
        return ["regctl", *hosts, "image", "copy", *switches, one, other]

    return command


def _oras(*switches: str) -> Callable[[str, str], list[str]]:
    return lambda one, other: ["oras", "cp", *switches, "--from-plain-http", "--to-plain-http", one, other]


COPIERS: Final = (
    Copier("replicator copy", lambda one, other: ["replicator", "copy", one, other]),
    Copier("crane cp", lambda one, other: ["crane", "cp", "--insecure", one, other]),
    Copier(
        "crane cp -a",
        lambda one, other: ["crane", "cp", "-a", "--insecure", one.rpartition(":")[0], other.rpartition(":")[0]],
    ),
    Copier("regctl image copy", _regctl()),
    Copier("regctl image copy --referrers --digest-tags", _regctl("--referrers", "--digest-tags")),
    Copier("oras cp", _oras()),
    Copier("oras cp -r", _oras("-r")),
    Copier(
        "skopeo copy --all",
        lambda one, other: [
            "skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false",
            f"docker://{one}", f"docker://{other}",
        ],
    ),
    Copier(
        "cosign copy", lambda one, other: ["cosign", "copy", "--allow-http-registry", one, other]
    ),
)  # fmt: skip


async def signatures(bench: Bench) -> list[Row]:
    """Each form by each program that is there, between the pairs of registries; there are no figures to compare."""
    os.environ["PATH"] = f"{BUILT}:{os.environ['PATH']}"
    copiers = [
        each for each in COPIERS if each.command("a/b:c", "a/b:c")[0] == "replicator" or _is_there(each)
    ]
    arrived = {(form.name, copier.words): 0 for form in FORMS for copier in copiers}
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        cosign = await asyncio.to_thread(Cosign.with_key, Path(folder) / "keys")
        for number, (source, destination) in enumerate(PAIRS):
            with ExitStack() as stack:
                servers = []
                for side, kind in (("source", source), ("destination", destination)):
                    place = Path(folder) / f"{number}-{side}"
                    place.mkdir()
                    servers.append(stack.enter_context(REGISTRIES[kind](place)))
                await _pair(servers[0], servers[1], cosign, copiers, arrived)
            bench.tell(f"{source} to {destination}: done")
    table = page([each.words for each in copiers], arrived)
    text = PAGE.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}{table}{END}{after}")
    return []


def _is_there(copier: Copier) -> bool:
    return shutil.which(copier.command("a/b:c", "a/b:c")[0]) is not None


async def _pair(
    source: Server,
    destination: Server,
    cosign: Cosign,
    copiers: Sequence[Copier],
    arrived: dict[tuple[str, str], int],
) -> None:
    await fill(source.settings(), {(form.name, "v1"): IMAGE for form in FORMS})
    for form in FORMS:
        await asyncio.to_thread(form.attach, cosign, f"{source.host}/{form.name}")
    for number, copier in enumerate(copiers):
        for form in FORMS:
            there = f"{destination.host}/by{number}/{form.name}"
            argv = copier.command(f"{source.host}/{form.name}:v1", f"{there}:v1")
            await finished(argv, cosign.folder, SECONDS)
            arrived[form.name, copier.words] += await asyncio.to_thread(form.verify, cosign, there)


def page(copiers: Sequence[str], arrived: dict[tuple[str, str], int]) -> str:
    """The table as Markdown: a line for each program."""
    head = f"| | {' | '.join(form.words for form in FORMS)} |\n|---|{'---|' * len(FORMS)}\n"
    lines = []
    for copier in copiers:
        counts = [arrived[form.name, copier] for form in FORMS]
        cells = ["yes" if n == len(PAIRS) else "no" if not n else f"{n} of {len(PAIRS)}" for n in counts]
        lines.append(f"| `{copier}` | {' | '.join(cells)} |\n")
    return head + "".join(lines)
