"""The stage of `replicator demo`: three registries in this process, images in the first, and a config for them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from replicator.demo.images import AMD64, ARM64, image, index, layer, load
from replicator.demo.registry import DemoRegistry
from replicator.demo.store import Store

_SITES: Final = ("hub", "fra", "sin")
_BASE_BYTES: Final = 12_000_000
_APP_BYTES: Final = 3_000_000


@dataclass(frozen=True)
class Stage:
    """What the demo plays on. `urls` by site; `config` lies in a folder that is gone after the demo."""

    urls: Mapping[str, str]
    config: Path


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Registries `hub` (filled), `fra` and `sin` (empty) on free loopback ports, and a config from hub to both.

    Raises OSError where it cannot listen or write; nothing is left behind in any case.
    """
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="replicator-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        urls = {}
        for name in _SITES:
            store = Store()
            if name == "hub":
                fill(store)
            urls[name] = (await stack.enter_async_context(DemoRegistry.serve(store))).url
        config = folder / "replicator.toml"
        config.write_text(config_for(urls, folder))
        yield Stage(urls, config)


@asynccontextmanager
async def filling(url: str) -> AsyncIterator[Stage]:
    """A registry `demo` with the demo's images, and a config that copies all of them to the registry at `url`, `there`.

    Raises OSError as `stage` does.
    """
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="replicator-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        store = Store()
        fill(store)
        demo = await stack.enter_async_context(DemoRegistry.serve(store))
        config = folder / "replicator.toml"
        config.write_text(f"""\
[agent]
state = "sqlite:///{folder}/state.db"
cache = {{ path = "{folder}/cache" }}

[site.demo]
url = "{demo.url}"
docker_config = false
proxy = ""

[site.there]
url = {json.dumps(url)}

[[rule]]
name         = "fill"
source       = "demo"
destinations = ["there"]
repositories = ["platform/**", "!platform/scratch/**"]
""")
        yield Stage({"demo": demo.url, "there": url}, config)


def fill(store: Store) -> None:
    """A few images as a small company has them: a shared base, versions, and an index of two platforms."""
    base = layer("base", _BASE_BYTES)
    for version in ("1.0", "1.1", "1.2-rc1"):
        app = image(f"shop {version}", [base, layer(f"shop {version}", _APP_BYTES)])
        load(store, "platform/shop", f"v{version}", app)
    platforms = [
        image(f"api {each}", [base, layer(f"api {each}", _APP_BYTES)], platform=each)
        for each in (AMD64, ARM64)
    ]
    load(store, "platform/api", "v2.0", index(platforms))
    load(store, "platform/scratch/try", "v0.1", image("scratch"))


def config_for(urls: Mapping[str, str], folder: Path) -> str:
    """The demo's config, as a user would write it."""
    sites = "\n".join(
        f'[site.{name}]\nurl = "{url}"\ndocker_config = false\nproxy = ""\n' for name, url in urls.items()
    )
    return f"""\
[agent]
state = "sqlite:///{folder}/state.db"
cache = {{ path = "{folder}/cache" }}

{sites}
[[rule]]
name         = "platform"
source       = "hub"
destinations = ["fra", "sin"]
repositories = ["platform/**", "!platform/scratch/**"]
tags         = {{ include = ["v*"], exclude = ["*-rc*"] }}
rename       = {{ strip = "platform/", prefix = "mirror/" }}
"""
