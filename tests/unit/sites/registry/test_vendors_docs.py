"""The overview of vendors is what their modules say."""

from __future__ import annotations

import tomllib

import pytest

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
