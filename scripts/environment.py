"""Puts replicator and its locked dependencies into a virtual environment for another place, or another machine.

Used by the packages and by the container. Nothing is run that belongs to the target: pip takes the wheels of its
architecture, and the files that `venv` would write, which name the final path, are written here.
"""

from __future__ import annotations

import argparse
import compileall
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
# Wheels for glibc up to that of RHEL 9; Debian 12 has a newer one.
GLIBC: Final = range(34, 16, -1)
# -I: neither PYTHONPATH nor the packages of a user change what runs.
PROGRAM: Final = """\
#!{at}/bin/python -I
import sys

from replicator.cli.__main__ import main

sys.exit(main())
"""


def pip_install(packages: Path, architecture: str, *what: str) -> None:
    """Installs into a folder of packages, as for a machine of that architecture. Raises CalledProcessError.

    Wheels only: nothing is compiled, and no code of the packages is run.
    """
    platforms = [f"--platform=manylinux_2_{minor}_{MACHINES[architecture]}" for minor in GLIBC]
    platforms.append(f"--platform=manylinux2014_{MACHINES[architecture]}")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
    ]
    command += ["--root-user-action=ignore", f"--target={packages}", "--upgrade", "--only-binary=:all:"]
    command += [f"--python-version={version()}", "--implementation=cp", *platforms, *what]
    subprocess.run(command, check=True)


def version() -> str:
    """The Python that the environment is for, which is the running one's: pip reads markers of the lock for that."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def assemble(stage: Path, *, at: Path, architecture: str, interpreter: Path, wheel: Path) -> None:
    """Makes `stage` what `at` will be on the target.

    Args:
        stage: a folder that does not exist.
        at: the absolute path of the environment on the target.
        architecture: amd64 or arm64.
        interpreter: the target's Python, of the running one's minor version.
        wheel: the wheel of replicator.

    Raises:
        CalledProcessError: pip failed, as with a dependency that differs from the lock.
    """
    packages = stage / "lib" / f"python{version()}" / "site-packages"
    packages.mkdir(parents=True)
    lock = ROOT / "requirements" / "runtime.lock"
    pip_install(packages, architecture, "--require-hashes", f"--requirement={lock}")
    shutil.rmtree(packages / "bin", ignore_errors=True)  # programs of the dependencies
    # By name, as pip notes the path of a wheel that it is given.
    name, number, *_ = wheel.name.split("-")
    pip_install(
        packages, architecture, "--no-deps", "--no-index", f"--find-links={wheel.parent}", f"{name}=={number}"
    )
    shutil.rmtree(packages / "bin")
    # Compiled for the final path, and never compared with the source: the packages' files do not change.
    compileall.compile_dir(
        packages,
        quiet=1,
        workers=0,
        stripdir=str(stage),
        prependdir=str(at),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    (stage / "pyvenv.cfg").write_text(
        f"home = {interpreter.parent}\ninclude-system-site-packages = false\nversion = {version()}\n"
    )
    programs = stage / "bin"
    programs.mkdir()
    (programs / "python").symlink_to(interpreter)
    program = programs / "replicator"
    program.write_text(PROGRAM.format(at=at))
    program.chmod(0o755)


def main() -> None:
    """The command line, for the Containerfile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", type=Path, help="folder to make; must not exist")
    parser.add_argument("--at", type=Path, required=True, help="path of the environment on the target")
    parser.add_argument("--architecture", choices=MACHINES, required=True)
    parser.add_argument("--interpreter", type=Path, required=True, help="the target's Python")
    parser.add_argument("--wheel", type=Path, required=True)
    given = parser.parse_args()
    assemble(
        given.stage,
        at=given.at,
        architecture=given.architecture,
        interpreter=given.interpreter,
        wheel=given.wheel,
    )


if __name__ == "__main__":
    main()
