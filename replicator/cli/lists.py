"""`replicator images`: what image lists name, before anything is copied."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from replicator.cli.names import complete_file
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.config.load import load
from replicator.errors import ConfigError
from replicator.lists.files import read_files
from replicator.lists.findings import Remark
from replicator.lists.reading import FORMATS, Format, ImagePath, Reading, parse_image_path
from replicator.lists.references import ListedImage, merge
from replicator.lists.sites import sites_by_host
from replicator.report import table
from replicator.sites.registry.settings import RegistrySettings

_PLACES: Final = 5


def _paths(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> list[ImagePath]:
    try:
        return [parse_image_path(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("images")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", shell_complete=complete_file)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="Format of the lists.",
)
@click.option(
    "--image-path",
    "paths",
    multiple=True,
    metavar="[KIND:]JSONPATH",
    callback=_paths,
    help="Where custom resources name images, such as Prometheus:{.spec.image}; repeatable.",
)
@click.option(
    "--profile", "profiles", multiple=True, help="Only this Compose profile; repeatable. Default: all."
)
@everywhere
@click.pass_obj
def command(
    invocation: Invocation,
    files: tuple[str, ...],
    form: Format,
    paths: Sequence[ImagePath],
    profiles: tuple[str, ...],
) -> int:
    """Print the images that lists name, with file and line.

    FILE is a list (one image a line, as Rancher, RKE2 and K3s publish them), a Compose file, Kubernetes manifests or
    rendered Helm charts, a Dockerfile, a hauler, oc-mirror or Zarf file, a directory of such files, a glob, or - for
    stdin. Short names are expanded as docker does. With a config, the site of each image is shown, and an image at a
    host that no site has is a problem. Nothing is fetched. Exit code 1 if there were problems.
    """
    reading = Reading(
        format=form,
        paths=tuple(paths),
        variables=os.environ,
        profiles=frozenset(profiles) if profiles else None,
    )
    found = read_files(files, Path.cwd(), reading)
    images, unread = merge(found)
    sites = _sites(invocation)
    problems = list(unread)
    if sites is not None:
        problems += [
            Remark(image.places[0], f"{image.reference}: no site has the host {image.reference.host}")
            for image in images
            if image.reference.host not in sites
        ]
    if invocation.json:
        print_json(_as_json(images, sites, problems, found.notes))
    else:
        _print(images, sites, problems, found.notes)
    return 1 if problems else 0


def _sites(invocation: Invocation) -> Mapping[str, Sequence[str]] | None:
    """The sites by host; None without a config, which this command does not require."""
    try:
        loaded = load(invocation.config, os.environ)
    except ConfigError:
        if invocation.config is not None:
            raise
        return None
    urls = {name: site.url for name, site in loaded.sites.items() if isinstance(site, RegistrySettings)}
    return sites_by_host(urls)


def _print(
    images: Sequence[ListedImage],
    sites: Mapping[str, Sequence[str]] | None,
    problems: Sequence[Remark],
    notes: Sequence[Remark],
) -> None:
    rows = []
    for image in images:
        row = [str(image.reference), _places(image)]
        if sites is not None:
            row.insert(1, ", ".join(sites.get(image.reference.host, ())) or "-")
        rows.append(row)
    for line in table(rows):
        click.echo(line)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    for problem in problems:
        click.echo(f"error: {problem}", err=True)


def _places(image: ListedImage) -> str:
    """Where the image is named; of many places the first."""
    shown = ", ".join(map(str, image.places[:_PLACES]))
    more = len(image.places) - _PLACES
    return f"{shown} and {more} more" if more > 0 else shown


def _as_json(
    images: Sequence[ListedImage],
    sites: Mapping[str, Sequence[str]] | None,
    problems: Sequence[Remark],
    notes: Sequence[Remark],
) -> dict[str, object]:
    return {
        "version": 1,
        "images": [
            {
                "reference": str(image.reference),
                "host": image.reference.host,
                "repository": image.reference.repository,
                "tag": image.reference.tag,
                "digest": image.reference.digest,
                "latest_implied": image.is_latest_implied,
                "sites": None if sites is None else list(sites.get(image.reference.host, ())),
                "places": [place._asdict() for place in image.places],
            }
            for image in images
        ],
        "problems": [_remark(problem) for problem in problems],
        "notes": [_remark(note) for note in notes],
    }


def _remark(remark: Remark) -> dict[str, object]:
    return {"file": remark.place.file, "line": remark.place.line, "text": remark.text}
