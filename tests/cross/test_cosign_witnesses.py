"""cosign verifies at the destination what it signed at the source, and the program trusts it on the way."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from replicator.demo.images import AMD64, ARM64, image, index
from replicator.model.companion import fallback_tag
from replicator.trust.signing import MIRRORED
from tests.acceptance.program import Program
from tests.acceptance.walker import fill
from tests.fakes.cosign import LEGACY, Cosign
from tests.fakes.distribution import Server, distribution
from tests.fakes.fulcio import IDENTITY, ISSUER, Sigstore
from tests.fakes.interop import distribution3, olareg, zot
from tests.fakes.process import running
from tests.fakes.s3 import settings
from tests.fakes.signing import PROVENANCE, Signer, att_tag, bundle_referrer, payload, sig_tag, statement

pytestmark = pytest.mark.interop

REGISTRIES = {"distribution2": distribution, "distribution3": distribution3, "olareg": olareg, "zot": zot}
IMAGE = index([image("signed", platform=AMD64), image("on arm", platform=ARM64)])
RULE = """
[[rule]]
name = "signed"
source = "hub"
destinations = [{destinations}]
repositories = ["signed/**"]
rename = {{ prefix = "{source}/" }}
{trust}
"""
SIGNED = '[[rule.trust]]\nname = "release"\nkeys = ["{key}"]\n'
ATTESTED = f'{SIGNED}attestations = [{{{{ predicate = "{PROVENANCE}" }}}}]\n'


def sign(cosign: Cosign, host: str, name: str) -> None:
    """One image in each form."""
    reference = f"{host}/signed/{name}@{IMAGE.digest}"
    older = (LEGACY,) if name.startswith("older") else ()
    if name.endswith("attested"):
        cosign.attest(reference, PROVENANCE, *older)
    else:
        cosign.sign(reference, *older)


def verifies(cosign: Cosign, reference: str, name: str) -> bool:
    older = (LEGACY,) if name.startswith("older") else ()
    if name.endswith("attested"):
        return cosign.verifies_attestation(reference, PROVENANCE, *older)
    return cosign.verifies(reference, *older)


def made(folder: Path) -> Program:
    folder.mkdir()
    return Program(folder)


FORMS = ("signed", "attested", "older-signed", "older-attested")


KEYLESS_FORMS = ("keyless", "older-keyless", "older-keyless-attested")


@dataclass(frozen=True)
class Signers:
    """Who signs in which form: cosign with a key, and a sigstore of the test's own with identities."""

    cosign: Cosign
    sigstore: Sigstore
    root: Path

    async def sign(self, hub: Server, kind: str, form: str) -> None:
        """Signs the image of a form at the source."""
        if form not in KEYLESS_FORMS:
            await asyncio.to_thread(sign, self.cosign, hub.host, form)
            return
        name, fallback = f"signed/{form}", fallback_tag(IMAGE.digest)
        if form == "older-keyless":
            signature = self.sigstore.legacy(payload(IMAGE.digest))
            await fill(hub.settings(), {(name, f"{fallback}.sig"): sig_tag(signature)})
            return
        if form == "older-keyless-attested":
            logged = "intoto" if kind == "distribution3" else "dsse"
            attestation = self.sigstore.legacy_attestation(statement(IMAGE.digest, PROVENANCE), logged)
            await fill(hub.settings(), {(name, f"{fallback}.att"): att_tag(attestation)})
            return
        bundle = bundle_referrer(IMAGE, json.dumps(self.sigstore.bundle(IMAGE.digest)).encode())
        lists_itself = kind in {"olareg", "zot"}
        await fill(
            hub.settings(),
            {(name, "bundle" if lists_itself else fallback): bundle if lists_itself else index([bundle])},
        )

    def demand(self, form: str) -> str:
        """The table of a rule that demands just what there is."""
        if form in KEYLESS_FORMS:
            keyless = f'keyless = [{{ issuer = "{ISSUER}", identity = "{IDENTITY}" }}]'
            attested = (
                f'attestations = [{{ predicate = "{PROVENANCE}" }}]' if form.endswith("attested") else ""
            )
            return f'[[rule.trust]]\nname = "ci"\n{keyless}\ntrusted_root = "{self.root}"\n{attested}\n'
        return (ATTESTED if form.endswith("attested") else SIGNED).format(key=self.cosign.public)

    def verifies(self, reference: str, form: str) -> bool:
        """Whether cosign does, offline."""
        if form in KEYLESS_FORMS:
            predicate = PROVENANCE if form.endswith("attested") else ""
            return self.cosign.verifies_keyless(reference, self.root, ISSUER, IDENTITY, predicate)
        return verifies(self.cosign, reference, form)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", REGISTRIES)
async def test_cosign_verifies_every_form_after_a_copy_to_every_registry(kind: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name, start in {"hub": REGISTRIES[kind], **REGISTRIES}.items():
            (tmp_path / name).mkdir()
            servers[name] = stack.enter_context(start(tmp_path / name))
        cosign, sigstore = await asyncio.to_thread(Cosign.with_key, tmp_path / "keys"), Sigstore()
        (tmp_path / "root.json").write_bytes(sigstore.trusted_root)
        signers = Signers(cosign, sigstore, tmp_path / "root.json")
        hub, forms = servers.pop("hub"), (*FORMS, *KEYLESS_FORMS)
        await fill(hub.settings(), {(f"signed/{form}", "v1"): IMAGE for form in forms})
        for form in forms:
            await signers.sign(hub, kind, form)
        destinations = ", ".join(f'"{name}"' for name in servers)
        rules = [
            RULE.format(destinations=destinations, source=kind, trust=signers.demand(form))
            .replace("signed/**", f"signed/{form}")
            .replace("repositories", 'tags = { include = ["v1"] }\nrepositories')
            .replace('name = "signed"', f'name = "{form}"')
            for form in forms
        ]
        program = made(tmp_path / "program")
        sites = {"hub": hub.url, **{name: each.url for name, each in servers.items()}}
        program.write_config(sites, "".join(rules))
        ended = await program("sync", "--json")
        assert ended.code == 0, ended.stderr
        assert ended.json["totals"]["tags"]["copied"] == len(servers) * len(forms), ended.stdout
        for form in forms:
            for name, server in servers.items():
                reference = f"{server.host}/{kind}/signed/{form}@{IMAGE.digest}"
                assert await asyncio.to_thread(signers.verifies, reference, form), (name, form)


@contextmanager
def served(folder: Path, *what: str) -> Iterator[str]:
    """A site, served by the program; host and port."""
    command = [sys.executable, "-m", "replicator", "serve", *what, "--listen", "127.0.0.1:0"]
    root = str(Path(__file__).parents[2])
    with running(command, folder / "serve.log", PYTHONPATH=root, HOME=str(folder)) as process:
        yield process.wait_for(r"url=http://([0-9.:]+)")[1]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("layout", ["distribution", "oci"])
@pytest.mark.parametrize("where", ["directory", "bucket"])
async def test_cosign_verifies_from_a_directory_or_bucket_that_is_served(
    where: str, layout: str, tmp_path: Path, s3_endpoint: str, s3_bucket: str
) -> None:
    with distribution3(tmp_path) as hub:
        cosign = await asyncio.to_thread(Cosign.with_key, tmp_path / "keys")
        other = await asyncio.to_thread(Cosign.with_key, tmp_path / "others")
        await fill(hub.settings(), {(f"signed/{form}", "v1"): IMAGE for form in FORMS})
        for form in FORMS:
            await asyncio.to_thread(sign, cosign, hub.host, form)
        program = made(tmp_path / "program")
        url = f"file://{tmp_path}/shelf" if where == "directory" else f"s3://{s3_bucket}"
        config = program.write_config(
            {"hub": hub.url, "shelf": url}, RULE.format(destinations='"shelf"', source="hub", trust="")
        )
        login = settings(s3_endpoint, s3_bucket).keys
        assert login is not None
        more = f'layout = "{layout}"'
        if where == "bucket":
            keys = f'access_key = "{login.access_key()}"\nsecret_key = "{login.secret_key()}"'
            more += f'\nendpoint = "{s3_endpoint}"\nregion = "us-east-1"\n{keys}'
        config.write_text(config.read_text().replace(f'url = "{url}"', f'url = "{url}"\n{more}'))
        ended = await program("sync")
        assert ended.code == 0, ended.stderr
    with served(tmp_path, "shelf", "-c", str(config)) as host:
        for form in FORMS:
            reference = f"{host}/hub/signed/{form}@{IMAGE.digest}"
            assert await asyncio.to_thread(verifies, cosign, reference, form), form
            assert not await asyncio.to_thread(verifies, other, reference, form), form


@pytest.mark.timeout(600)
async def test_what_another_key_signed_is_held_in_every_form(tmp_path: Path) -> None:
    with distribution3(tmp_path) as hub:
        cosign = await asyncio.to_thread(Cosign.with_key, tmp_path / "keys")
        (tmp_path / "other.pub").write_bytes(Signer.ecdsa().pem)
        await fill(hub.settings(), {(f"signed/{form}", "v1"): IMAGE for form in FORMS})
        for form in FORMS:
            await asyncio.to_thread(sign, cosign, hub.host, form)
        program = made(tmp_path / "program")
        trust = SIGNED.format(key=tmp_path / "other.pub")
        shelf = tmp_path / "shelf"
        program.write_config(
            {"hub": hub.url, "shelf": f"file://{shelf}"},
            RULE.format(destinations='"shelf"', source="x", trust=trust),
        )
        ended = await program("sync", "--json")
        assert ended.code == 0, ended.stderr
        assert ended.json["totals"]["tags"] == {
            "copied": 0, "unchanged": 0, "deleted": 0, "held": len(FORMS), "failed": 0
        }  # fmt: skip
        assert ended.json["totals"]["bytes"]["written"] == 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("signer", "how"),
    [
        (Signer.ecdsa(curve=ec.SECP384R1()), "ECDSA P-384 with SHA-384"),
        (Signer.ecdsa(curve=ec.SECP521R1()), "ECDSA P-521 with SHA-512"),
        (Signer(rsa.generate_private_key(65537, 2048)), "RSA 2048 PKCS#1 v1.5 with SHA-256"),
    ],
    ids=["P-384", "P-521", "RSA"],
)
async def test_the_command_explains_signatures_of_cosign_by_every_kind_of_key(
    signer: Signer, how: str, tmp_path: Path
) -> None:
    with olareg(tmp_path) as hub:
        cosign = await asyncio.to_thread(Cosign.with_key, tmp_path / "keys", signer)
        await fill(hub.settings(), {("signed/signed", "v1"): IMAGE})
        await asyncio.to_thread(sign, cosign, hub.host, "signed")
        program = made(tmp_path / "program")
        told = await program("verify-signature", "--key", str(cosign.public), f"{hub.host}/signed/signed:v1")
        assert told.code == 0, told.stdout + told.stderr
        assert how in told.stdout
        assert told.stdout.endswith("trusted\n")
        attested = await program(
            "verify-signature", "--key", str(cosign.public), "--attestation", PROVENANCE,
            f"{hub.host}/signed/signed:v1",
        )  # fmt: skip
        assert attested.code == 3
        assert "is a plain signature, not https://slsa.dev/provenance/v1" in attested.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", REGISTRIES)
async def test_cosign_verifies_what_the_program_signed(kind: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        for name in ("hub", "fra"):
            (tmp_path / name).mkdir()
        hub = stack.enter_context(distribution(tmp_path / "hub"))
        fra = stack.enter_context(REGISTRIES[kind](tmp_path / "fra"))
        cosign = await asyncio.to_thread(Cosign.with_key, tmp_path / "keys")
        other = await asyncio.to_thread(Cosign.with_key, tmp_path / "others")
        await fill(hub.settings(), {("signed/app", "v1"): IMAGE})
        program = made(tmp_path / "program")
        sign = f'[rule.sign]\nkey = {{ file = "{cosign.folder}/release.pem" }}\n'
        program.write_config(
            {"hub": hub.url, "fra": fra.url}, RULE.format(destinations='"fra"', source="hub", trust=sign)
        )
        ended = await program("sync")
        assert ended.code == 0, ended.stderr
        reference = f"{fra.host}/hub/signed/app:v1"
        assert await asyncio.to_thread(cosign.verifies, reference)
        assert await asyncio.to_thread(cosign.verifies_attestation, reference, MIRRORED)
        assert not await asyncio.to_thread(cosign.verifies_attestation, reference, PROVENANCE)
        assert not await asyncio.to_thread(other.verifies, reference)


@pytest.mark.timeout(600)
async def test_cosign_and_the_program_agree_on_keyless_signatures(tmp_path: Path) -> None:
    """The sigstore is one of the test's own, so this also shows that cosign finds nothing wrong with it."""
    sigstore = Sigstore()
    good, bad = json.dumps(sigstore.bundle(IMAGE.digest)), json.dumps(Sigstore().bundle(IMAGE.digest))
    (tmp_path / "root.json").write_bytes(sigstore.trusted_root)
    with distribution3(tmp_path) as hub:
        cosign = await asyncio.to_thread(Cosign.with_key, tmp_path / "keys")
        for name, body in (("good", good), ("bad", bad)):
            signature = bundle_referrer(IMAGE, body.encode())
            listed = index([signature])
            images = {(f"signed/{name}", "v1"): IMAGE, (f"signed/{name}", fallback_tag(IMAGE.digest)): listed}
            await fill(hub.settings(), images)
        program = made(tmp_path / "program")
        keyless = f'keyless = [{{ issuer = "{ISSUER}", identity = "re:https://github.com/acme/.*" }}]'
        trust = f'[[rule.trust]]\nname = "ci"\n{keyless}\ntrusted_root = "{tmp_path}/root.json"\n'
        program.write_config(
            {"hub": hub.url, "shelf": f"file://{tmp_path}/shelf"},
            RULE.format(destinations='"shelf"', source="x", trust=trust),
        )
        for name, trusted in (("good", True), ("bad", False)):
            told = await program("verify-signature", "--rule", "signed", f"hub/signed/{name}:v1")
            assert told.code == (0 if trusted else 3), told.stdout + told.stderr
            reference = f"{hub.host}/signed/{name}@{IMAGE.digest}"
            verified = await asyncio.to_thread(
                cosign.verifies_keyless, reference, tmp_path / "root.json", ISSUER, IDENTITY
            )
            assert verified is trusted
