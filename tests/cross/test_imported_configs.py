"""An imported config does what the tool does that it was written for."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from replicator.demo.images import image
from tests.acceptance.program import Program
from tests.acceptance.walker import fill, walk
from tests.fakes.distribution import distribution
from tests.fakes.process import clean_environment, require

TAGS = ("1.0", "1.1", "2.0", "latest", "2.1-rc1")

REGSYNC = """
version: 1
creds: [{{registry: "{source}", tls: disabled}}, {{registry: "{target}", tls: disabled}}]
sync:
- {{source: "{source}/team/app", target: "{target}/mirror/app", type: repository, tags: {{allow: ['1\\..*', latest]}}}}
- {{source: "{source}/team/tool:2.0", target: "{target}/mirror/tool:stable", type: image}}
"""
SKOPEO = """
"{source}":
  tls-verify: false
  images: {{team/app: ["1.0", latest]}}
  images-by-tag-regex: {{team/tool: '^2'}}
"""


async def _tool(*command: str, folder: Path) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        capture_output=True,
        check=False,
        timeout=60,
        env=clean_environment(),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("tool", ["skopeo", pytest.param("regsync", marks=pytest.mark.interop)])
async def test_tags_are_those_of_the_tool_itself(tool: str, tmp_path: Path) -> None:
    program = require(tool)
    folders = [tmp_path / name for name in ("source", "theirs", "ours")]
    for folder in folders:
        folder.mkdir()
    with (
        distribution(folders[0]) as source,
        distribution(folders[1]) as theirs,
        distribution(folders[2]) as ours,
    ):
        await fill(
            source.settings(),
            {(name, tag): image(f"{name} {tag}") for name in ("team/app", "team/tool") for tag in TAGS},
        )
        await _run_tool(tool, program, source.host, theirs.host, tmp_path)
        config = tmp_path / "ours.yaml"
        config.write_text(
            (REGSYNC if tool == "regsync" else SKOPEO).format(source=source.host, target=ours.host)
        )
        replicator = Program(tmp_path)
        options = ["--destination", f"{ours.host}/mirror"] if tool == "skopeo" else []
        imported = await replicator("config", "import", str(config), *options)
        assert imported.code == 0, imported.stderr
        state = f'[agent]\nstate = "sqlite:///{tmp_path}/state.db"\ncache = {{ path = "{tmp_path}/cache" }}\n'
        (tmp_path / "replicator.toml").write_text(state + imported.stdout)
        synced = await replicator("sync")
        assert synced.code == 0, synced.stderr
        assert walk(ours.url) == walk(theirs.url) != {}


async def _run_tool(tool: str, program: str, source: str, target: str, folder: Path) -> None:
    config = folder / "theirs.yaml"
    config.write_text((REGSYNC if tool == "regsync" else SKOPEO).format(source=source, target=target))
    if tool == "regsync":
        await _tool(program, "once", "-c", str(config), folder=folder)
    else:
        options = ("--src", "yaml", "--dest", "docker", "--dest-tls-verify=false", "--all")
        await _tool(program, "sync", *options, str(config), f"{target}/mirror", folder=folder)
