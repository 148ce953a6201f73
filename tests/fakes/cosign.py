"""cosign with key pairs, wholly offline."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fakes.process import clean_environment, require
from tests.fakes.signing import Signer

OFFLINE: Final = ("--use-signing-config=false", "--tlog-upload=false", "--allow-http-registry", "--yes")
LEGACY: Final = "--new-bundle-format=false"
UNLOGGED: Final = ("--insecure-ignore-tlog", "--allow-http-registry")
_SECONDS: Final = 60


@dataclass(frozen=True)
class Cosign:
    """cosign with one key pair, `release.key` and `release.pub` in a folder."""

    folder: Path

    @classmethod
    def with_key(cls, folder: Path, signer: Signer | None = None) -> Cosign:
        """Brings a key into cosign's own format."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "release.pem").write_bytes((signer or Signer.ecdsa()).private_pem)
        made = cls(folder)
        made.run("import-key-pair", "--key", "release.pem", "--output-key-prefix", "release")
        return made

    @property
    def public(self) -> Path:
        """The public key."""
        return self.folder / "release.pub"

    def sign(self, reference: str, *more: str) -> None:
        """Signs an image where it is."""
        self.run("sign", "--key", "release.key", *OFFLINE, *more, reference)

    def attest(self, reference: str, predicate: str, *more: str) -> None:
        """Attaches an attestation."""
        (self.folder / "predicate.json").write_text('{"made": "for a test"}')
        what = ("--predicate", "predicate.json", "--type", predicate)
        self.run("attest", "--key", "release.key", *what, *OFFLINE, *more, reference)

    def verifies(self, reference: str, *more: str) -> bool:
        """Whether `cosign verify` passes."""
        return self._passes("verify", "--key", "release.pub", *UNLOGGED, *more, reference)

    def verifies_attestation(self, reference: str, predicate: str, *more: str) -> bool:
        """Whether `cosign verify-attestation` passes."""
        what = ("--key", "release.pub", "--type", predicate)
        return self._passes("verify-attestation", *what, *UNLOGGED, *more, reference)

    def verifies_keyless(
        self, reference: str, trusted_root: Path, issuer: str, identity: str, predicate: str = ""
    ) -> bool:
        """Whether `cosign verify` passes for a signer without a key, offline; `verify-attestation` with a predicate."""
        who = ("--certificate-oidc-issuer", issuer, "--certificate-identity", identity)
        root = ("--trusted-root", str(trusted_root), "--allow-http-registry")
        what = ("verify-attestation", "--type", predicate) if predicate else ("verify",)
        return self._passes(*what, *root, *who, reference)

    def run(self, *arguments: str) -> str:
        """Runs it. Raises AssertionError where it fails."""
        done = self._run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _passes(self, *arguments: str) -> bool:
        return self._run(*arguments).returncode == 0

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [require("cosign"), *arguments],
            capture_output=True,
            check=False,
            timeout=_SECONDS,
            text=True,
            cwd=self.folder,
            env={**clean_environment(), "COSIGN_PASSWORD": "test", "HOME": str(self.folder)},
        )
