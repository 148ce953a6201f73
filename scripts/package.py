"""Builds the .deb and the .rpm: `make package`, or `make package arch=arm64`.

Both have a virtual environment in /opt/replicator with the dependencies as locked, for the Python that runs this:
with 3.11 the packages need the target's /usr/bin/python3.11. packaging/nfpm.yaml says what else is in them.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.environment import MACHINES, ROOT, assemble, version

NFPM: Final = ROOT / ".tools" / "bin" / "nfpm"
AT: Final = Path("/opt/replicator")
KINDS: Final = ("deb", "rpm")


def native() -> str:
    """The architecture of this machine, in Debian's and Go's words. Raises SystemExit for one without packages."""
    for name, machine in MACHINES.items():
        if platform.machine() == machine:
            return name
    raise SystemExit(f"no packages for {platform.machine()}: give --arch, one of {', '.join(MACHINES)}")


def release() -> str:
    """The version of replicator."""
    found = re.search(r'__version__ = "([^"]+)"', (ROOT / "replicator" / "__init__.py").read_text())
    if found is None:
        raise SystemExit("replicator/__init__.py has no __version__")
    return found[1]


def package_version(python: str) -> str:
    """A version in the words of dpkg and rpm, which sort what follows ~ before the version itself.

    >>> package_version("1.2.0rc1"), package_version("1.2.0.dev3"), package_version("1.2.0")
    ('1.2.0~rc1', '1.2.0~dev3', '1.2.0')
    """
    return re.sub(r"\.?(a|b|rc|dev)(?=\d)", r"~\1", python)


def stage(folder: Path, wheel: Path, *, architecture: str) -> None:
    """Fills a folder with what the packages take from outside the repository.

    The man pages and completions are those of build/, which `make package` writes with the environment of development.
    """
    assemble(
        folder / "opt" / "replicator",
        at=AT,
        architecture=architecture,
        interpreter=Path(f"/usr/bin/python{version()}"),
        wheel=wheel,
    )
    (folder / "man").mkdir()
    for page in (ROOT / "build" / "man").iterdir():
        (folder / "man" / f"{page.name}.gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
    shutil.copytree(ROOT / "build" / "completions", folder / "completions")


def pack(staged: Path, into: Path, *, architecture: str, epoch: str, revision: str = "1") -> list[Path]:
    """Writes both packages, with all times set to `epoch`. Raises CalledProcessError; nfpm says why on stderr."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    variables = {
        "STAGE": str(staged),
        "VERSION": package_version(release()),
        "RELEASE": revision,
        "ARCH": architecture,
        "PYTHON": f"python{version()}",
        "HOMEPAGE": project["urls"]["Homepage"],
        "TIME": datetime.fromtimestamp(int(epoch), UTC).isoformat(),
    }
    config = staged / "nfpm.yaml"
    config.write_text(Template((ROOT / "packaging" / "nfpm.yaml").read_text()).substitute(variables))
    found = []
    for kind in KINDS:
        file = into / f"replicator_{variables['VERSION']}-{revision}_{architecture}.{kind}"
        command = (str(NFPM), "package", f"--config={config}", f"--packager={kind}", f"--target={file}")
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        found.append(file)
    return found


def build_wheel(folder: Path, epoch: str) -> Path:
    """Builds the wheel and the source archive into a folder; returns the wheel."""
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder))
    environ = os.environ | {"SOURCE_DATE_EPOCH": epoch}
    subprocess.run(command, cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
    [wheel] = folder.glob(f"replicator-{release()}-*.whl")
    return wheel


def committed() -> str:
    """When the commit that is checked out was made: seconds since the epoch."""
    command = ("git", "log", "-1", "--format=%ct")
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> None:
    """Builds wheel, source archive, .deb and .rpm into dist/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", choices=MACHINES, default=native())
    parser.add_argument("--into", type=Path, default=ROOT / "dist")
    given = parser.parse_args()
    given.into.mkdir(parents=True, exist_ok=True)
    epoch = committed()
    wheel = build_wheel(given.into, epoch)
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder), wheel, architecture=given.architecture)
        pack(Path(folder), given.into, architecture=given.architecture, epoch=epoch)
    for file in sorted(given.into.iterdir()):
        print(file)


if __name__ == "__main__":
    main()
