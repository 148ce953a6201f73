"""The overview of vendors is what their modules say, and what their pages say to paste is a config."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replicator.config.load import load
from replicator.config.model import SiteTable, keys_of
from replicator.sites.registry.vendors.known import VENDORS
from replicator.sites.registry.vendors.vendor import Vendor
from scripts.registries import PAGES, overview


def test_the_overview_is_up_to_date() -> None:
    written = (PAGES / "README.md").read_text()
    assert written == overview(), "run: python -m scripts.registries > docs/registries/README.md"


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.kind)
def test_each_vendor_has_a_page_with_a_config_to_paste(vendor: Vendor) -> None:
    text = (PAGES / f"{vendor.kind}.md").read_text()
    assert text.startswith(f"# {vendor.title}")
    for part in ("Rights", "Listing", "Notifications", "What to know"):
        assert f"\n## {part}\n" in text
    [site] = tomllib.loads(text.split("```toml\n")[1].split("```")[0])["site"].values()
    assert site.keys() <= keys_of(SiteTable).keys()
    assert vendor.listing is not None or "Each tag is asked for" in text


def pasted(page: str) -> Iterator[str]:
    """The blocks of TOML of a page below docs/, as they are and with each line that is commented out in place of its like."""
    for block in re.findall(r"```toml\n(.*?)```", (PAGES.parent / page).read_text(), re.DOTALL):
        text = re.sub(r"(?m)[ \t]+#.*$", "", block)
        yield text
        for other in re.findall(r"(?m)^# *(\w+ *= *.+?)(?:[ \t]{2,}#.*)?$", block):
            key = other.split("=")[0].strip()
            rest = [line for line in text.splitlines() if line.split("=")[0].strip() != key]
            lines = [line for line in rest if not line.startswith("#")]
            lines = [
                line for line in lines if not (key == "auth" and re.match(r"(username|password)\b", line))
            ]
            lines = [line for line in lines if not (key == "header" and line.startswith("hmac"))]
            yield "\n".join([*lines, other])


def whole(text: str, kind: str) -> str:
    """A config with what was pasted: sites that are only named get a URL, and a rule copies from what there is."""
    if not text.startswith("["):
        text = f'[site.{kind}]\nurl = "https://{kind}.io"\n{text}'
    found: dict[str, Any] = tomllib.loads(text)
    sites = list(found.get("site", {}))
    named = {hook["site"] for hook in found.get("webhook", {}).values()} - set(sites)
    text += "".join(f'\n[site.{name}]\nurl = "https://{name}.example"\n' for name in named)
    rules = "".join(
        f'\n[[rule]]\nname = "{name}"\nsource = "{name}"\ndestinations = ["folder"]\nrepositories = ["a/b/{name}"]\n'
        for name in [*sites, *named]
        if not found.get("rule")
    )
    return f'{text}\n[site.folder]\nurl = "file:///srv/images"\n{rules}'


DOCUMENTED = {
    **{f"registries/{vendor.kind}.md": vendor.kind for vendor in VENDORS},
    "credentials.md": "registry",
    "creation.md": "registry",
    "webhooks.md": "registry",
}


@pytest.mark.parametrize("page", DOCUMENTED)
def test_what_is_to_be_pasted_is_a_config(page: str, tmp_path: Path) -> None:
    blocks = list(pasted(page))
    assert blocks
    for block in blocks:
        file = tmp_path / "replicator.toml"
        file.write_text(whole(block, DOCUMENTED[page]))
        for name in re.findall(r'(?:credential|file) *= *"([^"]+)"|"([^"/]+\.json)"', block):
            (tmp_path / "".join(name)).write_text("{}")
        loaded = load(file, {"HOME": str(tmp_path), "CREDENTIALS_DIRECTORY": str(tmp_path)})
        assert loaded.sites
