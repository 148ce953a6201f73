"""What `config pull-policy` prints, enforced by those for whom it is printed."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.demo.images import AMD64, image
from replicator.model.companion import fallback_tag
from tests.acceptance.program import Program
from tests.acceptance.walker import fill
from tests.fakes.cosign import LEGACY, Cosign
from tests.fakes.distribution import Server
from tests.fakes.fulcio import ISSUER, Sigstore
from tests.fakes.interop import distribution3
from tests.fakes.process import clean_environment, require
from tests.fakes.signing import PROVENANCE, payload, sig_tag

pytestmark = pytest.mark.interop

OURS = ("bundle", "older", "named", "attested")
THEIRS = ("unsigned", "others")
OLDER = {"older", "named"}
IMAGES = {name: image(f"pulled as {name}", platform=AMD64) for name in (*OURS, *THEIRS)}
ATTESTED = f'attestations = [{{ predicate = "{PROVENANCE}" }}]'
EXACT = json.dumps([f"signed/{name}" for name in IMAGES])
RULE = """
[[rule]]
name = "signed"
source = "hub"
destinations = ["fra"]
repositories = {repositories}
[[rule.trust]]
name = "release"
keys = ["{key}"]
{more}
"""


@dataclass(frozen=True)
class Places:
    """A source and a destination that has a copy of the source's signed images, and images that others have put there.

    `bundle` and `older` are signed by the key of the rule, and `named` as `older`, by a signature that names its tag; `attested`
    has an attestation; `unsigned` has nothing, and `others` signatures by another key.
    """

    hub: Server
    fra: Server
    folder: Path
    cosign: Cosign

    def reference(self, name: str) -> str:
        """The image at the destination."""
        return f"{self.fra.host}/signed/{name}:v1"

    @property
    def pods(self) -> list[Path]:
        """A pod of each image, by its digest: Kubernetes has Kyverno write it before it has the pod judged."""
        return [
            pod(self.folder, name, f"{self.reference(name)}@{built.digest}") for name, built in IMAGES.items()
        ]

    async def policy(self, more: str = "", repositories: str = EXACT) -> Path:
        """What the program prints for a rule that demands the key, in a folder."""
        folder = self.folder / f"policy{len(list(self.folder.glob('policy*')))}"
        program = Program(self.folder)
        self.write_config(program, RULE.format(repositories=repositories, key=self.cosign.public, more=more))
        printed = await program("config", "pull-policy", "signed", "--write", str(folder))
        assert printed.code == 0, printed.stderr
        return folder

    def write_config(self, program: Program, rules: str) -> None:
        program.write_config({"hub": self.hub.url, "fra": self.fra.url}, rules)


@asynccontextmanager
async def places(folder: Path) -> AsyncIterator[Places]:
    for name in ("hub", "fra"):
        (folder / name).mkdir()
    with distribution3(folder / "hub") as hub, distribution3(folder / "fra") as fra:
        cosign = await asyncio.to_thread(Cosign.with_key, folder / "keys")
        other = await asyncio.to_thread(Cosign.with_key, folder / "others")
        await fill(hub.settings(), {(f"signed/{name}", "v1"): IMAGES[name] for name in OURS})
        await fill(fra.settings(), {(f"signed/{name}", "v1"): IMAGES[name] for name in THEIRS})
        await asyncio.to_thread(sign, cosign, hub.host, other, fra.host)
        found = Places(hub, fra, folder, cosign)
        program = Program(folder)
        found.write_config(
            program, RULE.format(repositories='["signed/*"]', key="", more="").partition("[[rule.trust]]")[0]
        )
        ended = await program("sync")
        assert ended.code == 0, ended.stderr
        yield found


def sign(cosign: Cosign, hub: str, other: Cosign, fra: str) -> None:
    """Signs the images, each where it is."""
    cosign.sign(f"{hub}/signed/bundle@{IMAGES['bundle'].digest}")
    cosign.sign(f"{hub}/signed/older@{IMAGES['older'].digest}", LEGACY)
    named = f"{hub}/signed/named"
    cosign.sign(f"{named}@{IMAGES['named'].digest}", LEGACY, "--sign-container-identity", f"{named}:v1")
    cosign.attest(f"{hub}/signed/attested@{IMAGES['attested'].digest}", PROVENANCE)
    others = f"{fra}/signed/others@{IMAGES['others'].digest}"
    other.sign(others)
    other.sign(others, LEGACY)
    other.attest(others, PROVENANCE)


def run(program: str, *arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require(program), *map(str, arguments)],
        capture_output=True,
        check=False,
        timeout=120,
        text=True,
        env=clean_environment() | {"HOME": str(home)},
        cwd=home,
    )


def pod(folder: Path, name: str, reference: str) -> Path:
    """A pod of one image, for Kubernetes."""
    container = {"name": "one", "image": reference}
    metadata = {"name": name, "namespace": "default"}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(body))
    return path


def admitted_by_kyverno(there: Places, policy: Path) -> set[str]:
    """Whose pods Kyverno's own program admits."""
    [document] = (policy / "imagevalidatingpolicy").iterdir()
    resources = [word for path in there.pods for word in ("--resource", path)]
    switches = ("--registry", "--policy-report", "--output-format", "json")
    done = run("kyverno", "apply", document, *resources, *switches, home=there.folder)
    results = json.loads(done.stdout)["results"]
    assert len(results) == len(IMAGES), done.stdout + done.stderr
    return {one["resources"][0]["name"] for one in results if one["result"] == "pass"}


def admitted_by_policy_controller(there: Places, policy: Path) -> set[str]:
    """The images that policy-controller's own program admits."""
    [document] = (policy / "clusterimagepolicy").iterdir()
    at = {name: f"{there.reference(name)}@{built.digest}" for name, built in IMAGES.items()}
    return {
        name
        for name, reference in at.items()
        if run("policy-tester", "-policy", document, "-image", reference, home=there.folder).returncode == 0
    }


def accepted_by_podman(there: Places, policy: Path, *, by_digest: bool = False) -> set[str]:
    """The images that containers/image accepts, the library of podman, CRI-O and skopeo."""
    at = {
        name: f"//{there.fra.host}/signed/{name}" + (f"@{built.digest}" if by_digest else ":v1")
        for name, built in IMAGES.items()
    }
    done = run("policyjson", policy / "policy.json", policy / "registries.d", *at.values(), home=there.folder)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == len(at), done.stdout
    return {name for name, reference in at.items() if f"accepted {reference}" in said}


@pytest.mark.policies
@pytest.mark.timeout(300)
async def test_kubernetes_admits_what_the_rule_would_copy_and_nothing_else(tmp_path: Path) -> None:
    async with places(tmp_path) as there:
        signed, attested = await there.policy(), await there.policy(ATTESTED)
        assert await asyncio.to_thread(admitted_by_kyverno, there, signed) == {"bundle"}
        assert await asyncio.to_thread(admitted_by_kyverno, there, attested) == {"attested"}
        # It verifies no bundles by a key.
        assert await asyncio.to_thread(admitted_by_policy_controller, there, signed) == OLDER


async def test_podman_accepts_what_the_rule_would_copy_and_nothing_else(tmp_path: Path) -> None:
    async with places(tmp_path) as there:
        signed, attested = await there.policy(), await there.policy(ATTESTED)
        # It verifies no bundles by a key.
        assert await asyncio.to_thread(accepted_by_podman, there, signed) == OLDER
        assert await asyncio.to_thread(accepted_by_podman, there, attested) == set()

        # What a pattern stands for is judged by signatures that name a tag.
        pattern = await there.policy(repositories='["signed/*"]')
        assert await asyncio.to_thread(accepted_by_podman, there, pattern) == {"named"}
        assert await asyncio.to_thread(accepted_by_podman, there, pattern, by_digest=True) == {"named"}


async def test_podman_accepts_a_keyless_signer_with_an_e_mail_address(tmp_path: Path) -> None:
    sigstore, dev = Sigstore(), "dev@example.com"
    (tmp_path / "root.json").write_bytes(sigstore.trusted_root)
    keyless = (
        f'keyless = [{{ issuer = "{ISSUER}", identity = "{dev}" }}]\ntrusted_root = "{tmp_path}/root.json"\n'
    )
    names = ("good", "somebody", "elsewhere", "unsigned")
    images = {name: image(f"keyless {name}", platform=AMD64) for name in names}
    with distribution3(tmp_path) as fra:

        def payload_of(name: str) -> bytes:
            return payload(images[name].digest, f"hub.example.com/signed/{name}")

        signatures = {
            "good": sigstore.legacy(payload_of("good"), identity=dev),
            "somebody": sigstore.legacy(payload_of("somebody"), identity="somebody@example.com"),
            "elsewhere": Sigstore().legacy(payload_of("elsewhere"), identity=dev),
        }
        tags = {(f"signed/{name}", "v1"): built for name, built in images.items()}
        tags |= {
            (f"signed/{name}", f"{fallback_tag(images[name].digest)}.sig"): sig_tag(signature)
            for name, signature in signatures.items()
        }
        await fill(fra.settings(), tags)
        program = Program(tmp_path)
        rule = RULE.format(repositories=json.dumps([f"signed/{name}" for name in names]), key="", more="")
        program.write_config(
            {"hub": "https://hub.example.com", "fra": fra.url}, rule.replace('keys = [""]\n', keyless)
        )
        printed = await program("config", "pull-policy", "signed", "--write", str(tmp_path / "policy"))
        assert printed.code == 0, printed.stderr
        at = [f"//{fra.host}/signed/{name}:v1" for name in names]
        folder = tmp_path / "policy"
        judged = await asyncio.to_thread(
            run, "policyjson", folder / "policy.json", folder / "registries.d", *at, home=tmp_path
        )
        assert judged.returncode == 0, judged.stderr
        said = judged.stdout.splitlines()
        assert said[0] == f"accepted {at[0]}", judged.stdout
        assert [line.partition(" ")[0] for line in said[1:]] == ["refused"] * 3, judged.stdout
