"""One opener for every kind of site."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.ports import LimitsBytes
from replicator.sites.layouts.distribution.site import DistributionSite
from replicator.sites.layouts.oci.site import OciSite
from replicator.sites.layouts.settings import Layout, LayoutSettings
from replicator.sites.objects.settings import LocalSettings, S3Settings
from replicator.sites.open import open_site
from tests.fakes.modules import loaded_by
from tests.fakes.s3 import settings


@pytest.mark.parametrize(("layout", "kind"), [("oci", OciSite), ("distribution", DistributionSite)])
@pytest.mark.parametrize(
    "store", [LocalSettings("x", Path("/nowhere")), settings("http://127.0.0.1:9", "b", name="x")]
)
async def test_each_layout_opens_on_each_store_and_its_rate_can_change(
    layout: Layout, kind: type, store: LocalSettings | S3Settings
) -> None:
    site = open_site(LayoutSettings(store, layout), events=Events(), clock=SystemClock())
    assert isinstance(site, kind)
    assert isinstance(site, LimitsBytes)
    assert site.name == "x"
    site.set_bytes_per_second(1000.0)
    await site.aclose()


def test_where_a_site_is_is_told_as_the_config_has_it() -> None:
    assert LayoutSettings(LocalSettings("x", Path("/srv/mirror")), "oci").url == "file:///srv/mirror"
    assert LayoutSettings(S3Settings("x", "bucket"), "oci").url == "s3://bucket"
    assert LayoutSettings(S3Settings("x", "bucket", "a/b"), "oci").url == "s3://bucket/a/b"


def test_a_directory_brings_in_nothing_of_the_network() -> None:
    code = (
        "from pathlib import Path\n"
        "from replicator.events import Events; from replicator.flow.clock import SystemClock\n"
        "from replicator.sites.layouts.settings import LayoutSettings\n"
        "from replicator.sites.objects.settings import LocalSettings\n"
        "from replicator.sites.open import open_site\n"
        "open_site(LayoutSettings(LocalSettings('x', Path('/x')), 'oci'), events=Events(), clock=SystemClock())"
    )
    loaded = loaded_by(code)
    assert "replicator.sites.objects.local.store" in loaded
    assert loaded.isdisjoint({"aiohttp", "aiobotocore", "botocore", "pydantic"})
