from __future__ import annotations

import ssl
import threading
from pathlib import Path

import pytest
import trustme

from replicator.sites.authorities import default_context
from tests.fakes.modules import loaded_by


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """The only one that the system trusts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "system.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    return made


def _fresh() -> ssl.SSLContext:
    """As if by another process."""
    return default_context.__wrapped__()


def _shake_hands(context: ssl.SSLContext, authority: trustme.CA) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("here.test").configure_cert(serving)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(down, up, server_hostname="here.test")
    server = serving.wrap_bio(up, down, server_side=True)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for side in {client, server} - done:
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass


def test_the_systems_authorities_are_trusted_and_no_others(authority: trustme.CA) -> None:
    context = _fresh()
    _shake_hands(context, authority)
    with pytest.raises(ssl.SSLCertVerificationError):
        _shake_hands(context, trustme.CA())
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_they_are_read_by_the_first_handshake(authority: trustme.CA) -> None:
    context = _fresh()
    assert not context.get_ca_certs()
    _shake_hands(context, authority)
    assert len(context.get_ca_certs()) == 1
    assert type(context) is ssl.SSLContext


def test_threads_that_shake_hands_first_at_once_all_trust_them(authority: trustme.CA) -> None:
    context, threads, failures = _fresh(), 8, list[Exception]()
    together = threading.Barrier(threads)

    def work() -> None:
        wrap_bio = context.wrap_bio  # found before any other thread is through
        together.wait()
        try:
            wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="here.test")
            _shake_hands(context, authority)
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    working = [threading.Thread(target=work) for _ in range(threads)]
    for each in working:
        each.start()
    for each in working:
        each.join()
    assert not failures


def test_contexts_that_aiohttp_made_at_its_import_trust_them_from_the_first_handshake_on(
    authority: trustme.CA,
) -> None:
    loaded_by(
        """
import gc, ssl
from replicator.sites.authorities import import_aiohttp
import_aiohttp()
assert "set_default_verify_paths" not in vars(ssl.SSLContext)
made = [each for each in gc.get_objects() if isinstance(each, ssl.SSLContext)]
[verifying] = [each for each in made if each.verify_mode is ssl.CERT_REQUIRED]
assert not verifying.get_ca_certs()
verifying.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="here.test")
assert len(verifying.get_ca_certs()) == 1
"""
    )
