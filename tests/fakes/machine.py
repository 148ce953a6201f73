"""Another Debian machine: a folder with packages of this one, to install things on and to throw away.

Its files, and what dpkg knows about them, are copied from this machine, so that nothing is downloaded. Commands run in it
with a private view of mounts, so that nothing is left mounted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.fakes.process import require

_MERGED: Final = ("bin", "lib", "lib64", "sbin")  # links into /usr
_UNNEEDED: Final = re.compile(r"/usr/share/(doc|locale|man|info|i18n)/.")
_DPKG: Final = Path("var/lib/dpkg")
_MEMORY_BYTES: Final = 2 << 30
"""What the largest of these machines, and the images of the tests of containers, take, and as much again."""
# Mounts go away with the namespace; exec, so that signals reach the command.
_ENTER: Final = 'mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" "$@"'


class Machine:
    """A root folder with an operating system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def command(self, *command: str) -> list[str]:
        """What runs a command there as root, as a command for this machine."""
        return ["unshare", "--mount", "sh", "-c", _ENTER, str(self.root), *command]

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command there as root. Fails the test, with the output, where the command does and `check` is set."""
        done = subprocess.run(
            self.command(*command),
            env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def path(self, absolute: str) -> Path:
        """Where a path of that machine is on this one."""
        return self.root / absolute.lstrip("/")

    def files(self) -> set[str]:
        """All its paths."""
        found = set()
        for folder, folders, files in os.walk(self.root):
            inside = Path("/") / Path(folder).relative_to(self.root)
            found |= {str(inside / name) for name in (*folders, *files)}
        return found


@contextmanager
def memory() -> Iterator[Path]:
    """A folder in memory, where there is such a place: dpkg and rpm wait for the disk after each file. Removed at the end."""
    place = Path("/dev/shm")  # noqa: S108 - with a name of its own in it
    fits = place.is_dir() and shutil.disk_usage(place).free > _MEMORY_BYTES  # 64 MB in most containers
    with tempfile.TemporaryDirectory(prefix="machine", dir=place if fits else None) as folder:
        yield Path(folder)


def debian(root: Path, packages: Iterable[str]) -> Machine:
    """Makes a machine with Debian's essential packages, these, and what they depend on.

    Skips the test where we are not root; where this machine is not Debian, too, or fails it under
    REPLICATOR_REQUIRE_SERVERS=1.
    """
    for program in ("dpkg-query", "unshare", "chroot"):
        require(program)
    if os.geteuid():
        pytest.skip("needs root, to change the root folder")
    installed = _closure(packages)
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    listed = _output("dpkg-query", "--listfiles", *installed).splitlines()
    files = sorted({file[1:] for file in listed if os.path.lexists(file) and not _UNNEEDED.match(file)})
    _copy([file for file in files if file and file != "." and file not in _MERGED], root)
    _finish(root)
    _tell_dpkg(root, installed)
    return Machine(root)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _closure(packages: Iterable[str]) -> list[str]:
    """Essential packages, these, and all that they depend on, as installed here."""
    form = "${Package}\t${Essential}\t${Status}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    depends: dict[str, str] = {}
    provider: dict[str, str] = {}
    wanted = list(packages)
    for line in _output("dpkg-query", "--show", f"--showformat={form}").splitlines():
        name, essential, status, needs, provides = line.split("\t")
        if status != "install ok installed":
            continue
        depends[name] = needs
        provider |= dict.fromkeys(_names(provides, ","), name)
        wanted += [name] if essential == "yes" else []
    found: set[str] = set()
    while wanted:
        name = wanted.pop()
        name = name if name in depends else provider.get(name, name)
        if name not in depends:
            pytest.fail(f"{name} is not installed on this machine", pytrace=False)
        if name not in found:
            found.add(name)
            for clause in depends[name].split(","):
                choices = _names(clause, r"\|")
                wanted += [each for each in choices if each in depends or each in provider][:1]
    return sorted(found)


def _names(text: str, separator: str) -> list[str]:
    """Names of packages, without versions and architectures."""
    return [name for part in re.split(separator, text) if (name := re.split(r"[\s(:]", part.strip())[0])]


def _copy(files: Sequence[str], root: Path) -> None:
    names = "\0".join(files).encode()
    tar = ("tar", "--create", "--file=-", "--directory=/", "--no-recursion", "--null", "--files-from=-")
    packed = subprocess.run(tar, input=names, capture_output=True, check=True).stdout
    subprocess.run(
        ("tar", "--extract", "--preserve-permissions", f"--directory={root}"), input=packed, check=True
    )


def _finish(root: Path) -> None:
    """What the packages' own scripts do when they are installed."""
    for name in ("sh", "awk"):
        target = (Path("/usr/bin") / name).resolve()
        (root / "usr" / "bin" / name).unlink(missing_ok=True)
        (root / "usr" / "bin" / name).symlink_to(target)
    for name in ("passwd", "group"):
        shutil.copy(f"/usr/share/base-passwd/{name}.master", root / "etc" / name)
    shutil.copytree("/etc/ssl/certs", root / "etc" / "ssl" / "certs", symlinks=True, dirs_exist_ok=True)
    (root / "tmp").chmod(0o1777)
    subprocess.run(("chroot", str(root), "/sbin/ldconfig"), check=True)


def _tell_dpkg(root: Path, packages: Sequence[str]) -> None:
    """Gives dpkg there what it knows of these packages here."""
    known = set(packages)
    stanzas = Path("/", _DPKG, "status").read_text().split("\n\n")
    kept = [each for each in stanzas if each.partition("\n")[0].removeprefix("Package: ") in known]
    folder = root / _DPKG
    for name in ("info", "updates", "triggers", "alternatives", "parts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").write_text("\n\n".join(kept) + "\n\n")
    for file in Path("/", _DPKG, "info").iterdir():
        if file.stem.partition(":")[0] in known and file.suffix in {".list", ".conffiles", ".md5sums"}:
            shutil.copy(file, folder / "info")


def depends_of(package: Path) -> list[str]:
    """The names of the packages that a .deb depends on."""
    return _names(_output("dpkg-deb", "--field", str(package), "Depends"), ",")


def service_environment(machine: Machine, unit: str, **more: str) -> Mapping[str, str]:
    """Makes the directories that systemd makes for a unit, and returns what its command finds in the environment."""
    found = dict(more)
    for key, place in (("StateDirectory", "/var/lib"), ("CacheDirectory", "/var/cache")):
        [name] = re.findall(rf"^{key}=(.*)$", machine.path(unit).read_text(), re.MULTILINE)
        machine.run("install", "-d", "-o", "replicator", "-g", "replicator", "-m", "0700", f"{place}/{name}")
        found[f"{key.removesuffix('Directory').upper()}_DIRECTORY"] = f"{place}/{name}"
    return found
