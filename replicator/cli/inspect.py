"""`replicator inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from replicator.cli.names import complete_reference
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.references import opened_image
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.discovery.describe import Description, Variant, describe
from replicator.model.digest import is_digest
from replicator.report import format_bytes, format_count, table


@click.command("inspect")
@click.argument("reference", shell_complete=complete_reference)
@click.option(
    "--env", "with_env", is_flag=True, help="Show the values of environment variables, not only their names."
)
@click.option(
    "--insecure", is_flag=True, help="For a registry given by host: allow plain HTTP and unverified TLS."
)
@everywhere
@click.pass_obj
def command(invocation: Invocation, reference: str, *, with_env: bool, insecure: bool) -> int:
    """Describe one image: platforms, layers, config, signatures and other referrers.

    REFERENCE is SITE/REPOSITORY[:TAG][@DIGEST] with a site of the config, or an image as `copy` takes it: HOST/REPOSITORY,
    s3://, file://, oci: or oci-archive:. Platforms of an index that the site does not have (a sparse index) are named. Exit
    code 1 if a part of the image could not be read, or all platforms are missing.
    """
    return run_async(_inspect(invocation, reference, with_env=with_env, insecure=insecure))


async def _inspect(invocation: Invocation, text: str, *, with_env: bool, insecure: bool) -> int:
    watch = Watch.start(invocation)
    async with opened_image(invocation, text, watch, insecure=insecure) as (repository, reference):
        description = await describe(repository, reference)
    if invocation.json:
        print_json(_as_json(description, with_env=with_env))
    else:
        click.echo("\n".join(map(_printable, _lines(description, with_env=with_env))))
    for problem in description.problems:
        click.echo(f"error: {problem}", err=True)
    return 1 if description.problems else 0


def _lines(image: Description, *, with_env: bool) -> Iterator[str]:
    yield f"{image.site}: {image.repository}{'@' if is_digest(image.reference) else ':'}{image.reference}"
    yield from table(
        [
            ("digest", image.root.digest),
            ("type", image.root.descriptor.artifact_type or image.root.media_type),
            ("size", f"{format_bytes(image.size)} in {format_count(len(image.layers), 'layer')}"),
        ]
    )
    yield from _platform_lines(image.variants)
    yield from _layer_lines(image)
    yield from _config_lines(image, with_env=with_env)
    yield ""
    yield "Referrers"
    yield from _indented(
        [(each.kind, each.digest, each.tag or "") for each in image.referrers] or [("none",)]
    )


def _platform_lines(variants: Sequence[Variant]) -> Iterator[str]:
    yield ""
    yield "Platforms"
    yield from _indented(
        [
            (
                _name(each),
                each.digest,
                "absent" if each.is_absent else format_bytes(sum(layer.size or 0 for layer in each.layers)),
                each.created or "-",
            )
            for each in variants
        ]
    )
    absent = sum(each.is_absent for each in variants)
    if 0 < absent < len(variants):
        yield (
            f"  {absent} of {len(variants)} are absent: a sparse index, as a rule with platforms makes it. If they were lost,"
            " `replicator sync --recheck` copies those that a rule wants."
        )


def _layer_lines(image: Description) -> Iterator[str]:
    names = {each.digest: _name(each) for each in image.variants}
    present = sum(not each.is_absent for each in image.variants)
    rows = []
    for digest, (layer, users) in image.layers.items():
        shared = "all platforms" if len(users) == present > 1 else ", ".join(names[user] for user in users)
        rows.append((digest, format_bytes(layer.size or 0), shared))
    yield ""
    yield "Layers"
    yield from _indented(rows)


def _config_lines(image: Description, *, with_env: bool) -> Iterator[str]:
    variant = next((each for each in image.variants if each.run is not None), None)
    if variant is None or variant.run is None:
        return
    run = variant.run
    rows = [
        ("entrypoint", " ".join(run.entrypoint or ())),
        ("cmd", " ".join(run.cmd or ())),
        ("user", run.user or ""),
        ("working dir", run.working_dir or ""),
        ("ports", ", ".join(sorted(run.exposed_ports or ()))),
        ("env", ", ".join(_env(run.env or [], with_env=with_env))),
        *((f"label {key}", value) for key, value in sorted((run.labels or {}).items())),
        *((f"annotation {key}", value) for key, value in sorted(image.annotations.items())),
    ]
    yield ""
    yield f"Config ({_name(variant)})"
    yield from _indented([(key, value) for key, value in rows if value])


def _env(variables: list[str], *, with_env: bool) -> list[str]:
    """Values may be secrets that somebody baked in, so they are shown only on request."""
    return variables if with_env else [each.partition("=")[0] for each in variables]


def _name(variant: Variant) -> str:
    return (
        str(variant.platform)
        if variant.platform is not None and str(variant.platform)
        else variant.digest[:19]
    )


def _indented(rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"  {line}" for line in table(rows)]


def _printable(text: str) -> str:
    """The line without control characters: platforms, types, dates and labels are what whoever pushed the image wrote."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _as_json(image: Description, *, with_env: bool) -> dict[str, object]:
    return {
        "version": 1,
        "site": image.site,
        "repository": image.repository,
        "reference": image.reference,
        "digest": image.root.digest,
        "mediaType": image.root.media_type,
        "artifactType": image.root.descriptor.artifact_type,
        "bytes": image.size,
        "annotations": dict(image.annotations),
        "platforms": [_variant_json(each, with_env=with_env) for each in image.variants],
        "layers": [
            {"digest": digest, "size": layer.size, "mediaType": layer.media_type, "images": list(users)}
            for digest, (layer, users) in image.layers.items()
        ],
        "referrers": [
            {"digest": each.digest, "type": each.kind, "tag": each.tag} for each in image.referrers
        ],
        "problems": list(image.problems),
    }


def _variant_json(variant: Variant, *, with_env: bool) -> dict[str, object]:
    run = variant.run
    return {
        "platform": None if variant.platform is None else str(variant.platform),
        "digest": variant.digest,
        "absent": variant.is_absent,
        "created": variant.created,
        "bytes": sum(layer.size or 0 for layer in variant.layers),
        "layers": [layer.digest for layer in variant.layers],
        "config": None
        if run is None
        else {
            "entrypoint": run.entrypoint,
            "cmd": run.cmd,
            "user": run.user,
            "working_dir": run.working_dir,
            "ports": sorted(run.exposed_ports or ()),
            "env": _env(run.env or [], with_env=with_env),
            "labels": run.labels or {},
        },
    }
