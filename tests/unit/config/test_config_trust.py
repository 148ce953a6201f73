from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from replicator.config.show import show
from replicator.trust.policy import Identity, TrustPolicy
from tests.fakes.fulcio import ISSUER, Sigstore
from tests.fakes.signing import PROVENANCE, Signer
from tests.unit.config.test_config_load import RULE, SITES, loaded, problems

SIGSTORE = Sigstore()
A, B = Signer.ecdsa("a.pub"), Signer.ecdsa("b.pub")


@pytest.fixture(autouse=True)
def keys(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    for name, content in (
        ("a.pub", A.pem),
        ("b.pub", B.pem),
        ("twin.pub", A.pem),
        ("private.pem", A.private_pem),
        ("root.json", SIGSTORE.trusted_root),
        ("notes.txt", b"no key"),
    ):
        (tmp_path / "keys" / name).write_bytes(content)


def trust(*tables: str) -> str:
    return SITES + RULE + "".join(f"[[rule.trust]]\n{table}\n" for table in tables)


def test_every_key_arrives(tmp_path: Path) -> None:
    text = trust(
        'name = "release"\nkeys = ["keys/a.pub", "keys/b.pub"]\nmin = 2\nannotations = { env = "prod" }\n'
        'identity = "repository"',
        f'keys = ["keys/a.pub"]\nattestations = [{{ predicate = "{PROVENANCE}" }}]',
    )
    found = loaded(tmp_path, text)
    assert found.rules[0].trust == (
        TrustPolicy("release", (A.key, B.key), minimum=2, annotations={"env": "prod"}, same_repository=True),
        TrustPolicy("trust 2", (A.key,), attestations=(PROVENANCE,)),
    )
    assert found.rules[0].trust[0].keys[0].name == "a.pub"
    assert 'keys = ["keys/a.pub", "keys/b.pub"]' in show(found)


KEYLESS = f'keyless = [{{ issuer = "{ISSUER}", identity = "re:https://github.com/acme/.*" }}]'


def test_keyless_signers_arrive_with_the_trusted_root(tmp_path: Path) -> None:
    found = loaded(tmp_path, trust(f'{KEYLESS}\ntrusted_root = "keys/root.json"\nmin = 2'))
    (policy,) = found.rules[0].trust
    assert policy.keyless == (Identity(ISSUER, re.compile("https://github.com/acme/.*")),)
    assert policy.trusted_root is not None
    assert policy.trusted_root.content == SIGSTORE.trusted_root
    assert not found.warnings


def test_a_trusted_root_that_is_half_a_year_old_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "root.json"
    old = path.stat().st_mtime - 200 * 86400
    os.utime(path, (old, old))
    found = loaded(tmp_path, trust(f'{KEYLESS}\ntrusted_root = "keys/root.json"'))
    (warning,) = found.warnings
    assert warning.startswith(f"{path}: the trusted root is 200 days old")
    assert "cosign trusted-root create" in warning


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (KEYLESS, "trust[0].keyless: requires trusted_root"),
        (f'{KEYLESS}\ntrusted_root = "keys/a.pub"', "keys/a.pub: not a trusted root of sigstore"),
        (
            f'{KEYLESS}\ntrusted_root = "keys/root.json"\nidentity = "repository"',
            "bundles do not name the repository",
        ),
        (
            f'keyless = [{{ issuer = "{ISSUER}" }}]\ntrusted_root = "keys/root.json"',
            "trust[0].keyless[0].identity",
        ),
        (
            'keyless = [{ identity = "a@example.com" }]\ntrusted_root = "keys/root.json"',
            "trust[0].keyless[0].issuer",
        ),
        (
            f'keyless = [{{ issuer = "{ISSUER}", identity = "re:(" }}]\ntrusted_root = "keys/root.json"',
            "invalid regular expression",
        ),
        ('keys = ["keys/a.pub"]\ntrusted_root = "keys/root.json"', "applies only to keyless"),
        ("", "rule.platform.trust[0]: has no signers; set keys or keyless"),
        ('keys = ["keys/missing.pub"]', "keys/missing.pub cannot be read: No such file"),
        ('keys = ["keys/private.pem"]', "keys/private.pem: contains a private key"),
        ('keys = ["keys/notes.txt"]', "keys/notes.txt: must contain one PEM public key"),
        ('keys = ["keys/a.pub", "keys/twin.pub"]\nmin = 2', "there are only 1 different keys"),
        ('keys = ["keys/a.pub"]\nmin = 0', "rule.platform.trust[0].min"),
        ('keys = ["keys/a.pub"]\nidentity = "host"', "rule.platform.trust[0].identity"),
        ('keys = ["keys/a.pub"]\nkey = "x"', "rule.platform.trust[0].key: unknown key"),
        (
            'keys = ["keys/a.pub"]\nattestations = [{ predicate = "slsaprovenance1" }]',
            "write https://slsa.dev/provenance/v1",
        ),
        (
            'keys = ["keys/a.pub"]\nattestations = [{ predicate = "https://sigstore.dev/cosign/sign/v1" }]',
            "is a plain signature",
        ),
        (
            f'keys = ["keys/a.pub"]\nattestations = [{{ predicate = "{PROVENANCE}" }}]\nannotations = {{ a = "b" }}',
            "trust[0].annotations: applies to signatures, not to attestations",
        ),
    ],
)
def test_mistakes_are_named_with_the_remedy(tmp_path: Path, table: str, says: str) -> None:
    found = problems(tmp_path, trust(table))
    assert len(found) == 1
    assert says in found[0]


def test_two_tables_of_one_name_are_told_apart_or_refused(tmp_path: Path) -> None:
    table = 'keys = ["keys/a.pub"]'
    (problem,) = problems(tmp_path, trust(f'name = "release"\n{table}', f'name = "release"\n{table}'))
    assert "trust[1].name: 'release' is the name of trust[0] too" in problem
    (problem,) = problems(tmp_path, trust(f'name = "trust 2"\n{table}', table))
    assert "'trust 2' is the name of trust[0] too" in problem


def test_statements_name_the_source_of_a_rule_of_image_lists_by_its_host(tmp_path: Path) -> None:
    (tmp_path / "images.txt").write_text("hub.example.com/team/app:v1\n")
    rule = (
        '[[rule]]\nname = "listed"\ndestinations = ["fra"]\nimages = { files = ["images.txt"] }\n'
        '[rule.sign]\nkey = { file = "keys/private.pem" }\n'
    )
    (made,) = [each for each in loaded(tmp_path, SITES + rule).rules if each.source == "hub"]
    assert made.sign is not None
    assert made.sign.reference("hub", "team/app", "v1") == "hub.example.com/team/app:v1"


def test_copies_are_signed_with_a_key_that_is_a_secret(tmp_path: Path) -> None:
    found = loaded(tmp_path, SITES + RULE + '[rule.sign]\nkey = { file = "keys/private.pem" }\n')
    sign = found.rules[0].sign
    assert sign is not None
    assert sign.key() == A.private_pem.decode().strip()
    assert sign.reference("hub", "team/app", "v1") == "hub.example.com/team/app:v1"
    assert sign.statement
    (found_problem,) = problems(tmp_path, SITES + RULE + '[rule.sign]\nkey = { file = "keys/a.pub" }\n')
    assert found_problem.endswith("rule.platform.sign.key: is not a PEM private key")
